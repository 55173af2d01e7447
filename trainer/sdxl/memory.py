"""How much memory a training and a drawing need, from what was counted. Bytes throughout.

Knows the counts and how they grow with pictures; nothing of cards, settings or what is chosen. Knows no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trainer.sdxl.counts import Count, Counts
from trainer.settings import Precision, Recompute

TILE = 512
"""Side in pixels of the tiles in which the VAE works where it has to."""

MATRIX = 4
GRADIENT_AND_MOMENTS = 12
UPDATE = 8
"""Bytes for each trained parameter: its float32 value; its gradient and AdamW's moments; what an update takes for a while."""


@dataclass(frozen=True)
class Needs:
    """The peak of a training by what it is for."""

    weights: int
    """The frozen U-Net and text encoders."""
    vae: int
    lora: int
    optimizer: int
    """Gradients and AdamW's moments."""
    activations: int
    """What a step keeps for its backward pass."""
    working: int
    """What a step needs further at its peak."""
    pictures: int
    """What encoding pictures and drawing samples take in place of a step, the VAE in tiles."""

    @property
    def peak(self) -> int:
        """The most that is allocated at any time."""
        return self.weights + self.vae + self.lora + self.optimizer + max(self.activations + self.working, self.pictures)

    @property
    def total(self) -> int:
        """What must be free."""
        return self.peak + reserve(self.peak)


def reserve(peak: int) -> int:
    """What kernels take as workspace and the allocator loses between tensors: a twentieth, and 256 MiB."""
    return peak // 20 + 2**28


def step_count(counts: Counts, precision: Precision, how: Recompute, share: float) -> Count:
    """A training step on pictures of `share` times the area of the counts' own."""
    step = counts.step(how).times(share)
    if precision not in ("int8", "nf4"):
        return step
    return step.then(counts.unpacking(precision), times=2 if how == "none" else 3)


def training_needs(counts: Counts, precision: Precision, how: Recompute, share: float) -> Needs:
    """A training whose largest batch has `share` times the area of the counts' own picture."""
    weights, parameters = counts.weights(precision), sum(counts.lora().values())
    step = counts.step(how).times(share)
    unpacked = counts.unpacking(precision).peak if precision in ("int8", "nf4") else 0
    tile = min(TILE, counts.subject.side)
    return Needs(
        weights=weights["unet"] + weights["te1"] + weights["te2"],
        vae=weights["vae"],
        lora=MATRIX * parameters,
        optimizer=GRADIENT_AND_MOMENTS * parameters,
        activations=step.saved,
        working=max(step.peak + unpacked, UPDATE * parameters) - step.saved,
        pictures=max(counts.guided().peak + unpacked, counts.decode(tile).peak, counts.encode(tile).peak),
    )


@dataclass(frozen=True)
class DrawingNeeds:
    """The peak of drawing one picture with a LoRA mixed in, and how it is drawn."""

    tiled: bool
    """The VAE works in tiles."""
    copies_away: bool
    """The untouched copies of the mixed layers are kept in the computer's memory."""
    visiting: bool
    """Text encoders and VAE come to the card when they are needed, and go again."""
    peak: int

    @property
    def total(self) -> int:
        """What must be free."""
        return self.peak + reserve(self.peak)


def drawing_needs(counts: Counts, precision: Precision) -> Iterator[DrawingNeeds]:
    """The ways to draw one square picture, from the fastest and largest to the smallest."""
    weights = counts.weights(precision)
    text, vae, side = weights["te1"] + weights["te2"], weights["vae"], counts.subject.side
    whole, tile = counts.decode(side).peak, counts.decode(min(TILE, side)).peak
    guided, copies = counts.guided().peak, counts.mixed()
    resident = weights["unet"] + text + vae
    yield DrawingNeeds(False, False, False, resident + copies + max(guided, whole))
    yield DrawingNeeds(True, False, False, resident + copies + max(guided, tile))
    yield DrawingNeeds(True, True, False, resident + max(guided, tile))
    yield DrawingNeeds(True, True, True, weights["unet"] + max(guided, text, vae + tile))
