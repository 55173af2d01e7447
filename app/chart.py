"""The curve of the loss as a drawing: every step, smoothed, and what was measured on pictures held out.

Markup is made from numbers alone. Knows neither runs nor tabs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainer.training.events import Validated

MOST_POINTS = 300
WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 640, 200, 46, 8, 24, 10


def chart(losses: Sequence[tuple[int, float, float]], validated: Sequence[Validated] = ()) -> str:
    """The loss of every step, faint, and smoothed, strong, with what was measured on pictures held out as dots.

    `losses` are (step, loss, smoothed loss). The figure's caption is its legend. Empty below two steps.
    """
    if len(losses) < 2:
        return ""
    rows = [*losses[: -1 : max(1, len(losses) // MOST_POINTS)], losses[-1]]
    dots = [*validated[: -1 : max(1, len(validated) // MOST_POINTS)], *validated[-1:]]
    last = max(rows[-1][0], *(dot.step for dot in dots[-1:]), 1)
    heights = ticks(_ceiling([value for row in rows for value in row[1:]] + [dot.loss for dot in dots]), 4)
    top = heights[-1]

    def place(step: float, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / last
        return x, TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(value, top) / top)

    def line(name: str, points: Sequence[tuple[int, float]]) -> str:
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        return f'<polyline class="{name}" points="{places}"/>'

    levels = "".join(_level(height, place(0, height)[1]) for height in heights)
    steps = "".join(_step(step, place(step, 0)[0]) for step in ticks(last, 5, whole=True) if step <= last)
    circles = ('<circle cx="{:.1f}" cy="{:.1f}" r="3.5"/>'.format(*place(dot.step, dot.loss)) for dot in dots)
    return (
        f'<figure class="impasto-chart"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Smoothed loss {rows[-1][2]:.4f} at step {rows[-1][0]}">{levels}{steps}'
        f"{line('raw', [row[:2] for row in rows])}{line('smoothed', [row[::2] for row in rows])}{''.join(circles)}</svg>"
        f"<figcaption>{_legend(rows[-1], dots)}</figcaption></figure>"
    )


def ticks(top: float, most: int, whole: bool = False) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from 0 up to the first one that is not below `top`, `most` + 1 or fewer."""
    rough = max(top / most, 1.0 if whole else 0.0)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return [number * step for number in range(math.ceil(top / step - 1e-9) + 1)]


def _legend(row: tuple[int, float, float], dots: Sequence[Validated]) -> str:
    """What the lines are, each with its last value."""
    _, loss, smoothed = row
    told = f'<span class="raw">loss {loss:.4f}</span> <span class="smoothed">smoothed <b>{smoothed:.4f}</b></span>'
    if not dots:
        return told
    return f'{told} <span class="held">pictures held out {dots[-1].loss:.4f}, best at step {dots[-1].best}</span>'


def _ceiling(values: Sequence[float]) -> float:
    """A top for the scale that a few outliers do not raise."""
    ordered = sorted(values)
    return max(ordered[int(0.98 * (len(ordered) - 1))] * 1.15, 1e-6)


def _level(value: float, y: float) -> str:
    return (
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.6g}</text>'
    )


def _step(step: float, x: float) -> str:
    name, anchor = (f"{step:.0f}", "middle") if step else ("step 0", "start")
    return f'<text class="step" x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{name}</text>'
