"""The optimizer and the curve of the learning rate."""

from __future__ import annotations

import math

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


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Every group's learning rate as its first one times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
