"""What LoRAs are made of: how large a change is and where, how many ranks it fills, and whether two are in each other's way.

    singular values of B A   = those of  R Tᵀ,  the triangles of  B = Q R  and  Aᵀ = P T
    <B A, D C>               = sum((BᵀD) * (ACᵀ))

All of it is rank x rank, in float64: no change of a plain LoRA is ever made whole. What has no thin matrices is, a layer at a
time; DoRA is left out, for what it changes depends on the base. Sizes are Frobenius norms at weight 1. Knows no base, no files
on a disk.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, Literal

import torch

from trainer.lora.delta import Dora, Layer
from trainer.lora.file import LoraFile
from trainer.lora.keys import COMPONENTS, component_of
from trainer.lora.lowrank import rank_holding, singular_values, thin

SHARES = (0.90, 0.95, 0.99)
"""Of a change, in squares: for how much of it the ranks are told."""

FAIR = 0.5
"""A block counts for a LoRA that has half of what it would have there if the change were spread evenly over its blocks."""

APART = 0.25
"""Two LoRAs work on different blocks if less than this of their shares is common to both; of two spread alike, all is."""

UNDONE = 0.1
"""Two LoRAs fight in a block that counts for both, if the larger undoes a tenth of the smaller there: -<A, B> / |B|².

