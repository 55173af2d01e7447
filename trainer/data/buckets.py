"""Aspect buckets: the few sizes that training pictures are scaled and cropped to, all of nearly equal token count.

Pure arithmetic. A picture is scaled to cover its bucket and cropped, in the middle unless its focus is elsewhere; where it
was cropped, and how large it was before, is kept, because SDXL is told both (arXiv 2307.01952, section 2.2). One too small for
its bucket goes into a bucket of a lower resolution: an upscaled picture teaches blur.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cache
from random import Random

STEP = 32
"""Sides are multiples of this: the VAE divides by 8, the U-Net's three levels by 4 more."""

WIDEST = 2.0
"""Largest ratio of the sides of a bucket."""

SMALLEST = 64
"""Lowest resolution of a bucket: the settings' least, and what the U-Net's three levels need."""

DEEPEST = 4
"""No picture's bucket is lower than the resolution divided by this: there a model draws badly."""


@dataclass(frozen=True, order=True)
class Bucket:
    """A training size in pixels."""

    width: int
    height: int


@dataclass(frozen=True)
class Cut:
    """A part of a picture, chosen by hand: `box` (left, top, right, bottom) of a picture of the size `whole`, in pixels."""

    whole: tuple[int, int]
    box: tuple[int, int, int, int]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the part."""
        left, top, right, bottom = self.box
        return (right - left, bottom - top)


@dataclass(frozen=True)
class Placement:
    """How a picture gets into its bucket: cut, mirrored, scaled to `scaled` (width, height), cropped at (`left`, `top`)."""

    bucket: Bucket
    original: tuple[int, int]
    """Its size before it is scaled: what SDXL is told, for which a picture that is cut is as one that was always so small."""
    scaled: tuple[int, int]
    left: int
    top: int
    mirrored: bool = False
    cut: Cut | None = field(default=None, repr=False)  # what is kept of whole pictures is found by their repr

    @property
    def whole(self) -> tuple[int, int]:
        """The size of the picture before it is cut."""
        return self.cut.whole if self.cut else self.original

    @property
    def box(self) -> tuple[int, int, int, int]:
        """What is kept of the scaled picture: left, top, right, bottom."""
        return (self.left, self.top, self.left + self.bucket.width, self.top + self.bucket.height)

    @property
    def lost(self) -> float:
        """Share of the picture, as it is after any cut, that the crop leaves out."""
        return 1 - self.bucket.width * self.bucket.height / (self.scaled[0] * self.scaled[1])

    @property
    def upscale(self) -> float:
        """What the picture's sides are multiplied by."""
        return max(self.bucket.width / self.original[0], self.bucket.height / self.original[1])

    @property
    def ways(self) -> int:
        """In how many ways the scaled picture can be cropped."""
        return (self.scaled[0] - self.bucket.width + 1) * (self.scaled[1] - self.bucket.height + 1)

    def elsewhere(self, random: Random) -> Placement:
        """The same, cropped anywhere."""
        spare = self.scaled[0] - self.bucket.width, self.scaled[1] - self.bucket.height
        return replace(self, left=random.randint(0, spare[0]), top=random.randint(0, spare[1]))

    def towards(self, across: float, down: float) -> Placement:
        """The same, cropped so that a point of the whole picture, in shares of it, is as near the crop's middle as can be."""
        left, top = self.cut.box[:2] if self.cut else (0, 0)
        across = (across * self.whole[0] - left) / self.original[0]
        down = (down * self.whole[1] - top) / self.original[1]
        return replace(
            self,
            left=_start(1 - across if self.mirrored else across, self.scaled[0], self.bucket.width),
            top=_start(down, self.scaled[1], self.bucket.height),
        )

    @property
    def time_ids(self) -> tuple[int, ...]:
        """SDXL's size conditioning: original height and width, crop top and left, target height and width."""
        width, height = self.original
        return (height, width, self.top, self.left, self.bucket.height, self.bucket.width)


@cache
def sizes(resolution: int, step: int | None = None) -> tuple[Bucket, ...]:
    """Every bucket of a resolution: for each width the height whose area is nearest to `resolution` squared,
    and the same turned.

    `step` is 64 from 512 pixels up, as in SDXL's own training, and 32 below. At multiples of `step` areas are within 12.5 %
    of the square's, from 512 pixels up within 6.5 %, from 1024 within 4 %.
    """
    step = step or (2 * STEP if resolution >= 512 else STEP)
    area = resolution * resolution
    found = {Bucket(resolution // step * step, resolution // step * step)}
    for width in range(step, int(resolution * math.sqrt(WIDEST)) + step, step):
        height = max(step, round(area / width / step) * step)
        if max(width / height, height / width) <= WIDEST and abs(width * height / area - 1) < 0.125:
            found |= {Bucket(width, height), Bucket(height, width)}
    return tuple(sorted(found))


def place(width: int, height: int, buckets: tuple[Bucket, ...]) -> Placement:
    """The bucket whose ratio is nearest to the picture's, and the scaling and middle crop that lead there."""

    def distance(bucket: Bucket) -> float:
        return abs(math.log(bucket.width / bucket.height) - math.log(width / height))

    bucket = min(buckets, key=distance)
    scale = max(bucket.width / width, bucket.height / height)
    scaled = (max(bucket.width, round(width * scale)), max(bucket.height, round(height * scale)))
    left, top = _start(0.5, scaled[0], bucket.width), _start(0.5, scaled[1], bucket.height)
    return Placement(bucket, (width, height), scaled, left, top)


def _start(share: float, scaled: int, kept: int) -> int:
    """Where so many pixels begin whose middle is as near to this share of the scaled side as can be."""
    return min(max(0, math.floor(share * scaled - kept / 2)), scaled - kept)


def place_within(width: int, height: int, resolution: int, most: float) -> Placement:
    """The placement at `resolution`; where that upscales by more than `most`, at the next lower one that does not.

    Each lower resolution has about half the pixels of the one before. At the lowest a picture is upscaled as it must be.
    """
    lowest = max(SMALLEST, resolution / DEEPEST)
    while True:
        placement = place(width, height, sizes(resolution))
        lower = math.floor(resolution / math.sqrt(2)) // STEP * STEP
        if placement.upscale <= most or lower < lowest:
            return placement
        resolution = lower
