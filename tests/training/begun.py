"""Trainings that are ready for their first step, to look at what they do in one."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

from trainer.home import Home
from trainer.training.prepare import prepared, task_of
from trainer.training.run import Run
from trainer.training.state import Training

Made = TypeVar("Made")


def begun(run: Run, home: Home) -> Training:
    """The training of a run, with everything loaded and encoded."""
    return _made(prepared(_made(task_of(run, home))))


def _made(steps: Generator[Any, None, Made]) -> Made:
    """What a generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            made: Made = end.value
            return made
