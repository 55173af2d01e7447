"""The LoRA layer, and the two verbs that put layers into a model and take them out again: `inject` and `eject`.

    y = W x + (alpha / rank) * up (down x)          (arXiv 2106.09685)

`up` begins at zero, so a fresh layer changes nothing. The matrices are kept in float32 and used in the type of the
input. Knows linear layers only: nothing of SDXL, files or training.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn


class LoraLinear(nn.Module):
    """A frozen linear layer with a trainable change of rank `rank` beside it."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base
        self.alpha = alpha
        where = base.weight.device
        # As nn.Linear begins (Kaiming with a = sqrt 5): uniform in ±1/sqrt(in).
        bound = 1 / math.sqrt(base.in_features)
        down = torch.empty(rank, base.in_features).uniform_(-bound, bound, generator=generator)
        self.down = nn.Parameter(down.to(where))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank, device=where))

    @property
    def rank(self) -> int:
        """Rows of `down`."""
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return self.alpha / self.rank

    @property
    def weight(self) -> torch.Tensor:
        """The frozen weight: models ask their layers for its type."""
        return self.base.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in) -> (…, out)."""
        small = F.linear(x, self.down.to(x.dtype)) * self.scale
        y: torch.Tensor = self.base(x) + F.linear(small, self.up.to(x.dtype))
        return y

    def change(self) -> torch.Tensor:
        """What the layer adds to the weight, (out, in), float32."""
        return self.up.detach().float() @ self.down.detach().float() * self.scale


def inject(model: nn.Module, paths: Iterable[str], rank: int, alpha: float, seed: int) -> dict[str, LoraLinear]:
    """Put a LoRA layer in place of each linear layer named in `paths`; returns them by path. The base is frozen.

    The same seed gives the same `down` for the same path, whatever else is injected.
    """
    model.requires_grad_(False)
    layers = {}
    for path in paths:
        parent, _, name = path.rpartition(".")
        base = model.get_submodule(path)
        if not isinstance(base, nn.Linear):
            raise TypeError(f"{path} is a {type(base).__name__}, not a linear layer")
        digest = hashlib.sha256(f"{seed}:{path}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        layers[path] = LoraLinear(base, rank, alpha, generator)
        setattr(model.get_submodule(parent), name, layers[path])
    return layers


def eject(model: nn.Module, layers: dict[str, LoraLinear]) -> None:
    """Put the frozen layers back: the exact inverse of `inject`."""
    for path, layer in layers.items():
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, layer.base)
