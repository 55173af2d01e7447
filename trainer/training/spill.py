"""Notices that a card's driver moves memory to the computer's own, which it does without a word, and steps become very slow.

Drivers for Windows do so where a card is full, instead of saying that memory has run out. Two things together show it: steps
that take several times as long as such steps took before, or were predicted to take, and a card that is full. Slow steps
alone (samples, checkpoints, a warm laptop) show nothing, nor does a full card. Knows no torch: it is fed with figures.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

FULL = 0.92
"""Share of a card's memory from which on it counts as full: what is left is the desktop's, and too small for a tensor."""

SLOWER = 3.0
"""So many times the usual time is slow. A hot laptop takes about twice as long."""

SLOWER_THAN_PREDICTED = 4.0
"""The same for a prediction, which may be wrong by a factor of two."""

IN_A_ROW = 3
"""So many slow steps on pictures of one size, one after the other, are no accident."""

FIRST = 5
"""So many steps are held against the prediction; of them the fastest, since the first ones load and try kernels."""

REMEMBERED = 100
"""Steps that tell what is usual."""


@dataclass
class Spill:
    """Watches the steps of one training in one process, and speaks once."""

    predicted: float
    """Seconds that a step was predicted to take."""
    mean: float
    """Pixels of the pictures for which that was."""
    said: bool = False
    _usual: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    """Seconds and pixels of earlier steps that were not slow on a full card."""
    _slow: dict[int, int] = field(default_factory=dict)
    """Slow steps in a row, by the pixels of their pictures."""
    _first: list[float] = field(default_factory=list)
    """How many times longer than predicted the first steps took on a full card."""

    def watch(self, seconds: float, used: int, total: int, pixels: int) -> str | None:
        """Take note of a step; a sentence if it is the one that shows it.

        `seconds` are those of the step alone; `used` of the card's `total` bytes are taken, by whomever: the larger of what
        torch has reserved and what is not free. `pixels` are those of one of the step's pictures.
        """
        full = used > FULL * total
        slow = full and len(self._usual) >= FIRST and seconds > SLOWER * self.usual(pixels)
        self._slow[pixels] = self._slow.get(pixels, 0) + 1 if slow else 0
        if not slow:
            self._usual.append((seconds, pixels))
        if len(self._first) < FIRST:
            self._first.append(seconds / (self.predicted * max(1.0, pixels / self.mean)) if full else 0.0)
        if self.said:
            return None
        if self._slow[pixels] == IN_A_ROW:
            return self._sentence(seconds, f"{_time(self.usual(pixels))} as before", used, total)
        if len(self._first) == FIRST and min(self._first) > SLOWER_THAN_PREDICTED:
            return self._sentence(seconds, f"about {_time(self.predicted)} as predicted", used, total)
        return None

    def usual(self, pixels: int) -> float:
        """Seconds that a step on pictures of this size takes as a rule: like the earlier ones, longer for larger pictures.

        A step on smaller pictures may wait for as many launches as one on larger ones, so it is not expected to be faster.
        """
        return median(seconds * max(1.0, pixels / size) for seconds, size in self._usual)

    def _sentence(self, seconds: float, expected: str, used: int, total: int) -> str:
        self.said = True
        return (
            f"Steps take {_time(seconds)} instead of {expected}, and {used / 2**30:.1f} of the card's {total / 2**30:.1f} GiB "
            "are in use: its driver seems to move memory to the computer's own, which is very slow. Stop the training, close "
            "other programs that use the card, and resume it; if that does not help, start again with recompute full, a "
            "smaller batch or a lower resolution."
        )


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
