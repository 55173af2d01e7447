"""A change of a weight as the product of two thin matrices, and what of it may be left out.

    change = up @ down        up (out, rank), down (rank, in), or (rank, in * height * width) for a convolution

Sums are computed in float64 and exact: matrices are stacked, never added. Leaving out is Eckart and Young's: of all changes of
a rank, the nearest is the one of the largest singular values. What has no thin matrices is decomposed whole. Knows no files,
names or weights of LoRAs in a mix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainer.lora.delta import Factors, Hadamard, Kronecker, Layer, Pair
from trainer.lora.ways import ALL, Keep

UNDONE = 1e-6
"""A change is nothing if this is more than its share of what it is made from: what is left where all cancels is rounding."""
_NOTHING = 1e-12
"""Singular values below this share of the largest one are float64's own noise."""
_ROUNDS, _SPARE = 6, 16
"""Of a search for the largest singular values: how often it goes there and back, and with how many vectors too many."""


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

    @property
    def values(self) -> torch.Tensor:
        """The singular values, largest first, from the triangles of both matrices, which are rank x rank."""
        values: torch.Tensor = torch.linalg.svdvals(_triangle(self.up) @ _triangle(self.down.T).T)
        return values

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
    def dense(cls, change: torch.Tensor, keep: Keep = ALL) -> Spectrum:
        """Of a whole matrix, as far as `keep` needs it.

        The right side is the change itself seen from the left one's vectors: all of them together give it back exactly.
        """
        flat = change.flatten(1).double()
        if flat.shape[0] > flat.shape[1]:
            turned = cls.dense(flat.T, keep)
            return cls(turned.right.T, turned.values, turned.left.T, change.shape)
        left = _directions(flat, keep.rank or len(flat))
        seen = left.T @ flat
        values = seen.norm(dim=1)
        return cls(left, values, seen / values.clamp(min=torch.finfo(values.dtype).tiny)[:, None], change.shape)

    def kept(self, keep: Keep) -> LowRank:
        """The nearest change of the rank that `keep` asks for, each singular value shared between both matrices."""
        count = min(self._count(keep), max(1, int((self.values > _NOTHING * self.values[0]).sum())))
        root = self.values[:count].sqrt()
        return LowRank(self.left[:, :count] * root, self.right[:count] * root[:, None], self.shape)

    def _count(self, keep: Keep) -> int:
        """How many of the singular values are kept."""
        if keep.energy is None:
            return min(keep.rank or len(self.values), len(self.values))
        return max(1, rank_holding(keep.energy, self.values.square()))


def rank_holding(share: float, squares: torch.Tensor) -> int:
    """How many of `squares` (of singular values, largest first) sum up to this share of them; 0 of nothing."""
    held = squares.cumsum(0)
    return int((held < share * held[-1] * (1 - _NOTHING)).sum()) + 1 if len(held) and held[-1] > 0 else 0


def thin(layer: Layer, weight: float = 1.0) -> LowRank | None:
    """A layer as two thin matrices, if it has some: LoHa's are the products of each column with each, rank² of them."""
    if isinstance(layer, Factors):
        return LowRank.of(layer, weight)
    if isinstance(layer, Hadamard) and layer.first.core is None and layer.second.core is None:
        first, second = layer.first, layer.second
        up = (first.a[:, :, None].double() * second.a[:, None, :]).flatten(1)
        down = (first.b[:, None, :].double() * second.b[None, :, :]).flatten(0, 1)
        return LowRank(up * (weight * layer.scale), down, layer.shape)
    return None


def singular_values(layer: Layer) -> torch.Tensor:
    """Of a change at weight 1, largest first, float64: (rank,), or (smaller side,) where it is made whole."""
    if (factors := thin(layer)) is not None:
        values = factors.values
        undone = values.norm() <= UNDONE * factors.up.norm() * factors.down.norm()
        return torch.zeros_like(values) if undone else values
    if isinstance(layer, Kronecker):  # all products of those of both
        first, second = (one.whole(torch.float64) if isinstance(one, Pair) else one for one in (layer.first, layer.second))
        products = torch.outer(_dense_values(first), _dense_values(second)).flatten()
        return torch.sort(products, descending=True)[0] * abs(layer.scale)
    return _dense_values(layer.change(dtype=torch.float64))


def _dense_values(change: torch.Tensor) -> torch.Tensor:
    """The singular values of a matrix that is whole, from its smaller square, in half the time of torch's own."""
    flat = change.flatten(1).double()
    small = flat @ flat.T if flat.shape[0] < flat.shape[1] else flat.T @ flat
    squares: torch.Tensor = torch.linalg.eigvalsh(small).clamp(min=0)
    return squares.flip(0).sqrt()


def _directions(flat: torch.Tensor, count: int) -> torch.Tensor:
    """The left singular vectors of the `count` largest values of a wide matrix, float64: (rows, count).

    They are sought in a block Krylov space (arXiv 1504.05477) if that is small beside the matrix, in a third of the time: what
    is left out is larger than the least possible by a ten-thousandth at most. Else they are the Gram matrix's eigenvectors.
    """
    if (count + _SPARE) * _ROUNDS * 4 > len(flat):
        vectors: torch.Tensor = torch.linalg.eigh(flat @ flat.T)[1]
        return vectors.flip(1)[:, :count]
    single, blocks = flat.float(), []  # float32 turns a space by less than its own error
    block = torch.randn(flat.shape[1], count + _SPARE, generator=torch.Generator().manual_seed(0))
    for _ in range(_ROUNDS):
        blocks.append(torch.linalg.qr(single @ block)[0])
        block = single.T @ blocks[-1]
    space = torch.linalg.qr(torch.cat(blocks, 1))[0]
    core = space.T @ single
    vectors = torch.linalg.eigh(core @ core.T)[1].flip(1)[:, :count]
    found: torch.Tensor = torch.linalg.qr((space @ vectors).double())[0]
    return found


def _triangle(matrix: torch.Tensor) -> torch.Tensor:
    """R of a matrix's Q R."""
    triangle: torch.Tensor = torch.linalg.qr(matrix, mode="r")[1]
    return triangle


def _balance(up: torch.Tensor, down: torch.Tensor) -> float:
    """The power of two that brings both matrices to one size, so that float16 loses nothing of a small one."""
    sizes = float(up.abs().max()), float(down.abs().max())
    if not all(sizes):
        return 1.0
    return float(2.0 ** torch.log2(torch.tensor(sizes[0] / sizes[1]).sqrt()).round())
