"""What a LoRA is made of: which modules of a base are adapted, and each one's rank, scale and factor of the learning rate.

Knows the modules by their paths alone: no model, no matrices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from trainer.lora.keys import Component, least_targets, slides
from trainer.settings import STYLE_BLOCK, Settings, Targets, block_numbers

_WIDER: tuple[Targets, ...] = get_args(Targets)
"""Each takes what the ones before it take."""


@dataclass(frozen=True)
class Shape:
    """The form of a LoRA. The tables are of the U-Net's blocks, by the beginnings of module paths."""

    rank: int
    alpha: float
    rslora: bool = False
    targets: Targets = "attention"
    conv_rank: int = 0
    style_blocks_only: bool = False
    block_ranks: Mapping[str, float] = field(default_factory=dict, hash=False)
    block_rates: Mapping[str, float] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, settings: Settings) -> Shape:
        """What the settings ask for."""
        return cls(
            rank=settings.rank,
            alpha=settings.alpha,
            rslora=settings.rslora,
            targets=settings.targets,
            conv_rank=settings.conv_rank,
            style_blocks_only=settings.style_blocks_only,
            block_ranks=block_numbers(settings.block_ranks),
            block_rates=block_numbers(settings.block_rates),
        )

    @property
    def scale(self) -> float:
        """What every change is multiplied by: alpha / rank, or alpha / sqrt(rank) (rsLoRA, arXiv 2312.03732).

        It is the general rank's, so that a block with another rank is not weaker or stronger for it.
        """
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    @property
    def file_alpha(self) -> float:
        """The alpha in the file, one for all layers: a reader's alpha / rank is `scale` for a layer of the general rank."""
        return self.alpha * math.sqrt(self.rank) if self.rslora else self.alpha

    @property
    def blocks(self) -> frozenset[str]:
        """The blocks that are named, which the U-Net must have."""
        return frozenset(self.block_ranks) | frozenset(self.block_rates)

    def rank_of(self, component: Component, path: str) -> int:
        """The rank of a module's layer; 0 where the module is left alone, as in a block whose rate is 0."""
        least = least_targets(component, path)
        if least is None or _WIDER.index(least) > _WIDER.index(self.targets) or not self.rate_of(component, path):
            return 0
        if component != "unet":
            return self.rank
        if self.style_blocks_only and not within(STYLE_BLOCK, path):
            return 0
        rank = round(number_of(self.block_ranks, path, self.rank))
        return self.conv_rank if rank and self.conv_rank and slides(path) else rank

    def rate_of(self, component: Component, path: str) -> float:
        """What the learning rate of its part is multiplied by for a module."""
        return number_of(self.block_rates, path, 1.0) if component == "unet" else 1.0


def within(block: str, path: str) -> bool:
    """Whether a module lies in a block, or is it."""
    return f"{path}.".startswith(f"{block}.")


def number_of(numbers: Mapping[str, float], path: str, otherwise: float) -> float:
    """The number of the smallest block around a module."""
    around = [block for block in numbers if within(block, path)]
    return numbers[max(around, key=len)] if around else otherwise
