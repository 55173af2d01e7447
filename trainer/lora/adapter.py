"""An adapter under training: the LoRA layers in a base's U-Net and text encoders.

Says which modules are adapted and how they are called in a file. Knows nothing of losses, optimizers or disks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from trainer.lora import keys
from trainer.lora.file import Factors
from trainer.lora.keys import Component
from trainer.lora.layer import LoraLinear, eject, inject


def targets(component: Component, model: nn.Module) -> list[str]:
    """The attention projections of a part of the base, in the model's order.

    The last layer of text encoder 1 is left out: SDXL reads `hidden_states[-2]` and never sees its output.
    """
    paths = [path for path, _ in model.named_modules() if keys.is_attention(component, path)]
    if component == "te1":
        last = f"encoder.layers.{int(model.config.num_hidden_layers) - 1}."  # type: ignore[union-attr,arg-type]
        paths = [path for path in paths if not path.removeprefix("text_model.").startswith(last)]
    return paths


@dataclass(frozen=True)
class Adapter:
    """LoRA layers by part of the base and module path."""

    parts: Mapping[Component, nn.Module]
    layers: Mapping[Component, dict[str, LoraLinear]]

    @classmethod
    def inject(cls, parts: Mapping[Component, nn.Module], rank: int, alpha: float, seed: int) -> Adapter:
        """Put fresh layers into the attention of each of `parts`; the models give the same output as before."""
        layers = {component: inject(model, targets(component, model), rank, alpha, seed) for component, model in parts.items()}
        return cls(parts, layers)

    def eject(self) -> None:
        """Take the layers out again: the models are as they were, bit for bit."""
        for component, model in self.parts.items():
            eject(model, self.layers[component])

    def named(self) -> Iterator[tuple[str, LoraLinear]]:
        """Every layer with its name in the file."""
        for component, layers in self.layers.items():
            for path, layer in layers.items():
                yield keys.file_name(component, path), layer

    def parameters(self, component: Component) -> list[nn.Parameter]:
        """The trainable matrices of a part of the base."""
        return [matrix for layer in self.layers.get(component, {}).values() for matrix in (layer.down, layer.up)]

    def factors(self) -> dict[str, Factors]:
        """The layers as a file holds them."""
        return {name: Factors(layer.down.detach(), layer.up.detach(), layer.alpha) for name, layer in self.named()}

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
        """Frobenius norm of all changes of a part together, from rank x rank products only:

        ||B A||^2 = sum((B^T B) * (A A^T)).
        """
        total = torch.zeros(())
        for layer in self.layers.get(component, {}).values():
            product = (layer.up.T @ layer.up) * (layer.down @ layer.down.T)
            total += product.sum().cpu() * layer.scale**2
        return float(total.clamp(min=0).sqrt())
