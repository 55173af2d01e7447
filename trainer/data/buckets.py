"""Aspect buckets: the few sizes that training pictures are scaled and cropped to, all of nearly equal token count.

Pure arithmetic. A picture is scaled to cover its bucket and cropped in the middle; where it was cropped, and how large
it was before, is kept, because SDXL is told both (arXiv 2307.01952, section 2.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

STEP = 32
"""Sides are multiples of this: the VAE divides by 8, the U-Net's three levels by 4 more."""

WIDEST = 2.0
"""Largest ratio of the sides of a bucket."""


@dataclass(frozen=True, order=True)
class Bucket:
    """A training size in pixels."""

    width: int
    height: int


@dataclass(frozen=True)
class Placement:
    """How a picture gets into its bucket: scaled to `scaled` (width, height), then cropped at (`left`, `top`)."""

    bucket: Bucket
    original: tuple[int, int]
    scaled: tuple[int, int]
    left: int
    top: int

    @property
    def time_ids(self) -> tuple[int, ...]:
        """SDXL's size conditioning: original height and width, crop top and left, target height and width."""
        width, height = self.original
        return (height, width, self.top, self.left, self.bucket.height, self.bucket.width)


def sizes(resolution: int, step: int | None = None) -> tuple[Bucket, ...]:
    """Every bucket of a resolution: for each width the height whose area is nearest to `resolution` squared,
    and the same turned.

    `step` is 64 from 512 pixels up, as in SDXL's own training, and 32 below. Areas differ by less than an eighth.
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
    left, top = (scaled[0] - bucket.width) // 2, (scaled[1] - bucket.height) // 2
    return Placement(bucket, (width, height), scaled, left, top)
