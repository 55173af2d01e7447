"""What a layer of a LoRA file changes in a weight: one class for each way in which files tell it.

    LoRA, LoCon   up @ down                               arXiv 2106.09685; LyCORIS, arXiv 2309.14859
    tucker LoCon  mid, its two sides times up and down
    LoHa          (w1_a @ w1_b) * (w2_a @ w2_b)           arXiv 2108.06098
    LoKr          kron(w1, w2), each whole or a product   arXiv 2212.10650
    full          the difference itself
    DoRA          m * V / ||V|| - W,  V = W + change      arXiv 2402.09353

All but the last two are multiplied by alpha / rank. Knows no names and no files, and checks nothing: that is the reader's.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, Self

import torch

from trainer.lora.layer import product, square


@dataclass(frozen=True)
class Pair:
    """A matrix told as a product: `a` is (out, rank), `b` is (rank, in). With a `core`, `a` is (rank, out), as in LyCORIS."""

    a: torch.Tensor
    b: torch.Tensor
    core: torch.Tensor | None = None

    @property
    def rank(self) -> int:
        """Rows of `b`."""
        return self.b.shape[0]

    @property
    def shape(self) -> torch.Size:
        """Of the matrix."""
        if self.core is None:
            return torch.Size((self.a.shape[0], self.b.shape[1]))
        return torch.Size((self.a.shape[1], self.b.shape[1], *self.core.shape[2:]))

    def to(self, device: torch.device) -> Pair:
        """The same on another device."""
        return Pair(self.a.to(device), self.b.to(device), None if self.core is None else self.core.to(device))

    def whole(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """(out, in), or (out, in, height, width) with a core."""
        return self.a.to(dtype) @ self.b.to(dtype) if self.core is None else _tucker(self.core, self.a, self.b, dtype)


class Layer(ABC):
    """The change of one weight."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def rank(self) -> int:
        """The rank that its writer chose; 0 if the change is told whole."""

    @property
    @abstractmethod
    def scale(self) -> float:
        """What the product is multiplied by."""

    @property
    @abstractmethod
    def shape(self) -> torch.Size:
        """The shape of the weight that it is made for: (out, in), or (out, in, height, width) of a convolution."""

    @abstractmethod
    def change(self, weight: torch.Tensor | None = None, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """What is added to the base's `weight` at weight 1, in its shape, reckoned in `dtype`. Only DoRA needs `weight`.

        At weight w, w times that is added, as ComfyUI does for every kind: so a mix is a sum, whatever is in it.
        """

    def size(self) -> float:
        """Frobenius norm of the change; of a DoRA, of what it adds before magnitudes are set, for that needs no base."""
        return float(self.change().double().norm())

    def on(self, device: torch.device) -> Self:
        """The same on another device."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        moved = {name: value.to(device) for name, value in held.items() if isinstance(value, torch.Tensor | Pair)}
        inner = {name: value.on(device) for name, value in held.items() if isinstance(value, Layer)}
        return type(self)(**{**held, **moved, **inner})


class _Scaled(Layer):
    """A change that its writer scaled by alpha / rank."""

    alpha: float

    @property
    def scale(self) -> float:
        """Alpha by rank."""
        return self.alpha / self.rank


class _Projected(_Scaled):
    """One that goes through `down` to its rank."""

    down: torch.Tensor

    @property
    def rank(self) -> int:
        """Rows of `down`."""
        return self.down.shape[0]


@dataclass(frozen=True)
class Factors(_Projected):
    """The change of one layer: `alpha / rank * up @ down`. `down` is (rank, in), `up` is (out, rank).

    Of a convolution, `down` is (rank, in, height, width) and `up` is (out, rank, 1, 1).
    """

    down: torch.Tensor
    up: torch.Tensor
    alpha: float

    @property
    def kind(self) -> str:  # type: ignore[override]
        """LoCon is the name of LoRA on convolutions."""
        return "locon" if self.down.dim() == 4 else "lora"

    @property
    def shape(self) -> torch.Size:
        """As of every layer."""
        return torch.Size((self.up.shape[0], *self.down.shape[1:]))

    def change(self, weight: torch.Tensor | None = None, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """As of every layer."""
        return product(self.up, self.down, dtype) * self.scale

    def size(self) -> float:
        """Frobenius norm of the change, from rank x rank products only."""
        return abs(self.scale) * math.sqrt(max(0.0, float(square(self.up.double(), self.down.double()))))


@dataclass(frozen=True)
class Tucker(_Projected):
    """LoCon in Tucker form: `down` is (rank, in), `mid` is (rank, rank, height, width), `up` is (out, rank)."""

    kind = "locon"
    down: torch.Tensor
    mid: torch.Tensor
    up: torch.Tensor
    alpha: float

    @property
    def shape(self) -> torch.Size:
        """As of every layer."""
        return torch.Size((self.up.shape[0], self.down.shape[1], *self.mid.shape[2:]))

    def change(self, weight: torch.Tensor | None = None, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """As of every layer."""
        return _tucker(self.mid, self.up.T, self.down, dtype) * self.scale


@dataclass(frozen=True)
class Hadamard(_Scaled):
    """LoHa: two low-rank matrices multiplied element by element. Without cores a convolution's window lies within `in`."""

    kind = "loha"
    first: Pair
    second: Pair
    alpha: float
    of: torch.Size

    @property
    def rank(self) -> int:
        """Of each of the two."""
        return self.first.rank

    @property
    def shape(self) -> torch.Size:
        """As of every layer."""
        return self.of

    def change(self, weight: torch.Tensor | None = None, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """As of every layer."""
        return (self.first.whole(dtype) * self.second.whole(dtype)).view(self.of) * self.scale


@dataclass(frozen=True)
class Kronecker(Layer):
    """LoKr: the Kronecker product of two matrices, each told whole or as a product; the second may hold the window."""

    kind = "lokr"
    first: torch.Tensor | Pair
    second: torch.Tensor | Pair
    alpha: float
    of: torch.Size

    @property
    def rank(self) -> int:
        """Of the one that is told as a product."""
        return next((one.rank for one in (self.second, self.first) if isinstance(one, Pair)), 0)

    @property
    def scale(self) -> float:
        """Alpha by rank; 1 if both are whole, whatever alpha the file tells: so LyCORIS and ComfyUI have it."""
        return self.alpha / self.rank if self.rank else 1.0

    @property
    def shape(self) -> torch.Size:
        """As of every layer."""
        return self.of

    def change(self, weight: torch.Tensor | None = None, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """As of every layer."""
        first, second = (one.whole(dtype) if isinstance(one, Pair) else one.to(dtype) for one in (self.first, self.second))
        first = first.view(*first.shape, *(1 for _ in second.shape[2:]))
        return torch.kron(first, second.contiguous()).reshape(self.of) * self.scale


@dataclass(frozen=True)
class Difference(Layer):
    """A change told whole."""

    kind = "full"
    diff: torch.Tensor
    rank = 0
    scale = 1.0

    @property
    def shape(self) -> torch.Size:
        """As of every layer."""
        return self.diff.shape

    def change(self, weight: torch.Tensor | None = None, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """As of every layer."""
        return self.diff.to(dtype)


@dataclass(frozen=True)
class Dora(Layer):
    """DoRA: a change of the weight's direction, and a magnitude for each row (`out`) or column (`in`) of the changed weight.

    Norms are those of the changed weight, W + change, as in the paper, PEFT, LyCORIS and OneTrainer; ComfyUI takes those of W
    alone along `out`, which is another picture. `magnitude` is flat.
    """

    kind = "dora"
    inner: Layer
    magnitude: torch.Tensor
    along: Literal["out", "in"]

    @property
    def rank(self) -> int:
        """Of the direction's change."""
        return self.inner.rank

    @property
    def scale(self) -> float:
        """Of the direction's change."""
        return self.inner.scale

    @property
    def shape(self) -> torch.Size:
        """As of every layer."""
        return self.inner.shape

    def size(self) -> float:
        """Of the direction's change."""
        return self.inner.size()

    def change(self, weight: torch.Tensor | None = None, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """As of every layer. Raises `ValueError` without the base's weight."""
        if weight is None:
            raise ValueError("what a DoRA changes depends on the base's weight")
        base = weight.to(dtype)
        turned = base + self.inner.change(dtype=dtype)
        axis = 0 if self.along == "out" else 1
        others = [number for number in range(turned.dim()) if number != axis]
        norms: torch.Tensor = torch.linalg.vector_norm(turned, dim=others, keepdim=True)
        norms = norms.clamp(min=torch.finfo(torch.float32).eps)
        return turned * (self.magnitude.to(dtype).view(norms.shape) / norms) - base


def _tucker(core: torch.Tensor, out: torch.Tensor, inward: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(rank, rank, height, width), (rank, out), (rank, in) -> (out, in, height, width)."""
    weight: torch.Tensor = torch.einsum("mnhw,mo,ni->oihw", core.to(dtype), out.to(dtype), inward.to(dtype))
    return weight
