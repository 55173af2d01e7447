"""The optimizer, the curve of the learning rate, and the scale of the loss where gradients are float16."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch

from trainer.lora.adapter import Adapter
from trainer.lora.keys import COMPONENTS, Component
from trainer.settings import Settings


def rates(settings: Settings) -> dict[Component, float]:
    """The learning rate of each part of the base that is trained."""
    asked: dict[Component, float] = {"unet": settings.unet_lr, "te1": settings.te1_lr, "te2": settings.te2_lr}
    return {component: asked[component] for component in COMPONENTS if asked[component] > 0}


def make_optimizer(adapter: Adapter, settings: Settings) -> torch.optim.AdamW:
    """AdamW with one group per part of the base, in the order of `rates`."""
    groups = [
        {"params": adapter.parameters(component), "lr": rate, "initial_lr": rate} for component, rate in rates(settings).items()
    ]
    return torch.optim.AdamW(groups, weight_decay=settings.weight_decay)


def curve(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate at `step` of `steps`: linear over the share `warmup`, then half a cosine to zero."""
    rising = round(steps * warmup)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


@dataclass
class LossScale:
    """What the loss is multiplied by, so that small gradients do not vanish in float16 (arXiv 1710.03740).

    A gradient that overflows lowers the scale, and the step is to be taken again; many steps without one raise it.
    """

    value: float = 2.0**16
    steps: int = 0
    """Steps taken since the scale last changed."""

    PATIENCE: ClassVar[int] = 2000
    """So many steps raise it."""

    @torch.no_grad()
    def undo(self, matrices: Iterable[torch.nn.Parameter]) -> None:
        """Divide gradients by the scale; exact, because it is a power of two."""
        for matrix in matrices:
            if matrix.grad is not None:
                matrix.grad.div_(self.value)

    def lower(self) -> bool:
        """Halve the scale after an overflow; False where it is 1 already, and the scale is not to blame."""
        if self.value <= 1:
            return False
        self.value, self.steps = self.value / 2, 0
        return True

    def took_step(self) -> None:
        """Count a step without overflow; double the scale after `PATIENCE` of them."""
        self.steps += 1
        if self.steps == self.PATIENCE:
            self.value, self.steps = self.value * 2, 0


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Every group's learning rate as its first one times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
