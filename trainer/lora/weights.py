"""What a LoRA weighs in a mix: in the U-Net and in the text encoders, block by block, and beside LoRAs of other strengths.

Knows numbers and module paths: no weights of a base, no steps of a drawing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trainer.lora.file import LoraFile
from trainer.lora.keys import Component
from trainer.lora.shape import number_of


@dataclass(frozen=True)
class Weighted:
    """A LoRA in a mix, with its weight in the U-Net and in the text encoders.

    `blocks` multiply the U-Net's weight, by the beginnings of module paths; the smallest block around a module counts, and
    where there is none the number of `unet`, or 1.
    """

    lora: LoraFile
    unet: float
    text: float
    blocks: Mapping[str, float] = field(default_factory=dict)

    def weight_of(self, component: Component, path: str) -> float:
        """The weight that counts for a module."""
        if component != "unet":
            return self.text
        return self.unet * number_of(self.blocks, path, self.blocks.get("unet", 1.0))


def equalising(sizes: Sequence[float]) -> list[float]:
    """What each LoRA's weight in the U-Net is multiplied by, so that at equal weights all change the U-Net equally much.

    `sizes` are Frobenius norms of the changes of the whole U-Net at weight 1, which become their geometric mean: none of the
    LoRAs is the measure of the others, and the factors multiply to 1. A 0 is of one that leaves the U-Net alone or has no
    weight there: it does not count for the others, and keeps its weight.
    """
    changing = [size for size in sizes if size > 0]
    mean = math.exp(math.fsum(map(math.log, changing)) / len(changing)) if changing else 0.0
    return [mean / size if size > 0 else 1.0 for size in sizes]
