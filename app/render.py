"""A run's progress as what is shown: a sentence, a bar, the curve of the loss, samples. Pure functions of `Progress`.

Markup is made from numbers alone; text that people or files gave goes into Markdown, every sign of it literal.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from app.notice import literal
from trainer.training.events import Sampled, Validated
from trainer.training.outlook import told_outlook
from trainer.training.progress import Progress
from trainer.training.run import Run, Wish

Situation = Literal[
    "starting", "encoding", "training", "pausing", "paused", "stopping", "cancelling", "stopped", "finished", "failed", "lost"
]  # fmt: skip
MOST_POINTS = 300
MOST_PROMPTS = 4
MOST_SAMPLES = 8
"""Pictures of one prompt; of several prompts each has four, a row of the gallery."""
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 200, 46, 24, 10
STARTER_NOTE = "This LoRA is *only for the starter base*: it does nothing useful in SDXL."


def situation(progress: Progress, alive: bool, starting: bool, wishes: Collection[Wish]) -> Situation:
    """What is going on: the log tells the state, the process whether it is still true, its wishes what comes next."""
    if starting:
        return "starting"
    match progress.state:
        case "stopped" | "finished" | "failed" as over:
            return over
        case _ if not alive:
            return "lost"
        case _ if "cancel" in wishes:
            return "cancelling"
        case _ if "stop" in wishes:
            return "stopping"
        case "training" if "pause" in wishes:
            return "pausing"
        case "waiting":
            return "starting"
        case under_way:
            return under_way


def possible(now: Situation, alive: bool, wishes: Collection[Wish]) -> frozenset[str]:
    """What a person can do about a run now: the wishes that its process would hear, `go_on` with a pause, `resume`."""
    if now in ("stopped", "failed", "lost"):
        return frozenset({"resume"})
    if not alive or now not in ("encoding", "training", "pausing", "paused"):
        return frozenset()
    more = {"pause", "sample"} if now == "training" else {"go_on"} if "pause" in wishes else set()
    return frozenset({"stop", "cancel", *more} - set(wishes))


def status(run: Run, progress: Progress, now: Situation) -> str:
    """Where the run stands, in Markdown: a heading and a line."""
    name, step = literal(run.name), f"{progress.step} of {progress.steps} steps"
    match now:
        case "starting":
            done, total = progress.fetched
            so_far = f"Downloading the base model: {done / 2**30:.1f} of {total / 2**30:.1f} GiB."
            doing = so_far if done < total else "Loading the base model."
            return f"### Starting {name}\n{doing}"
        case "encoding":
            done, total = progress.encoded
            return f"### Preparing {name}\n{done} of {total} pictures are encoded."
        case "training":
            return f"### Training {name}\n{_pace(progress)}"
        case "pausing":
            return f"### Training {name}\nIt pauses after the step it is at."
        case "paused":
            then = "*Go on* takes the next one; the model stays loaded until then."
            return f"### {name} is paused\n{step} are done. {literal(progress.message) or then}"
        case "cancelling":
            return f"### Cancelling {name}\nIt ends after the step it is at."
        case "stopping":
            return f"### Stopping {name}\nIt stops after the step it is at, and keeps what it has learnt."
        case "stopped" if not progress.lora:
            return f"### {name} is cancelled\nAfter {step}. *Resume* goes on from the last checkpoint, if there is one."
        case "stopped":
            return f"### {name} is stopped\nAfter {step}; what it has learnt so far is kept. {_made(run, progress)}"
        case "finished":
            return f"### {name} is finished\n{progress.step} steps. {_made(run, progress)}"
        case "failed":
            return f"### {name} failed\n{literal(progress.message)}"
        case "lost":
            log = literal(str(run.folder / "log.txt"))
            return (
                f"### {name} was interrupted\nIts process ended without a word, after {step}. "
                f"*Resume* goes on from the last checkpoint. What the process printed is in {log}."
            )


def outlook(result: Mapping[str, Any]) -> str:
    """What `impasto plan` says: the verdict, then the rest, its table as a list."""
    rest = [line for line in told_outlook(dict(result)) if line != result["sentence"]]
    shown = [f"- {literal(line)}" if line.startswith("  ") else f"\n{literal(line)}\n" for line in rest]
    return "\n".join([f"**{literal(result['sentence'])}**", *shown])


def _pace(progress: Progress) -> str:
    last = progress.last
    if last is None:
        return f"{progress.steps} steps to go. The first samples are being drawn."
    if progress.step == progress.steps:
        return f"All {progress.steps} steps are done. The last samples are being drawn."
    speed = f"{last.speed:.1f} steps per second" if last.speed >= 1 else f"{1 / max(last.speed, 1e-9):.1f} seconds per step"
    memory = f" · {last.memory / 2**30:.1f} GiB" if last.memory else ""
    return f"Step {progress.step} of {progress.steps} · {speed} · {duration(last.eta)} left{memory}"


def _made(run: Run, progress: Progress) -> str:
    note = f" {STARTER_NOTE}" if run.base == "starter" else ""
    return f"The LoRA is {literal(str(run.folder / progress.lora))} and can be mixed in *Preview*.{note}"


def duration(seconds: float) -> str:
    """A rough length of time."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def warnings(progress: Progress) -> str:
    """The warnings as a Markdown list."""
    return "\n".join(f"- {literal(message)}" for message in dict.fromkeys(progress.warnings))


