"""Follows the event logs of runs: reads only what is new and folds it onto what was known. Draws nothing."""

from __future__ import annotations

import threading
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path

from trainer.training.events import from_line
from trainer.training.progress import Progress, fold
from trainer.training.run import Run


@dataclass
class _Followed:
    """How far a log has been read, in bytes, and what it said."""

    offset: int = 0
    progress: Progress = field(default_factory=Progress)


class Watch:
    """The progress of any run, at the cost of its new events only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._followed: dict[Path, _Followed] = {}

    def progress(self, run: Run) -> Progress:
        """What the run's log says now; a line still being written waits for the next look."""
        with self._lock:
            followed = self._followed.setdefault(run.folder, _Followed())
            size = run.events_path.stat().st_size if run.events_path.is_file() else 0
            if size < followed.offset:  # another run of the same name
                followed = self._followed[run.folder] = _Followed()
            if size > followed.offset:
                with run.events_path.open("rb") as log:
                    log.seek(followed.offset)
                    whole, newline, _ = log.read().rpartition(b"\n")
                followed.offset += len(whole) + len(newline)
                lines = whole.decode("utf-8", errors="replace").splitlines()
                fold(map(from_line, lines), followed.progress)
            return copy(followed.progress)
