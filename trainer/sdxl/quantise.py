"""A frozen base in 8 or 4 bits: its large linear layers are kept packed, and unpacked for each use.

    int8   w = q s       q in -127 … 127, one scale s = max |w| / 127 per output
    nf4    w = c[q] s    q in 0 … 15, c the NormalFloat levels, one scale s = max |w| per 64 weights (arXiv 2305.14314)

What is small or touchy (convolutions, norms, embeddings of tokens, time and size) stays as it is. Needs nothing but
torch, on any device. Knows nothing of LoRAs, files or memory plans.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from trainer.settings import Packing, Precision

BLOCK = 64
"""Weights that share one scale in nf4: consecutive ones, row by row."""

_LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""NormalFloat4: quantiles of a normal distribution, scaled to ±1, with an exact zero."""

_LARGE = re.compile(r"(^|\.)(attentions|layers)\.")
"""Paths of the transformers' layers: 99 % of the weights of SDXL's linear layers."""


def quantise(model: nn.Module, packing: Packing, device: torch.device) -> None:
    """Pack the large linear layers of `model` on `device`, one after the other; the rest is left where it is.

    The model may be on the CPU: of its large layers, no more than one is on `device` in full at any time. It stays in
    its type from here on: `model.to(dtype)` would round the scales.
    """
    for path in [path for path, _ in model.named_modules() if _LARGE.search(path)]:  # names: a layer is let go when packed
        layer = model.get_submodule(path)
        if isinstance(layer, nn.Linear) and layer.weight.numel() % BLOCK == 0:
            model.set_submodule(path, QuantisedLinear(layer, packing, device))


def packing_of(precision: str) -> Packing | None:
    """The packing that a precision asks for, if it asks for one."""
    packings: dict[str, Packing] = {"int8": "int8", "nf4": "nf4"}
    return packings.get(precision)


def precision_of(model: nn.Module) -> Precision:
    """How the weights of a model are kept, told from the model itself."""
    packed = next((layer.packed for layer in model.modules() if isinstance(layer, QuantisedLinear)), None)
    if packed is not None:
        return "int8" if packed.dtype == torch.int8 else "nf4"
    kept: dict[torch.dtype, Precision] = {torch.float16: "fp16", torch.bfloat16: "bf16"}
    return kept.get(next(model.parameters()).dtype, "fp32")


class QuantisedLinear(nn.Linear):
    """A frozen linear layer with a packed weight. Gradients flow to its input, which the layer does not keep."""

    packed: torch.Tensor
    scale: torch.Tensor

    def __init__(self, layer: nn.Linear, packing: Packing, device: torch.device) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would make a weight
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.dtype = layer.weight.dtype
        self.bias = layer.bias
        packed, scale = pack(layer.weight.detach().to(device), packing)
        self.register_buffer("packed", packed)
        self.register_buffer("scale", scale)

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        """The weight (out, in), unpacked anew each time: writing into it changes nothing."""
        return unpack(self.packed, self.scale, self.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in) -> (…, out), computed in the type of `x`."""
        y: torch.Tensor = _Product.apply(x, self.packed, self.scale, self.bias)  # type: ignore[no-untyped-call]
        return y


class _Product(torch.autograd.Function):
    """x Wᵀ + b, with W unpacked once forward and once backward, so that no step holds it in full between the two."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, packed: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(packed, scale)
        return F.linear(x, unpack(packed, scale, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        packed, scale = ctx.saved_tensors
        return gradient @ unpack(packed, scale, gradient.dtype), None, None, None


def pack(weight: torch.Tensor, packing: Packing) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight (out, in) as packed weights and float32 scales.

    int8: (out, in) int8 and (out, 1). nf4: (out, in / 2) uint8, the first of two in the upper half, and (out * in / 64, 1).
    """
    rows = weight.float()
    if packing == "int8":
        scale = _largest(rows) / 127
        return (rows / scale).round().to(torch.int8), scale
    blocks = rows.reshape(-1, BLOCK)
    scale = _largest(blocks)
    levels = torch.tensor(_LEVELS, device=weight.device)
    indices = torch.bucketize(blocks / scale, (levels[1:] + levels[:-1]) / 2, out_int32=True).to(torch.uint8)
    upper, lower = indices.view(weight.shape[0], -1, 2).unbind(dim=2)
    return upper << 4 | lower, scale


def _largest(rows: torch.Tensor) -> torch.Tensor:
    """The largest magnitude of each row, (n, 1), never zero."""
    return rows.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny * 128)


def unpack(packed: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The inverse of `pack`, up to what packing has rounded: a new weight (out, in)."""
    if packed.dtype == torch.int8:
        return torch.mul(packed, scale, out=torch.empty(packed.shape, dtype=dtype, device=packed.device))
    pairs = _pairs(dtype, packed.device).index_select(0, packed.flatten().int())
    return pairs.view(dtype).view(-1, BLOCK).mul_(scale).view(packed.shape[0], -1)


@cache
def _pairs(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Both levels that a byte of nf4 stands for, side by side in one integer (256): one look-up for two weights."""
    levels = torch.tensor(_LEVELS, device=device).to(dtype)
    both = torch.stack([levels.repeat_interleave(16), levels.repeat(16)], dim=1)
    return both.view(torch.int64 if dtype == torch.float32 else torch.int32).flatten()
