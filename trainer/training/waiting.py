"""What a person asks of a training under way, and when it has to wait: between two steps, and only there.

Where several processes train together, the first one hears, and tells the others.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Literal

from trainer.errors import RunError, StorageError
from trainer.training import checkpoint
from trainer.training.events import Event, Paused, Resumed, Warned
from trainer.training.keeping import save
from trainer.training.samples import draw_samples
from trainer.training.state import Training

BLINK = 0.5
"""Seconds between two looks of a training that waits."""

Ending = Literal["", "stop", "cancel"]
"""How a person wants a training to end before its last step, if they do."""


def attended(training: Training) -> Generator[Event, None, Ending]:
    """Do what is asked for, wait as long as it must be; whether to end."""
    ending, reason = training.processes.agree(_heard(training))
    if reason is not None and not ending:
        yield Paused(step=training.step, message=reason)
        began = time.monotonic()
        while reason is not None and not ending:
            time.sleep(BLINK)
            ending, reason = training.processes.agree(_heard(training))
        training.pace.waited(time.monotonic() - began)
        yield Resumed(step=training.step)
    if ending:
        return ending
    yield from _looked_for(training)
    run = training.run
    if run.wishes("save") and training.processes.first:
        run.granted("save")
        yield save(training)
    if run.wishes("sample") and training.processes.first:
        run.granted("sample")
        yield from draw_samples(training)
    return ending


def _heard(training: Training) -> tuple[Ending, str | None]:
    """How it is to end, and why it must wait: empty if a person asked for it, None if it need not."""
    run = training.run
    if run.wishes("cancel"):
        return "cancel", None
    if run.wishes("stop"):
        return "stop", None
    return "", "" if run.wishes("pause") else _short_of_room(training)


def _short_of_room(training: Training) -> str | None:
    """A sentence if the next step writes a checkpoint for which the disk has no room: asked while nothing can be lost."""
    due = (training.step + 1) % training.run.settings.checkpoint_every == 0 or training.step + 1 == training.plan.steps
    if not due and training.step:
        return None
    try:
        checkpoint.require_room(training.run, training.adapter)
    except StorageError as error:
        return str(error)
    return None


def _looked_for(training: Training) -> Generator[Event, None, None]:
    """Let others take the places of the next step's pictures that were deleted. Raises `RunError` if none is left."""
    while True:
        due = {index for micro in training.all_micros(training.step) for index in training.plan.indices(micro)}
        pictures = training.plan.pictures
        gone = training.processes.agree({index for index in due if not pictures[index].picture.path.is_file()})
        if not gone:
            return
        try:
            training.plan = training.plan.skipping(training.plan.gone | gone)
        except RunError:
            if training.step and training.processes.first:
                yield save(training)
            raise
        names = ", ".join(sorted({pictures[index].picture.path.name for index in gone}))
        count = len({pictures[index].picture.path for index in training.plan.gone})
        yield Warned(message=f"No longer in its folder, and skipped: {names}. So far {count} in all.")
