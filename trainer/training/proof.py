"""The proof of a training: its LoRA, read back from the disk, holds what was trained, and it changes the base.

Knows files, layers and counts. When a proof is due, and what is told of it, is the loop's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from trainer.errors import LoraFileError
from trainer.lora.delta import Layer
from trainer.lora.file import Factors, LoraFile
from trainer.lora.keys import Component, component_of
from trainer.sdxl.quantise import QuantisedLinear

_NAMES: Mapping[Component, str] = {"unet": "The U-Net", "te1": "Text encoder 1", "te2": "Text encoder 2"}


@dataclass(frozen=True)
class Proof:
    """What the file was found to hold."""

    layers: int
    size: int
    """Bytes of the file."""
    share: float
    """Trained numbers as a share of the base's weights, U-Net and text encoders."""
    change: Mapping[Component, float]
    """Frobenius norm of all changes of each part that was to be trained, at weight 1."""

    @property
    def doubts(self) -> list[str]:
        """A sentence for each part that was to be trained and is as it was."""
        return [
            f"{_NAMES[part]} was to be trained, but the LoRA does not change it: train longer, or raise {part}_lr."
            for part, norm in self.change.items()
            if norm == 0
        ]


def prove(path: Path, trained: Mapping[str, Factors], parts: Mapping[Component, nn.Module]) -> Proof:
    """Read a file and hold it against the layers that were trained in `parts`, the base's models with the layers in them.

    Raises `LoraFileError` if it lacks a layer, has another one, or holds other or no numbers.
    """
    lora = LoraFile.read(path)
    found, strange = lora.layers, [*lora.ignored, *lora.unknown]
    others = (name for name in sorted({*found, *trained}) if not _same(found.get(name), trained.get(name)))
    if wrong := next(iter([*strange, *others]), None):
        raise LoraFileError(f"{path} does not hold what was trained ({wrong}): check the disk, then resume the run.")
    squares: dict[Component, float] = {}
    for name, layer in found.items():
        if part := component_of(name):
            squares[part] = squares.get(part, 0.0) + layer.size() ** 2
    numbers = sum(layer.down.numel() + layer.up.numel() for layer in trained.values())
    share = numbers / (sum(_weights(model) for model in parts.values()) - numbers)
    return Proof(len(found), path.stat().st_size, share, {part: square**0.5 for part, square in squares.items()})


def _same(found: Layer | None, trained: Factors | None) -> bool:
    """Whether a layer of the file is the trained one, rounded as a file rounds: to float16, its alpha to float32."""
    if not isinstance(found, Factors) or not trained or found.alpha != torch.tensor(trained.alpha, dtype=torch.float32).item():
        return False
    pairs = ((found.down, trained.down), (found.up, trained.up))
    return all(torch.equal(one, other.detach().to("cpu", torch.float16)) for one, other in pairs)


def _weights(model: nn.Module) -> int:
    """The numbers in a model, layers under training and rounded layers with them."""
    packed = (layer for layer in model.modules() if isinstance(layer, QuantisedLinear))
    return sum(matrix.numel() for matrix in model.parameters()) + sum(one.in_features * one.out_features for one in packed)
