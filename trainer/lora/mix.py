"""A mix of LoRAs, laid on the live weights of a base.

    W <- W0 + sum_i  w_i * change_i(W0)        in float32 or better, then copied in place

Always from a pristine copy `W0`, never by subtraction: any history of mixes leaves no trace, weight 0 restores the base
bit for bit, and a picture costs what the base's costs, however many LoRAs there are. A layer on which the mix is what it was
is left as it is. Knows nothing of what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from trainer.errors import BaseModelError, LoraFileError, UsageError
from trainer.lora.delta import Dora, Factors, Layer
from trainer.lora.file import LoraFile
from trainer.lora.keys import Component, table
from trainer.lora.shape import within
from trainer.lora.weights import Weighted

_BASES = {"sdxl_base_v1-0": "an SDXL base", "impasto_starter": "the starter as the base"}
"""What to choose for a LoRA, by the base that its file names."""

Laid = list[tuple[float, Layer]]
"""What lies on one layer of the base: changes and their weights."""


@dataclass(frozen=True)
class _Place:
    """A live weight, and where it is."""

    weight: nn.Parameter
    component: Component
    path: str


class Canvas:
    """The live weights of a base that LoRAs adapt, and the pristine copies of those that a mix has touched."""

    def __init__(self, parts: Mapping[Component, nn.Module], base_version: str, kept_on: torch.device | None = None) -> None:
        """`parts` are the base's models; `base_version` is what a file made for it names. Pristine copies are kept on the
        device `kept_on`, else beside their layers.

        Raises `BaseModelError` for a base whose weights are packed: what is laid on them would be lost without a word.
        """
        self._base_version = base_version
        self._kept_on = kept_on
        self._live: dict[str, _Place] = {}
        self._pristine: dict[str, torch.Tensor] = {}
        self._laid: dict[str, Laid] = {}
        self._fitting: list[LoraFile] = []
        for component, model in parts.items():
            layers = {path: layer for path, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
            for name, path in table(component, layers).items():
                weight = layers[path].weight
                if not isinstance(weight, nn.Parameter):
                    raise BaseModelError("Styles cannot be mixed into a base kept in 8 or 4 bits: load it in fp16 or fp32.")
                self._live[name] = _Place(weight, component, path)

    def check(self, lora: LoraFile) -> None:
        """Raise `LoraFileError` unless every layer of the file fits this base."""
        strange = [name for name in lora.layers if name not in self._live]
        wrong = [
            name for name, layer in lora.layers.items() if name in self._live and layer.shape != self._live[name].weight.shape
        ]
        if not strange and not wrong:
            return
        made_for = lora.base_version or "another base"
        if made_for == "impasto_starter":
            made_for = "the starter base only"
        raise LoraFileError(
            f"{lora.name} does not fit this base ({self._base_version}): it is made for {made_for}, and "
            f"{len(strange) + len(wrong)} of its {len(lora.layers)} layers have no counterpart here, "
            f"such as {(strange + wrong)[0]}. Choose {_BASES.get(lora.base_version, 'the base that it is made for')}."
        )

    @torch.no_grad()
    def size(self, lora: LoraFile) -> float:
        """Frobenius norm of the change that the file makes in the U-Net at weight 1. Raises `LoraFileError`."""
        self.check(lora)
        squares = (
            (float(layer.change(self._base(name).cpu()).norm()) if isinstance(layer, Dora) else layer.size()) ** 2
            for name, layer in lora.layers.items()
            if self._live[name].component == "unet"
        )
        return math.sqrt(math.fsum(squares))

    @torch.no_grad()
    def lay(self, mix: Sequence[Weighted]) -> None:
        """Make the live weights those of the base plus `mix`.

        Raises `LoraFileError` and `UsageError` (a block that the base has not) before anything is changed.
        """
        for part in mix:
            if all(part.lora is not known for known in self._fitting):
                self.check(part.lora)
            self._check_blocks(part.blocks)
        self._fitting = [part.lora for part in mix]
        asked = self._asked(mix)
        for name in list(self._pristine.keys() - asked.keys()):
            self._live[name].weight.copy_(self._pristine[name])
            self._laid.pop(name, None)
            del self._pristine[name]
        for name, found in asked.items():  # one layer at a time: all changes together would be twice a float16 base
            if not _same(found, self._laid.get(name, [])):
                live = self._live[name].weight
                if name not in self._pristine:
                    self._pristine[name] = live.detach().to(self._kept_on or live.device, copy=True)
                live.copy_(_added(self._base(name), found))
            self._laid[name] = found  # only now: where memory ran out before, nothing has changed

    def _check_blocks(self, blocks: Mapping[str, float]) -> None:
        """Raise `UsageError` unless the base's U-Net has every block."""
        for block in blocks:
            here = (place.component == "unet" and within(block, place.path) for place in self._live.values())
            if block != "unet" and not any(here):
                raise UsageError(f"The U-Net has no block {block}: name one such as down_blocks, mid_block or up_blocks.0.")

    def _asked(self, mix: Sequence[Weighted]) -> dict[str, Laid]:
        """What is to lie on each layer that a mix touches."""
        asked: dict[str, Laid] = {}
        for part in mix:
            for name, layer in part.lora.layers.items():
                weight = part.weight_of(self._live[name].component, self._live[name].path)
                if weight != 0:
                    asked.setdefault(name, []).append((weight, layer))
        return asked

    def _base(self, name: str) -> torch.Tensor:
        """A layer's pristine weight in float32, where the live one is."""
        live = self._live[name].weight
        return self._pristine.get(name, live).to(live.device).float()


def _same(one: Laid, other: Laid) -> bool:
    """Whether the very same changes lie there with the same weights, in the same order."""
    return len(one) == len(other) and all(
        weight == before and layer is known for (weight, layer), (before, known) in zip(one, other, strict=True)
    )


def _added(base: torch.Tensor, found: Laid) -> torch.Tensor:
    """`base` (float32) plus changes; those of two matrices in one product of all of them, beside each other.

    A CPU reckons in float64, which costs it little: sums that all but cancel are then right to the last place too.
    """
    mixed = base.double() if base.device.type == "cpu" else base
    pairs = [(weight * layer.scale, layer) for weight, layer in found if isinstance(layer, Factors)]
    if pairs:  # the matrices go to the base's device, not their product, which is many times as large
        up = torch.cat([layer.up.to(mixed).flatten(1) * scale for scale, layer in pairs], dim=1)
        down = torch.cat([layer.down.to(mixed).flatten(1) for _, layer in pairs])
        mixed = torch.addmm(mixed.flatten(1), up, down).view(base.shape)
    for weight, layer in found:
        if not isinstance(layer, Factors):
            mixed = mixed + weight * layer.on(base.device).change(base, mixed.dtype)
    return mixed
