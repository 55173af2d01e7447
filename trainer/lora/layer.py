"""The LoRA layers, and the two verbs that put them into a model and take them out again: `inject` and `eject`.

    y = W x + scale * up (down x)          (arXiv 2106.09685)

For a convolution, `down` is one to few channels with the window and the stride of the layer beside it, and `up` is one of
1 x 1 (LoCon). `up` begins at zero, so a fresh layer changes nothing. The matrices are kept in float32 and used in the type
of the input. Knows nothing of SDXL, files or training.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn


class LoraLayer(nn.Module):
    """A frozen layer with a trainable change of rank `rank` beside it."""

    base: nn.Linear | nn.Conv2d

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base
        self.scale = scale
        weight = base.weight
        out, inward, *window = weight.shape
        # As both begin in torch (Kaiming with a = sqrt 5): uniform in ±1/sqrt(numbers that go into one output).
        bound = 1 / math.sqrt(inward * math.prod(window))
        down = torch.empty(rank, inward, *window).uniform_(-bound, bound, generator=generator)
        self.down = nn.Parameter(down.to(weight.device))
        self.up = nn.Parameter(torch.zeros(out, rank, *(1 for _ in window), device=weight.device))

    @property
    def rank(self) -> int:
        """Rows of `down`."""
        return self.down.shape[0]

    @property
    def weight(self) -> torch.Tensor:
        """The frozen weight: models ask their layers for its type."""
        return self.base.weight

    def change(self) -> torch.Tensor:
        """What the layer adds to the weight, in the weight's shape, float32."""
        return product(self.up.detach(), self.down.detach()) * self.scale


class LoraLinear(LoraLayer):
    """A linear layer under training: `down` is (rank, in), `up` is (out, rank)."""

    base: nn.Linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in) -> (…, out)."""
        small = F.linear(x, self.down.to(x.dtype)) * self.scale
        y: torch.Tensor = self.base(x) + F.linear(small, self.up.to(x.dtype))
        return y


class LoraConv(LoraLayer):
    """A convolution under training: `down` is (rank, in, height, width), `up` is (out, rank, 1, 1)."""

    base: nn.Conv2d

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, in, h, w) -> (n, out, h', w')."""
        base = self.base
        small = F.conv2d(x, self.down.to(x.dtype), None, base.stride, base.padding, base.dilation) * self.scale
        y: torch.Tensor = base(x) + F.conv2d(small, self.up.to(x.dtype))
        return y


def product(up: torch.Tensor, down: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What two matrices add to a weight before it is scaled, (out, in) or (out, in, height, width)."""
    flat = up.flatten(1).to(dtype) @ down.flatten(1).to(dtype)
    return flat.view(up.shape[0], *down.shape[1:])


def square(up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """Square of the Frobenius norm of their product, from rank x rank products only: ||B A||² = sum((BᵀB) * (AAᵀ))."""
    up, down = up.flatten(1), down.flatten(1)
    return ((up.T @ up) * (down @ down.T)).sum()


def inject(model: nn.Module, ranks: Mapping[str, int], scale: float, seed: int) -> dict[str, LoraLayer]:
    """Put a LoRA layer of its rank in place of each layer named in `ranks`; returns them by path. The base is frozen.

    The same seed gives the same `down` for the same path and rank, whatever else is injected.
    """
    model.requires_grad_(False)
    layers: dict[str, LoraLayer] = {}
    for path, rank in ranks.items():
        parent, _, name = path.rpartition(".")
        base = model.get_submodule(path)
        if not isinstance(base, nn.Linear | nn.Conv2d):
            raise TypeError(f"{path} is a {type(base).__name__}, neither a linear layer nor a convolution")
        digest = hashlib.sha256(f"{seed}:{path}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        kind = LoraLinear if isinstance(base, nn.Linear) else LoraConv
        layers[path] = kind(base, rank, scale, generator)
        setattr(model.get_submodule(parent), name, layers[path])
    return layers


def eject(model: nn.Module, layers: Mapping[str, LoraLayer]) -> None:
    """Put the frozen layers back: the exact inverse of `inject`."""
    for path, layer in layers.items():
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, layer.base)