Chance does not reach that unless one is a hundred times the other: unrelated changes of one of SDXL's layers have a cosine
around 1 / 1280, and of a block of many layers a smaller one.
"""

OPPOSED = 0.05
"""And only if their cosine there is so far below 0: of one that is many times as large, next to nothing undoes a tenth."""

ALIKE = 0.5
"""From this cosine on two LoRAs do much the same: two of one size are 1.7 times as large together, unrelated ones 1.4 times."""

Verdict = Literal["fight", "apart", "alike", "beside", "unknown"]

_BLOCK = re.compile(r"lora_unet_(input|middle|output)_blocks?_(\d+)_")
_DIFFUSERS = {
    "input 0": "conv_in",
    **{f"input {1 + 3 * i + j}": f"down_blocks.{i}.{'attentions' if i else 'resnets'}.{j}" for i in range(3) for j in range(2)},
    **{f"input {3 + 3 * i}": f"down_blocks.{i}.downsamplers.0" for i in range(2)},
    "middle": "mid_block",
    **{f"output {3 * i + j}": f"up_blocks.{i}.{'attentions' if i < 2 else 'resnets'}.{j}" for i in range(3) for j in range(3)},
}
"""Block groups in the order of the U-Net, and what diffusers calls them: their attention, where they have one."""

_ORDER = (*_DIFFUSERS, "outer", *COMPONENTS)


def block_of(name: str) -> str:
    """The block group of a layer by its name in the file: `input 4`, `middle`, `output 1`, `te1`; else `outer`."""
    if found := _BLOCK.match(name):
        return found[1] if found[1] == "middle" else f"{found[1]} {found[2]}"
    part = component_of(name)
    return "outer" if part in ("unet", None) else part


def inner(one: Layer, other: Layer) -> float:
    """The inner product of two changes of one shape."""
    first, second = thin(one), thin(other)
    if first is None or second is None:
        return float((one.change(dtype=torch.float64) * other.change(dtype=torch.float64)).sum())
    return float(((first.up.T @ second.up) * (first.down @ second.down.T)).sum())


@dataclass(frozen=True)
class Anatomy:
    """One LoRA: its layers but those that had to be left out, and their singular values, by their names in the file."""

    name: str
    layers: Mapping[str, Layer]
    left_out: tuple[str, ...]
    spectra: Mapping[str, torch.Tensor]

    @classmethod
    @torch.no_grad()
    def of(cls, lora: LoraFile, done: Callable[[int], object] = lambda count: None) -> Anatomy:
        """Measure a LoRA. `done` is told of each layer by a 1: those that have to be made whole take half a second each."""
        layers = {name: layer for name, layer in lora.layers.items() if not isinstance(layer, Dora)}
        left_out = tuple(name for name in lora.layers if name not in layers)
        spectra = {}
        for name, layer in layers.items():
            spectra[name] = singular_values(layer)
            done(1)
        return cls(lora.name, layers, left_out, spectra)

    @cached_property
    def blocks(self) -> dict[str, float]:
        """How large the change of each block group is, in the order of the model."""
        found = self._sizes(block_of)
        return {block: found[block] for block in _ORDER if block in found}

    @cached_property
    def parts(self) -> dict[str, float]:
        """How large the change of the U-Net and of each encoder is."""
        found = self._sizes(lambda name: component_of(name) or "unet")
        return {part: found.get(part, 0.0) for part in COMPONENTS}

    @property
    def size(self) -> float:
        """How large the whole change is."""
        return math.hypot(*self.blocks.values())

    def share(self, block: str) -> float:
        """How much of the whole change a block group has, in squares: 0 to 1."""
        return (self.blocks.get(block, 0.0) / self.size) ** 2 if self.size else 0.0

    def counts(self, block: str) -> bool:
        """Whether a block group has a fair share of the change."""
        return self.share(block) >= FAIR / len(self.blocks)

    def rank_holding(self, share: float) -> int:
        """The rank that holds a share of the whole change, if it is that of every layer; 0 if there is no change."""
        squares = [values.square() for values in self.spectra.values()]
        return rank_holding(share, torch.nn.utils.rnn.pad_sequence(squares).sum(1)) if squares else 0

    def bytes_at(self, rank: int) -> int:
        """The tensors of a file of at most this rank, as this program writes them: float16 matrices, a float32 alpha each."""
        ranks = (min(rank, len(values)) for values in self.spectra.values())
        sides = (layer.shape[0] + math.prod(layer.shape[1:]) for layer in self.layers.values())
        return sum(2 * own * side + 4 for own, side in zip(ranks, sides, strict=True))

    def to_json(self, around: int) -> dict[str, Any]:
        """What is told of it. `around` is what the file has beside its tensors, in bytes; a smaller one would have it too."""
        whole = not self.left_out
        holding = {share: self.rank_holding(share) for share in SHARES}
        return {
            "blocks": [
                {"block": block, "diffusers": _DIFFUSERS.get(block, ""), "size": size, "share": self.share(block)}
                for block, size in self.blocks.items()
            ],
            "holding": [
                {"share": share, "rank": rank, "bytes": self.bytes_at(rank) + around if whole else None}
                for share, rank in holding.items()
            ],
            "layers": {
                name: {"size": float(values.norm()), "ranks": [rank_holding(share, values.square()) for share in SHARES]}
                for name, values in self.spectra.items()
            },
            "left_out": list(self.left_out),
        }

    def _sizes(self, group: Callable[[str], str]) -> dict[str, float]:
        squares: dict[str, float] = {}
        for name, values in self.spectra.items():
            squares[group(name)] = squares.get(group(name), 0.0) + float(values.square().sum())
        return {block: math.sqrt(square) for block, square in squares.items()}


@dataclass(frozen=True)
class Overlap:
    """Two LoRAs: the inner products of their changes by block group, of blocks that both have."""

    one: Anatomy
    other: Anatomy
    products: Mapping[str, float]

    @classmethod
    @torch.no_grad()
    def of(cls, one: Anatomy, other: Anatomy) -> Overlap:
        """Measure how two LoRAs stand to each other; layers of different shapes have no product."""
        products = {block: 0.0 for block in one.blocks if block in other.blocks}
        for name, layer in one.layers.items():
            if name in other.layers and other.layers[name].shape == layer.shape:
                products[block_of(name)] += inner(layer, other.layers[name])
        return cls(one, other, products)

    def cosine(self, block: str) -> float:
        """Of the two changes in a block group; 0 where one has none."""
        return _cosine(self.products.get(block, 0.0), self.one.blocks.get(block, 0.0), self.other.blocks.get(block, 0.0))

    @property
    def whole(self) -> float:
        """The cosine of the two whole changes."""
        return _cosine(math.fsum(self.products.values()), self.one.size, self.other.size)

    @property
    def common(self) -> float:
        """What is common to their shares of the blocks: 1 if they are spread alike, 0 if no block is changed by both."""
        return math.fsum(min(self.one.share(block), self.other.share(block)) for block in self.products)

    @property
    def fights(self) -> list[str]:
        """The blocks that count for both, in which the larger change undoes a tenth of the smaller, or more."""
        return [
            block
            for block, product in self.products.items()
            if self.one.counts(block) and self.other.counts(block)
            if self.cosine(block) <= -OPPOSED
            and -product >= UNDONE * min(self.one.blocks[block], self.other.blocks[block]) ** 2
        ]

    def verdict(self) -> tuple[Verdict, str]:
        """How they stand to each other, and the sentence that says so."""
        both = f"{self.one.name} and {self.other.name}"
        if obstacle := self._obstacle():
            return "unknown", obstacle
        if self.fights:
            return "fight", f"{both} fight in {_listed(self.fights)}: lower one, or merge with TIES."
        if self.common < APART:
            return "apart", f"{both} work on different blocks."
        if self.whole >= ALIKE:
            return "alike", f"{both} do much the same: lower both where they are mixed."
        return "beside", f"{both} work on the same blocks, and not against each other."

    def to_json(self) -> dict[str, Any]:
        """What is told of it."""
        (verdict, sentence), fights = self.verdict(), self.fights
        return {
            "files": [self.one.name, self.other.name],
            "verdict": verdict,
            "sentence": sentence,
            "cosine": self.whole,
            "common": self.common,
            "blocks": [
                {"block": block, "diffusers": _DIFFUSERS.get(block, ""), "cosine": self.cosine(block), "fight": block in fights}
                for block in self.products
            ],
        }

    def _obstacle(self) -> str:
        """Why there is nothing to compare; empty if there is."""
        for own in (self.one, self.other):
            if not own.spectra:
                return f"{own.name} cannot be compared without a base: it is a DoRA."
            if not own.size:
                return f"{own.name} changes nothing."
        shared = self.one.layers.keys() & self.other.layers.keys()
        if any(self.one.layers[name].shape != self.other.layers[name].shape for name in shared):
            return f"{self.one.name} and {self.other.name} are made for different models: no base takes both."
        return ""


def overlaps(anatomies: Iterable[Anatomy]) -> list[Overlap]:
    """Each pair of several LoRAs."""
    return [Overlap.of(one, other) for one, other in combinations(anatomies, 2)]


def _cosine(product: float, *sizes: float) -> float:
    return product / math.prod(sizes) if all(sizes) else 0.0


def _listed(blocks: list[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, (", ".join(blocks[:-1]), blocks[-1])))
