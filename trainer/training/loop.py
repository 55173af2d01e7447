"""The training loop: a run in, events out. The only loop there is.

Nothing here draws a random number: a step follows from the seed and its own number, so a resumed run takes the same steps
as one left alone, and neither samples nor pauses change them.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

import torch

from trainer.errors import RunError
from trainer.home import Home
from trainer.sdxl.device import out_of_memory
from trainer.training import checkpoint
from trainer.training.board import Board
from trainer.training.events import Event, Finished, Resumed, Stepped, Stopped, Warned
from trainer.training.guard import MOST_HALVINGS, Unstable
from trainer.training.keeping import save, write_lora
from trainer.training.prepare import Task, prepared, task_of
from trainer.training.processes import Processes
from trainer.training.progress import Progress, fold
from trainer.training.run import Run
from trainer.training.samples import draw_samples
from trainer.training.state import Training, rewound
from trainer.training.step import spilt, take_step
from trainer.training.validation import measured
from trainer.training.waiting import Ending, attended

MOST_STEP_EVENTS = 4000
"""Longer runs tell of every second, third … step, so that their log stays small."""


def train(run: Run, home: Home) -> Iterator[Event]:
    """Train `run` to its end, from its newest checkpoint if it has one, and yield what happens.

    Where memory runs out it goes on from the last checkpoint in a way that needs less. Raises `ImpastoError`; the LoRA and
    the checkpoints on disk are whole at any moment.
    """
    before = fold(run.events())
    asked = run.settings.steps
    if before.state == "finished" and before.finished and asked in (0, before.finished.step) and run.lora.is_file():
        yield replace(before.finished, lora=run.lora.name, time=time.time())
        return
    with _board(run) as show:
        for event in _steadily(run, home):
            show(event)
            yield event


@contextmanager
def _board(run: Run) -> Iterator[Callable[[Event], None]]:
    """What shows events in TensorBoard, where that is asked for. Raises `RunError` if its package is missing."""
    if not run.settings.tensorboard or not Processes.found().first:
        yield lambda event: None
        return
    board = Board(run.folder)
    try:
        yield board.show
    finally:
        board.close()


def _steadily(run: Run, home: Home) -> Iterator[Event]:
    """The training, begun again in ways that need ever less memory as long as it runs out."""
    task = yield from task_of(run, home)
    while True:
        try:
            yield from _trained(task)
            return
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        task = task.lower()
        gc.collect()  # what has failed is free only now
        torch.cuda.empty_cache()
        yield task.lowered


def _trained(task: Task) -> Iterator[Event]:
    training = yield from prepared(task)
    if done := (yield from rewound(training)):
        training.pace.earlier = done.seconds
        yield Resumed(step=done.step)
        yield from _looks(training, fold(task.run.events()))
    else:
        if fold(task.run.events()).last:
            yield Resumed(step=0)  # what the log tells of so far is done again
        training.validated.clear()
        yield from _looks(training)
    ending: Ending = ""
    while not training.done and not training.guard.spent and not (ending := (yield from attended(training))):
        try:
            event = take_step(training)
        except Unstable as trouble:
            yield from _gone_back(training, trouble)
            continue
        yield from _followed_up(training, event)
    yield from _ended(training, ending)


def _followed_up(training: Training, event: Stepped) -> Iterator[Event]:
    """What follows a step: its event, and what is due at its number."""
    settings, step = training.run.settings, training.step
    if not training.processes.first:
        return
    if training.done or step % max(1, training.plan.steps // MOST_STEP_EVENTS) == 0:
        yield event
    if warning := spilt(training):
        yield Warned(message=warning)
    if training.done or (step % settings.checkpoint_every == 0 and training.guard.calm):
        yield save(training)
    yield from _looks(training)


def _looks(training: Training, before: Progress | None = None) -> Iterator[Event]:
    """What is measured and drawn at this step, the 0th with the base alone; of a run that goes on, what is lacking `before`."""
    settings, step = training.run.settings, training.step
    if not training.processes.first:
        return
    measured_then = any(step == when for when, _ in training.validated)
    if training.held_out and not measured_then and (training.done or step % settings.validate_every == 0):
        yield measured(training)
    drawn_then = before and any(step == sample.step for sample in before.samples)
    if settings.sample_every and not drawn_then and (training.done or step % settings.sample_every == 0):
        yield from draw_samples(training)


def _gone_back(training: Training, trouble: Unstable) -> Iterator[Event]:
    """To the last good step with half the learning rates; the guard is spent if that has not helped three times.

    Raises `RunError` if nothing is left to keep then.
    """
    halvings = training.guard.halvings + 1
    if training.processes.first:
        _pass_over(training, halvings > MOST_HALVINGS)
    training.processes.agree(None)
    yield from rewound(training)
    training.guard.halvings, training.guard.back = halvings, training.step
    if not training.guard.spent:
        yield Warned(
            message=f"The training became unstable: {trouble}. It goes back to step {training.step}, "
            f"with its learning rates at {training.guard.factor:g} of what was asked."
        )
        yield Resumed(step=training.step)
        return
    sentence = f"The training stays unstable with ever lower learning rates: {trouble}."
    if not training.step:
        raise RunError(f"{sentence} There is no good step to keep: start again with lower learning rates.")
    yield Warned(message=f"{sentence} It stops, and what was learnt up to step {training.step} is kept.")


def _pass_over(training: Training, last: bool) -> None:
    """Set a checkpoint aside in which the trouble had begun: its own loss is no number, or going back to it has not helped.

    At the last try, where no other is left, it is better than nothing.
    """
    folder = training.run.checkpoints
    kept = checkpoint.newest(folder)
    if kept and kept.step in (training.step, training.guard.back):
        checkpoint.set_aside(kept)
    if last and not checkpoint.newest(folder):
        checkpoint.take_back(folder)


def _ended(training: Training, ending: Ending) -> Iterator[Event]:
    """What is left on the disk when no more steps are taken, and word of it."""
    if not training.processes.first:
        return
    step, seconds = training.step, training.pace.seconds
    if ending == "cancel":
        yield Stopped(step=step, lora="", seconds=seconds)
        return
    if not training.done and not training.guard.spent:
        yield save(training)
    proof = yield from write_lora(training)
    if training.done:
        yield Finished(step=step, lora=training.run.lora.name, seconds=seconds, **asdict(proof))
    else:
        yield Stopped(step=step, lora=training.run.lora.name, seconds=seconds)
