"""The guard of a training: knows an unstable one by its losses, and how far its learning rates were lowered for it.

A loss that is not a number is unstable at once. Else the smoothed loss is held against its own median of the last
`WINDOW` steps: single losses differ a hundredfold with the noise level and say nothing. Knows numbers only: going back
and telling of it are the loop's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

WINDOW = 100
"""Steps that the median looks back over; before there are so many, nothing is judged."""

SUSPECT = 2.0
"""Times the median from which on no checkpoint is written: the trouble may have begun."""

EXPLODED = 5.0
"""Times the median that is an explosion if it lasts for `PATIENCE` steps."""

PATIENCE = 10

MOST_HALVINGS = 3


class Unstable(Exception):
    """The loss is not a number, or it exploded; and where."""


@dataclass
class Guard:
    """What the guard has seen; a checkpoint keeps all of it, so that a resumed training is judged alike."""

    halvings: int = 0
    """How often the learning rates were halved."""
    recent: list[float] = field(default_factory=list)
    """The smoothed losses of the last steps."""
    back: int = -1
    """The step that was gone back to last; none if it is negative."""
    above: int = 0
    """Steps in succession on which the smoothed loss was `EXPLODED` times its median."""

    @property
    def factor(self) -> float:
        """What the learning rates are multiplied by; 1 as long as there was no trouble."""
        return 0.5**self.halvings

    @property
    def spent(self) -> bool:
        """Whether halving has not helped often enough to give up."""
        return self.halvings > MOST_HALVINGS

    @property
    def calm(self) -> bool:
        """Whether this moment may be gone back to."""
        return len(self.recent) < WINDOW or self.recent[-1] <= SUSPECT * median(self.recent)

    def watch(self, step: int, smoothed: float) -> None:
        """Take note of the smoothed loss at `step`. Raises `Unstable`."""
        self.recent = [*self.recent, smoothed][-WINDOW:]
        exploded = len(self.recent) == WINDOW and smoothed > EXPLODED * median(self.recent)
        self.above = self.above + 1 if exploded else 0
        if self.above >= PATIENCE:
            raise Unstable(f"at step {step} its loss is {smoothed:.3g}, where {median(self.recent):.3g} was usual")
