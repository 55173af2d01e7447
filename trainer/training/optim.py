"""The optimizers, the curves of the learning rate, and the scale of the loss where gradients are float16."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from transformers.optimization import Adafactor

from trainer.errors import RunError
from trainer.lora.adapter import Adapter
from trainer.lora.keys import COMPONENTS, Component
from trainer.settings import LrSchedule, Settings, block_numbers

EXTRAS = {
    "adamw8bit": ("bitsandbytes.optim", "AdamW8bit", "bitsandbytes"),
    "prodigy": ("prodigyopt", "Prodigy", "prodigyopt"),
    "schedulefree_adamw": ("schedulefree", "AdamWScheduleFree", "schedulefree"),
    "schedulefree_prodigy": ("prodigyplus", "ProdigyPlusScheduleFree", "prodigy-plus-schedule-free"),
}
"""The optimizers that come with the extra `optimizers`: module, class, package."""

_OPTIONS: dict[str, dict[str, Any]] = {
    "prodigy": {"safeguard_warmup": True},
    "schedulefree_prodigy": {"split_groups": False, "factored": False},  # one estimate for all, so that rates keep their ratio
}
SCHEDULE_FREE = ("schedulefree_adamw", "schedulefree_prodigy")


def rates(settings: Settings) -> dict[Component, float]:
    """The learning rate of each part of the base that is trained."""
    asked: dict[Component, float] = {"unet": settings.unet_lr, "te1": settings.te1_lr, "te2": settings.te2_lr}
    return {component: asked[component] for component in COMPONENTS if asked[component] > 0}


def require(settings: Settings) -> None:
    """Raise `RunError` if the optimizer that the settings ask for is not installed, or cannot work with their rates."""
    if settings.optimizer in EXTRAS:
        _extra(settings.optimizer)
    if settings.optimizer in SCHEDULE_FREE and settings.ema:
        raise RunError(f"{settings.optimizer} learns an average by itself: set ema to 0, or choose another optimizer.")
    if settings.optimizer != "prodigy":
        return
    if len(set(rates(settings).values())) > 1:
        raise RunError(
            "Prodigy finds one learning rate for all parts: set unet_lr, te1_lr and te2_lr to one value, best 1, or to 0 for "
            "a part that is left alone."
        )
    if settings.lora_plus != 1 or any(rate not in (0, 1) for rate in block_numbers(settings.block_rates).values()):
        raise RunError(
            "Prodigy finds one learning rate for all layers: leave lora_plus at 1 and block_rates empty, or take "
            "schedulefree_prodigy."
        )


def _extra(name: str) -> Any:
    module, title, package = EXTRAS[name]
    try:
        return getattr(importlib.import_module(module), title)
    except ImportError:
        raise RunError(
            f"The optimizer {name} needs the package {package}: install it with python -m pip install {package}, or choose "
            "another optimizer."
        ) from None


def _groups(adapter: Adapter, settings: Settings) -> Iterator[dict[str, Any]]:
    """The matrices that share a rate: one group per part of the base, in the order of `rates`, unless settings part it.

    Blocks may have rates of their own, and LoRA+ gives the `up` matrices a higher one than `down` (arXiv 2402.12354).
    """
    for component, rate in rates(settings).items():
        matrices: dict[float, list[torch.nn.Parameter]] = {}
        for path, layer in adapter.layers[component].items():
            factor = adapter.shape.rate_of(component, path)
            matrices.setdefault(factor, []).append(layer.down)
            matrices.setdefault(factor * settings.lora_plus, []).append(layer.up)
        for factor, found in matrices.items():
            lr = rate * factor
            rated = {"lr": lr, "initial_lr": lr, "factor": factor, "weight_decay": settings.weight_decay}
            yield {"params": found, "part": component, **rated}


def make_optimizer(adapter: Adapter, settings: Settings) -> torch.optim.Optimizer:
    """The optimizer, whose groups each say which part of the base they are of. Raises `RunError`, see `require`."""
    require(settings)
    groups = list(_groups(adapter, settings))
    name = settings.optimizer
    if name == "adamw":
        on_card = any(matrix.device.type == "cuda" for group in groups for matrix in group["params"])
        return torch.optim.AdamW(groups, fused=True if on_card else None)
    if name == "lion":
        return Lion(groups)
    if name == "adafactor":
        return cast(torch.optim.Optimizer, Adafactor(groups, lr=1.0, scale_parameter=False, relative_step=False))
    other: Any = _extra(name)(groups, **_OPTIONS.get(name, {}))
    if name in SCHEDULE_FREE:
        other.train()
    return cast(torch.optim.Optimizer, other)


class Lion(torch.optim.Optimizer):
    """Lion (arXiv 2302.06675): steps of equal size in the direction of sign(b1 m + (1 - b1) g); m then follows g by b2."""

    BETAS: ClassVar[tuple[float, float]] = 0.9, 0.99

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 1e-4, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step; a closure is not taken."""
        ahead, behind = self.BETAS
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                memory = self.state[matrix].setdefault("exp_avg", torch.zeros_like(matrix))
                direction = memory.lerp(matrix.grad, 1 - ahead).sign_()
                matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=group["lr"])
                memory.lerp_(matrix.grad, 1 - behind)


