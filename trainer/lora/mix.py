"""A mix of LoRAs, laid on the live weights of a base.

    W <- W0 + sum_i  w_i * (alpha_i / rank_i) * up_i @ down_i        in float32, copied in place

Always from a pristine copy `W0`, never by subtraction: any history of mixes leaves no trace, weight 0 restores the base
bit for bit, and a picture costs what the base's costs, however many LoRAs there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from trainer.errors import LoraFileError
from trainer.lora.file import LoraFile
from trainer.lora.keys import Component, component_of, table


@dataclass(frozen=True)
class Weighted:
    """A LoRA in a mix, with its weight in the U-Net and in the text encoders."""

    lora: LoraFile
    unet: float
    text: float

    def weight_of(self, component: Component) -> float:
        """The weight that counts for a part of the base."""
        return self.unet if component == "unet" else self.text


class Canvas:
    """The live linear layers of a base, and the pristine copies of those that a mix has touched."""

    def __init__(self, parts: Mapping[Component, nn.Module], base_version: str) -> None:
        """`parts` are the base's models; `base_version` is what a file made for it names."""
        self._base_version = base_version
        self._live: dict[str, torch.Tensor] = {}
        self._pristine: dict[str, torch.Tensor] = {}
        for component, model in parts.items():
            linears = {path: layer for path, layer in model.named_modules() if isinstance(layer, nn.Linear)}
            for name, path in table(component, linears).items():
                self._live[name] = linears[path].weight

    def check(self, lora: LoraFile) -> None:
        """Raise `LoraFileError` unless every layer of the file fits this base."""
        strange = [name for name in lora.layers if name not in self._live]
        wrong = [
            name
            for name, factors in lora.layers.items()
            if name in self._live and (factors.up.shape[0], factors.down.shape[1]) != self._live[name].shape
        ]
        if not strange and not wrong:
            return
        made_for = lora.base_version or "another base"
        if made_for == "impasto_starter":
            made_for = "the starter base only"
        raise LoraFileError(
            f"{lora.name} does not fit this base ({self._base_version}): it is made for {made_for}, and "
            f"{len(strange) + len(wrong)} of its {len(lora.layers)} layers have no counterpart here, "
            f"such as {(strange + wrong)[0]}."
        )

    @torch.no_grad()
    def lay(self, mix: Sequence[Weighted]) -> None:
        """Make the live weights those of the base plus `mix`. Raises `LoraFileError` before anything is changed."""
        for part in mix:
            self.check(part.lora)
        changes: dict[str, torch.Tensor] = {}
        for part in mix:
            for name, factors in part.lora.layers.items():
                component = component_of(name)
                weight = part.weight_of(component) if component else 0.0
                if weight != 0:
                    change = weight * factors.change().to(self._live[name].device)
                    changes[name] = changes[name] + change if name in changes else change
        for name in list(self._pristine.keys() - changes.keys()):
            self._live[name].copy_(self._pristine.pop(name))
        for name, change in changes.items():
            live = self._live[name]
            pristine = self._pristine.setdefault(name, live.detach().clone())
            live.copy_((pristine.float() + change).to(live.dtype))
