"""The state of a training: what it consists of, and how it is put back to where a checkpoint was written.

Which step is taken next, and when the state is kept, is the loop's.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from trainer.bases.fingerprint import origin_of
from trainer.data.cache import Encoded
from trainer.errors import RunError
from trainer.lora.adapter import Adapter
from trainer.lora.shape import Shape
from trainer.sdxl.base import Base
from trainer.settings import Settings
from trainer.training import checkpoint, optim
from trainer.training.average import Average, holding, weighed
from trainer.training.checkpoint import Checkpoint
from trainer.training.events import Event, Warned
from trainer.training.fit import Rung
from trainer.training.guard import Guard
from trainer.training.pace import Pace
from trainer.training.plan import Plan
from trainer.training.processes import Processes
from trainer.training.run import Run
from trainer.training.spill import Spill
from trainer.training.texts import Texts


@dataclass
class Training:
    """What a training under way consists of."""

    run: Run
    base: Base
    adapter: Adapter
    optimizer: torch.optim.Optimizer
    plan: Plan
    encoded: dict[int, Encoded]
    """The plan's pictures by their index, but for those that are gone."""
    held_out: list[Encoded]
    """Pictures that are measured on and never trained."""
    texts: Texts
    abar: torch.Tensor
    rung: Rung
    cache: Path
    """Where it is remembered what the base is known by."""
    processes: Processes
    average: Average | None = None
    """What becomes the LoRA, where an average is asked for."""
    scale: optim.LossScale | None = None
    """Where the gradients are float16."""
    step: int = 0
    smoothed: float = math.nan
    guard: Guard = field(default_factory=Guard)
    validated: list[tuple[int, float]] = field(default_factory=list)
    """Steps at which it was measured, and the losses."""
    spill: Spill | None = None
    """Where there is a card that can spill."""
    pace: Pace = field(default_factory=Pace)

    @property
    def done(self) -> bool:
        """Whether all steps are taken."""
        return self.step >= self.plan.steps

    def all_micros(self, step: int) -> range:
        """The numbers of a step's micro-batches, in all processes; steps count from 0."""
        each = self.run.settings.accumulation * self.processes.count
        return range(step * each, (step + 1) * each)

    def micros(self, step: int) -> range:
        """Those of them that this process takes."""
        return self.all_micros(step)[self.processes.index :: self.processes.count]

    @cached_property
    def fingerprint(self) -> str:
        """What the base's weights are known by; empty where that is not known."""
        return origin_of(self.base.facts, self.cache).identity.fingerprint

    @contextmanager
    def learnt(self, weight: float = 1.0) -> Iterator[None]:
        """While it lasts, the adapter holds what has been learnt, at a weight; then what is trained on, bit for bit."""
        with ExitStack() as held:
            held.enter_context(optim.averaged(self.optimizer))
            if self.average:
                held.enter_context(holding(self.adapter, self.average.matrices))
            held.enter_context(holding(self.adapter, weighed(self.adapter, weight)))
            yield


def fresh(base: Base, settings: Settings) -> tuple[Adapter, torch.optim.Optimizer, Average | None]:
    """A LoRA that changes nothing yet, put into the base, its optimizer, and its average if one is asked for."""
    parts = {component: base.parts[component] for component in optim.rates(settings)}
    adapter = Adapter.inject(parts, Shape.of(settings), settings.seed)
    return adapter, optim.make_optimizer(adapter, settings), Average(adapter, settings.ema) if settings.ema else None


def _require_same_world(training: Training, done: Checkpoint) -> None:
    """Raise `RunError` if a checkpoint's steps were taken on another base, or by another number of processes."""
    if done.base and done.base != training.fingerprint:
        raise RunError(
            f"{training.run.base} is no longer the base that {training.run.folder} was begun on: put that one back to go on, "
            "or start a new run."
        )
    if done.processes != (count := training.processes.count):
        raise RunError(
            f"The steps of {training.run.folder} were taken by {done.processes} processes together, and now there are {count}: "
            "every step would see other pictures. Start as many as before."
        )


def rewound(training: Training) -> Generator[Event, None, Checkpoint | None]:
    """Put the training where its newest whole checkpoint is; where there is none, at its start."""
    folder = training.run.checkpoints
    done = checkpoint.newest(folder)
    for path in checkpoint.damaged(folder, done):
        yield Warned(message=f"The checkpoint {path.name} is damaged, and is passed over.")
    if done:
        checkpoint.restore(done, training.run, training.adapter, training.optimizer, training.average)
        _require_same_world(training, done)
        training.step, training.smoothed, training.guard = done.step, done.smoothed, done.guard
        training.scale = training.scale and (done.scale or training.scale)
    else:
        if training.step:
            training.adapter.eject()
            training.adapter, training.optimizer, training.average = fresh(training.base, training.run.settings)
        training.step, training.smoothed, training.guard = 0, math.nan, Guard()
        training.scale = training.scale and optim.LossScale()
    if training.processes.agree(training.step) != training.step:
        raise RunError(f"The processes do not see the same checkpoints: {folder} must be on a disk that all of them share.")
    training.validated = [measured for measured in training.validated if measured[0] <= training.step]
    return done
