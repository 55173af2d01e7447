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

NUMBER = 4
"""Bytes of a number in float32: of a trained one, of its gradient, of its running average."""

UPDATE = 8
"""Bytes that an update takes for a while for each trained number: AdamW's on a machine that has no fused one."""


@dataclass(frozen=True)
class Keeping:
    """What a training keeps beside the base and its LoRA, and what it need not keep."""

    moments: int
    """Bytes of what the optimizer remembers."""
    average: bool = False
    """Whether there is a running average of the LoRA, too."""
    swapped: bool = False
    """Whether samples are drawn with other matrices than those that are trained, which are put aside for it."""
    text_once: bool = False
    """Whether text is encoded before the first step."""
    text_away: bool = False
    """Whether the text encoders then leave the card for good: the prompts of samples are read by the computer."""
    loading: int = 0
    """Bytes that are there while the base is loaded, where it is packed in the memory in which it is trained."""


@dataclass(frozen=True)
class Needs:
    """The peak of a training by what it is for."""

    weights: int
    """The frozen U-Net, and the text encoders if they stay."""
    vae: int
    lora: int
    optimizer: int
    """Gradients and what the optimizer remembers."""
    activations: int
    """What a step keeps for its backward pass."""
    working: int
    """What a step needs further at its peak."""
    pictures: int
    """What encoding pictures and drawing samples take in place of a step, the VAE in tiles."""
    average: int = 0
    """The running average of the LoRA."""
    start: int = 0
    """All that is there at most before the LoRA is: while the base is loaded, and while text is encoded once."""

    @property
    def step(self) -> int:
        """The most that a step takes while it lasts."""
        return self.activations + self.working

    @property
    def peak(self) -> int:
        """The most that is allocated at any time."""
        standing = self.weights + self.vae + self.lora + self.optimizer + self.average
        return max(self.start, standing + max(self.step, self.pictures))

    @property
    def total(self) -> int:
        """What must be free."""
        return self.peak + reserve(self.peak)


def reserve(peak: int) -> int:
    """What kernels take as workspace and the allocator loses between tensors: a twentieth, and 256 MiB."""
    return peak // 20 + 2**28


def step_count(counts: Counts, precision: Precision, how: Recompute, share: float, text_once: bool = False) -> Count:
    """A training step on pictures of `share` times the area of the counts' own; with `text_once`, without their captions."""
    step = counts.step(how).times(share)
    if not (text_once or counts.subject.reads):
        step = step.then(counts.reading())
    if precision not in ("int8", "nf4"):
        return step
    return step.then(counts.unpacking(precision), times=2 if how == "none" else 3)


def training_needs(counts: Counts, precision: Precision, how: Recompute, share: float, keeping: Keeping) -> Needs:
    """A training whose largest batch has `share` times the area of the counts' own picture."""
    weights, numbers = counts.weights(precision), sum(counts.lora().values())
    text = weights["te1"] + weights["te2"]
    read = counts.reading().peak if keeping.text_once else 0
    step = counts.step(how).times(share)
    unpacked = counts.unpacking(precision).peak if precision in ("int8", "nf4") else 0
    tile = min(TILE, counts.subject.side)
    swapped = NUMBER * numbers * (keeping.average + keeping.swapped)
    return Needs(
        weights=weights["unet"] + (0 if keeping.text_away else text),
        vae=weights["vae"],
        lora=NUMBER * numbers,
        optimizer=NUMBER * numbers + keeping.moments,
        activations=step.saved,
        working=max(step.peak + unpacked, UPDATE * numbers) - step.saved,
        pictures=swapped + max(counts.guided().peak + unpacked, counts.decode(tile).peak, counts.encode(tile).peak),
        average=NUMBER * numbers * keeping.average,
        start=max(keeping.loading, weights["unet"] + text + weights["vae"] + read + unpacked),
    )


@dataclass(frozen=True)
class DrawingSizes:
    """What drawing one picture consists of."""

    unet: int
    text: int
    vae: int
    """Weights of the models."""
    mixable: int
    """Weights that LoRAs may change: so large are the untouched copies of all of them."""
    guided: int
    """What the U-Net takes beside its weights, with and without the prompt at once."""
    whole: int
    tile: int
    """What the VAE takes beside its weights, for the whole picture and for a tile."""


@dataclass(frozen=True)
class DrawingNeeds:
    """The peak of drawing one picture with LoRAs mixed in, and how it is drawn."""

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


def drawing_sizes(counts: Counts, precision: Precision) -> DrawingSizes:
    """The sizes of drawing a square picture of the counts' own side."""
    weights, side = counts.weights(precision), counts.subject.side
    return DrawingSizes(
        unet=weights["unet"],
        text=weights["te1"] + weights["te2"],
        vae=weights["vae"],
        mixable=counts.mixable(),
        guided=counts.guided().peak,
        whole=counts.decode(side).peak,
        tile=counts.decode(min(TILE, side)).peak,
    )


def ways_to_draw(sizes: DrawingSizes, card: bool) -> Iterator[DrawingNeeds]:
    """From the fastest and largest to the smallest; only on a card is there another memory where something can be kept."""
    resident = sizes.unet + sizes.text + sizes.vae
    tiled = max(sizes.guided, sizes.tile)
    yield DrawingNeeds(False, False, False, resident + sizes.mixable + max(sizes.guided, sizes.whole))
    yield DrawingNeeds(True, False, False, resident + sizes.mixable + tiled)
    if card:
        yield DrawingNeeds(True, True, False, resident + tiled)
        yield DrawingNeeds(True, True, True, sizes.unet + max(sizes.guided, sizes.text, sizes.vae + sizes.tile))


def way_to_draw(sizes: DrawingSizes, free: int, card: bool) -> tuple[DrawingNeeds, bool]:
    """The fastest way that fits into `free` bytes, or the smallest; and whether it fits."""
    ways = list(ways_to_draw(sizes, card))
    fitting = next((way for way in ways if way.total <= free), None)
    return fitting or ways[-1], fitting is not None
