"""How fast a training goes, and how long it has taken. Knows a clock and nothing else."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field


@dataclass
class Pace:
    """The clock of a training: seconds that passed while it waited for somebody do not count."""

    earlier: float = 0.0
    """Seconds that the run took before it was resumed."""
    last: float = 0.0
    """Seconds of the last step alone."""
    _began: float = field(default_factory=lambda: time.monotonic())
    _step_began: float = 0.0
    _ticks: deque[float] = field(default_factory=lambda: deque(maxlen=30))

    @property
    def seconds(self) -> float:
        """Seconds of training, over all resumptions."""
        return self.earlier + time.monotonic() - self._began

    def start(self) -> None:
        """A step begins."""
        self._step_began = time.monotonic()

    def tick(self) -> float:
        """A step ends; the steps per second lately, with what was done between them."""
        self._ticks.append(time.monotonic())
        self.last = self._ticks[-1] - self._step_began
        if len(self._ticks) == 1:
            return 1 / max(1e-9, self._ticks[0] - self._began)
        return (len(self._ticks) - 1) / max(1e-9, self._ticks[-1] - self._ticks[0])

    def waited(self, seconds: float) -> None:
        """Leave out a time in which nothing was done."""
        self.earlier -= seconds
        self._ticks.clear()
        self._ticks.append(time.monotonic())