def bar(progress: Progress, now: Situation) -> str:
    """How much is done, as a bar."""
    done, total = {"starting": progress.fetched, "encoding": progress.encoded}.get(now, (0, 0))
    share = done / max(1, total) if done < total or now == "encoding" else progress.share
    percent = round(100 * min(1.0, share))
    return (
        f'<div class="impasto-bar {now}" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{percent}"><i style="width:{percent}%"></i></div>'
    )


def chart(losses: Sequence[tuple[int, float, float]], validated: Sequence[Validated] = ()) -> str:
    """The loss of every step, faint, and smoothed, strong, as a drawing, with what was measured on pictures held out as dots.

    Empty below two steps.
    """
    if len(losses) < 2:
        return ""
    stride = max(1, len(losses) // MOST_POINTS)
    rows = [*losses[:-1:stride], losses[-1]]
    dots = [*validated[: -1 : max(1, len(validated) // MOST_POINTS)], *validated[-1:]]
    first, last = rows[0][0], max([rows[-1][0], *(dot.step for dot in dots)])
    top = _ceiling([value for row in rows for value in row[1:]] + [dot.loss for dot in dots])

    def place(step: int, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - 8) * max(0, step - first) / max(1, last - first)
        return x, TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(value, top) / top)

    def line(name: str, points: Sequence[tuple[int, float]]) -> str:
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        return f'<polyline class="{name}" points="{places}"/>'

    grid = "".join(_line(top * part / 4, place(first, top * part / 4)[1]) for part in range(5))
    circles = ('<circle cx="{:.1f}" cy="{:.1f}" r="3.5"/>'.format(*place(dot.step, dot.loss)) for dot in dots)
    return (
        f'<figure class="impasto-chart"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Smoothed loss {rows[-1][2]:.4f} at step {rows[-1][0]}">{grid}'
        f"{line('raw', [row[:2] for row in rows])}{line('smoothed', [row[::2] for row in rows])}{''.join(circles)}"
        f'<text x="{LEFT}" y="{HEIGHT - 6}">{first}</text>'
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 6}" text-anchor="end">step {last}</text></svg>'
        f"<figcaption>Loss <b>{rows[-1][2]:.4f}</b> smoothed, {rows[-1][1]:.4f} at the last step{_held_out(dots)}"
        "</figcaption></figure>"
    )


def _held_out(validated: Sequence[Validated]) -> str:
    """The last measurement on the pictures held out, in words."""
    if not validated:
        return ""
    last = validated[-1]
    return f"; <i>{last.loss:.4f}</i> on pictures held out, best at step {last.best}"


def _ceiling(values: Sequence[float]) -> float:
    """A top for the scale that a few outliers do not raise."""
    ordered = sorted(values)
    return max(ordered[int(0.98 * (len(ordered) - 1))] * 1.15, 1e-6)


def _line(value: float, y: float) -> str:
    return (
        f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.2g}</text>'
    )


def samples(run: Run, progress: Progress) -> list[tuple[Path, str]]:
    """The sample pictures that are there, prompt by prompt: what the base draws, then the latest ones, newest first."""
    prompts: dict[str, list[Sampled]] = {}
    for sample in progress.samples:
        prompts.setdefault(sample.prompt, []).append(sample)
    most = max(4, MOST_SAMPLES // max(1, len(prompts)))
    found = []
    for drawn in list(prompts.values())[:MOST_PROMPTS]:
        found += [(run.folder / path, caption) for path, caption in _row(drawn, most)]
    return [(path, caption) for path, caption in found if path.is_file()]


def _row(drawn: Sequence[Sampled], most: int) -> list[tuple[str, str]]:
    """Of the pictures of one prompt what the base draws, which at step 0 the LoRA has not changed yet, and the newest."""
    base = drawn[-1].base or next((sample.path for sample in drawn if sample.step == 0), "")
    latest = {sample.path: f"step {sample.step}" for sample in reversed(drawn) if sample.path != base}
    return ([(base, "the base")] if base else []) + list(latest.items())[: most - bool(base)]
