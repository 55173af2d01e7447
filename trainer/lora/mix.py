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

from trainer.errors import BaseModelError, LoraFileError
from trainer.lora.file import Factors, LoraFile
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
    """The live weights of a base that LoRAs adapt, and the pristine copies of those that a mix has touched."""

    def __init__(self, parts: Mapping[Component, nn.Module], base_version: str, kept_on: torch.device | None = None) -> None:
        """`parts` are the base's models; `base_version` is what a file made for it names. Pristine copies are kept on the
        device `kept_on`, else beside their layers.

        Raises `BaseModelError` for a base whose weights are packed: what is laid on them would be lost without a word.
        """
        self._base_version = base_version
        self._kept_on = kept_on
        self._live: dict[str, torch.Tensor] = {}
        self._pristine: dict[str, torch.Tensor] = {}
        for component, model in parts.items():
            layers = {path: layer for path, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
            for name, path in table(component, layers).items():
                if not isinstance(layers[path].weight, nn.Parameter):
                    raise BaseModelError("Styles cannot be mixed into a base kept in 8 or 4 bits: load it in fp16 or fp32.")
                self._live[name] = layers[path].weight

    def check(self, lora: LoraFile) -> None:
        """Raise `LoraFileError` unless every layer of the file fits this base."""
        strange = [name for name in lora.layers if name not in self._live]
        wrong = [
            name for name, factors in lora.layers.items() if name in self._live and factors.shape != self._live[name].shape
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
        weighted: dict[str, list[tuple[float, Factors]]] = {}
        for part in mix:
            for name, factors in part.lora.layers.items():
                component = component_of(name)
                weight = part.weight_of(component) if component else 0.0
                if weight != 0:
                    weighted.setdefault(name, []).append((weight, factors))
        for name in list(self._pristine.keys() - weighted.keys()):
            self._live[name].copy_(self._pristine.pop(name))
        for name, found in weighted.items():  # one layer at a time: all changes together would be twice a float16 base
            live = self._live[name]
            if name not in self._pristine:
                self._pristine[name] = live.detach().to(self._kept_on or live.device, copy=True)
            change = sum(weight * factors.on(live.device).change() for weight, factors in found)  # the product is the larger
            live.copy_((self._pristine[name].to(live.device).float() + change).to(live.dtype))