@contextmanager
def averaged(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """While it lasts, the matrices hold what has been learnt; then, bit for bit, what is trained on.

    That differs only for a schedule-free optimizer, which learns an average (arXiv 2405.15682).
    """
    average = getattr(optimizer, "eval", None)
    if average is None:
        yield
        return
    matrices = [matrix for group in optimizer.param_groups for matrix in group["params"]]
    kept = [matrix.detach().clone() for matrix in matrices]
    try:
        average()
        yield
    finally:
        optimizer.train()  # type: ignore[attr-defined]  # of those that have `eval`
        with torch.no_grad():
            for matrix, before in zip(matrices, kept, strict=True):
                matrix.copy_(before)  # there and back is not exact


def curve(step: int, steps: int, warmup: float, schedule: LrSchedule = "cosine", cycles: int = 1) -> float:
    """Factor of the learning rate at `step` of `steps`: linear over the share `warmup`, then as the schedule has it.

    That is half a cosine to zero, `cycles` of them, a line to zero, or 1.
    """
    rising = round(steps * warmup)
    if step < rising:
        return (step + 1) / rising
    done = step - rising, max(1, steps - rising)
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return 1 - done[0] / done[1]
    share = done[0] * cycles % done[1] if schedule == "cosine_restarts" else done[0]
    return 0.5 * (1 + math.cos(math.pi * share / done[1]))


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


def set_rates(optimizer: torch.optim.Optimizer, settings: Settings, step: int, steps: int, factor: float = 1.0) -> None:
    """Give every group its learning rate at `step` of `steps`: its first one times the schedule's factor and `factor`.

    From the stop of its part on it is 0.
    """
    schedule: LrSchedule = "constant" if settings.optimizer in SCHEDULE_FREE else settings.lr_schedule
    scheduled = curve(step, steps, settings.warmup, schedule, settings.lr_cycles)
    stops: dict[Component, float] = {"unet": settings.unet_stop, "te1": settings.te1_stop, "te2": settings.te2_stop}
    ends = {part: round(stop * steps) if stop <= 1 else round(stop) for part, stop in stops.items()}
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * ((scheduled if step < ends[group["part"]] else 0.0) * factor)


def rest(optimizer: torch.optim.Optimizer) -> None:
    """Take the gradients from groups whose rate is 0.

    Without one no optimizer moves a matrix; at a rate of 0 some would, by what they remember of earlier steps.
    """
    for group in optimizer.param_groups:
        if group["lr"] == 0:
            for matrix in group["params"]:
                matrix.grad = None


def part_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The learning rate of each part, before what its blocks and LoRA+ make of it; with Prodigy's own estimate `d`."""
    found: dict[str, float] = {}
    for group in optimizer.param_groups:
        found.setdefault(group["part"], group["lr"] / group["factor"] * group.get("d", 1.0))
    return found
