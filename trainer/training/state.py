"""The state of a training: what it consists of, and how it is kept on the disk and found again.

Which step is taken next, and when the state is kept, is the loop's.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from trainer.data.cache import Encoded as EncodedPicture
from trainer.lora.adapter import Adapter
from trainer.sdxl.base import Base
from trainer.settings import Recompute, Settings
from trainer.training import checkpoint, optim
from trainer.training.checkpoint import Checkpoint
from trainer.training.events import Event, Saved, Warned
from trainer.training.guard import Guard
from trainer.training.plan import Plan
from trainer.training.run import Run


@dataclass
class Training:
    """What a training under way consists of."""

    run: Run
    base: Base
    adapter: Adapter
    optimizer: torch.optim.Optimizer
    plan: Plan
    encoded: list[EncodedPicture]
    abar: torch.Tensor
    cache: Path
    """Where it is remembered what the base is known by."""
    recompute: Recompute
    scale: optim.LossScale | None = None
    """Where the gradients are float16."""
    step: int = 0
    smoothed: float = math.nan
    guard: Guard = field(default_factory=Guard)
    earlier: float = 0.0
    """Seconds that the run took before it was resumed."""
    began: float = field(default_factory=time.monotonic)
    ticks: deque[float] = field(default_factory=lambda: deque(maxlen=30))

    @property
    def seconds(self) -> float:
        """Seconds of training, over all resumptions."""
        return self.earlier + time.monotonic() - self.began


def fresh(base: Base, settings: Settings) -> tuple[Adapter, torch.optim.Optimizer]:
    """A LoRA that changes nothing yet, put into the base, and its optimizer."""
    parts = {component: base.parts[component] for component in optim.rates(settings)}
    adapter = Adapter.inject(parts, settings.rank, settings.alpha, settings.seed)
    return adapter, optim.make_optimizer(adapter, settings)


def save(training: Training) -> Saved:
    """A checkpoint of this moment."""
    run = training.run
    moment = checkpoint.Moment(
        step=training.step,
        smoothed=training.smoothed,
        seconds=training.seconds,
        scale=training.scale,
        guard=training.guard,
    )
    keep = run.settings.keep_checkpoints
    folder = checkpoint.write(run.checkpoints, moment, training.adapter, training.optimizer, keep)
    return Saved(step=training.step, path=folder.relative_to(run.folder).as_posix())


def rewound(training: Training) -> Generator[Event, None, Checkpoint | None]:
    """Put the training where its newest whole checkpoint is; where there is none, at its start."""
    folder = training.run.checkpoints
    done = checkpoint.newest(folder)
    for path in checkpoint.damaged(folder, done):
        yield Warned(message=f"The checkpoint {path.name} is damaged, and is passed over.")
    if done:
        checkpoint.restore(done, training.adapter, training.optimizer)
        training.step, training.smoothed, training.guard = done.step, done.smoothed, done.guard
        training.scale = training.scale and (done.scale or training.scale)
    else:
        if training.step:
            training.adapter.eject()
            training.adapter, training.optimizer = fresh(training.base, training.run.settings)
        training.step, training.smoothed, training.guard = 0, math.nan, Guard()
        training.scale = training.scale and optim.LossScale()
    return done
