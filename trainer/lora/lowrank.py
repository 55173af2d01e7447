"""A change of a weight as the product of two thin matrices, and what of it may be left out.

    change = up @ down        up (out, rank), down (rank, in), or (rank, in * height * width) for a convolution

Sums are computed in float64 and exact: matrices are stacked, never added. Leaving out is Eckart and Young's: of all changes of
a rank, the nearest is the one of the largest singular values. Knows no files, names or weights of LoRAs in a mix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainer.lora.delta import Factors
from trainer.lora.ways import Keep

_NOTHING = 1e-12
"""Singular values below this share of the largest one are float64's own noise."""


@dataclass(frozen=True)
class LowRank:
    """The change of one layer, with every scale in its matrices; `shape` is that of the weight."""

    up: torch.Tensor
    down: torch.Tensor
    shape: torch.Size

    @classmethod
    def of(cls, factors: Factors, weight: float = 1.0) -> LowRank:
        """What a layer of a file adds at this weight, in float64. Of a float16 layer, `down` stays one that float16 holds."""
        up, down = factors.up.flatten(1).double(), factors.down.flatten(1).double()
        up = up * (weight * factors.alpha / factors.rank)
        step = _balance(up, down)
        return cls(up / step, down * step, factors.shape)

    @classmethod
    def joined(cls, parts: Sequence[LowRank]) -> LowRank:
        """The sum of changes of one shape, exactly; its rank is the sum of theirs."""
        return cls(torch.cat([part.up for part in parts], 1), torch.cat([part.down for part in parts]), parts[0].shape)

    @property
    def rank(self) -> int:
        """Rows of `down`."""
        return self.down.shape[0]

    def change(self) -> torch.Tensor:
        """What is added to the weight, in its shape."""
        return (self.up @ self.down).view(self.shape)

    def factors(self, alpha: float) -> Factors:
        """As a file holds it, float32, with an alpha that is not its own: the rest of the scale goes into `up`."""
        up, down = (self.up * (self.rank / alpha)).float(), self.down.float()
        window = self.shape[2:]
        return Factors(down.view(self.rank, self.shape[1], *window), up.view(*up.shape, *(1 for _ in window)), alpha)


@dataclass(frozen=True)
class Spectrum:
    """The singular value decomposition of a change: left (out, n), values (n,) largest first, right (n, in)."""

    left: torch.Tensor
    values: torch.Tensor
    right: torch.Tensor
    shape: torch.Size

    @classmethod
    def of(cls, change: LowRank) -> Spectrum:
        """Of a product, without forming it: both matrices are orthogonalised, and the small core between them is decomposed."""
        q_up, r_up = torch.linalg.qr(change.up)
        q_down, r_down = torch.linalg.qr(change.down.T)
        left, values, right = torch.linalg.svd(r_up @ r_down.T)
        return cls(q_up @ left, values, right @ q_down.T, change.shape)

    @classmethod
    def dense(cls, change: torch.Tensor) -> Spectrum:
        """Of a whole matrix, through the eigenvectors of its smaller Gram matrix, in half the time of an SVD.

        The right side is the change itself seen from these vectors, so that all of them together give it back exactly.
        """
        flat = change.flatten(1).double()
        if flat.shape[0] > flat.shape[1]:
            turned = cls.dense(flat.T)
            return cls(turned.right.T, turned.values, turned.left.T, change.shape)
        left = torch.linalg.eigh(flat @ flat.T)[1].flip(1)
        seen = left.T @ flat
        values = seen.norm(dim=1)
        return cls(left, values, seen / values.clamp(min=torch.finfo(values.dtype).tiny)[:, None], change.shape)

    def kept(self, keep: Keep) -> LowRank:
        """The nearest change of the rank that `keep` asks for, each singular value shared between both matrices."""
        count = min(_count(self.values, keep), max(1, int((self.values > _NOTHING * self.values[0]).sum())))
        root = self.values[:count].sqrt()
        return LowRank(self.left[:, :count] * root, self.right[:count] * root[:, None], self.shape)


def _count(values: torch.Tensor, keep: Keep) -> int:
    """How many of the singular values are kept."""
    if keep.energy is None:
        return min(keep.rank or len(values), len(values))
    reached = values.square().cumsum(0)
    return int((reached < keep.energy * reached[-1] * (1 - _NOTHING)).sum()) + 1


def _balance(up: torch.Tensor, down: torch.Tensor) -> float:
    """The power of two that brings both matrices to one size, so that float16 loses nothing of a small one."""
    sizes = float(up.abs().max()), float(down.abs().max())
    if not all(sizes):
        return 1.0
    return float(2.0 ** torch.log2(torch.tensor(sizes[0] / sizes[1]).sqrt()).round())
