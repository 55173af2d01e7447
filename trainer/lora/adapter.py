"""An adapter under training: the LoRA layers in a base's U-Net and text encoders.

Puts them where its shape says, and tells how they are called in a file. Knows nothing of losses, optimizers or disks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from trainer.errors import SettingsError
from trainer.lora import keys
from trainer.lora.file import Factors
from trainer.lora.keys import Component
from trainer.lora.layer import LoraLayer, eject, inject, square
from trainer.lora.shape import Shape


def ranks(component: Component, model: nn.Module, shape: Shape) -> dict[str, int]:
    """The rank of every module of a part of the base that is adapted, by its path, in the model's order.

    The last layer of text encoder 1 is left out: SDXL reads `hidden_states[-2]` and never sees its output. Raises
    `SettingsError` if a block that is named does not exist, or nothing is left to adapt.
    """
    paths = [path for path, _ in model.named_modules()]
    if component == "unet" and (strange := sorted(shape.blocks.difference(paths))):
        raise SettingsError(f"This base's U-Net has no block {strange[0]}: correct block_ranks or block_rates.")
    if component == "te1":
        last = f"encoder.layers.{int(model.config.num_hidden_layers) - 1}."  # type: ignore[union-attr,arg-type]
        paths = [path for path in paths if not path.removeprefix("text_model.").startswith(last)]
    found = {path: rank for path in paths if (rank := shape.rank_of(component, path))}
    if not found:
        raise SettingsError(
            f"The settings leave nothing of {component} to train: set {component}_lr to 0, or change block_ranks, block_rates, "
            "style_blocks_only or targets."
        )
    return found


@dataclass(frozen=True)
class Adapter:
    """LoRA layers by part of the base and module path."""

    parts: Mapping[Component, nn.Module]
    layers: Mapping[Component, dict[str, LoraLayer]]
    shape: Shape

    @classmethod
    def inject(cls, parts: Mapping[Component, nn.Module], shape: Shape, seed: int) -> Adapter:
        """Put fresh layers into each of `parts`; the models give the same output as before. Raises `SettingsError`."""
        wanted = {component: ranks(component, model, shape) for component, model in parts.items()}
        layers = {component: inject(model, wanted[component], shape.scale, seed) for component, model in parts.items()}
        return cls(parts, layers, shape)

    def eject(self) -> None:
        """Take the layers out again: the models are as they were, bit for bit."""
        for component, model in self.parts.items():
            eject(model, self.layers[component])

    def named(self) -> Iterator[tuple[str, LoraLayer]]:
        """Every layer with its name in the file."""
        for component, layers in self.layers.items():
            for path, layer in layers.items():
                yield keys.file_name(component, path), layer

    def parameters(self, component: Component) -> list[nn.Parameter]:
        """The trainable matrices of a part of the base."""
        return [matrix for layer in self.layers.get(component, {}).values() for matrix in (layer.down, layer.up)]

    def factors(self) -> dict[str, Factors]:
        """The layers as a file holds them: all with one alpha, and the rest of a layer's scale folded into its `up`.

        For diffusers mixes layers' alphas up where they differ. A reader's scale is alpha / rank of the layer.
        """
        rank, alpha = self.shape.rank, self.shape.file_alpha
        return {
            name: Factors(layer.down.detach(), layer.up.detach() * (layer.rank / rank), alpha) for name, layer in self.named()
        }

    def state(self) -> dict[str, torch.Tensor]:
        """Every trainable matrix by name, to be saved and loaded."""
        return {f"{name}.{which}": getattr(layer, which) for name, layer in self.named() for which in ("down", "up")}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """The inverse of `state`. Raises `KeyError` if a matrix is missing."""
        for name, matrix in self.state().items():
            matrix.copy_(state[name])

    @torch.no_grad()
    def size_of_change(self, component: Component) -> float:
        """Frobenius norm of all changes of a part together."""
        squares = [square(layer.up, layer.down) * layer.scale**2 for layer in self.layers.get(component, {}).values()]
        return float(torch.stack(squares).sum().clamp(min=0).sqrt()) if squares else 0.0  # a card is waited for only once
