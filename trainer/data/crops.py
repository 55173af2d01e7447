"""What training sees of each picture: all the ways in which it is cut, mirrored and cropped. Knows no torch.

A picture is first cut to what `[crops]` in `dataset.toml` says, as if its file had been cut so: the bucket is that of the
part's shape, and SDXL is told the part's size as the original one. The bucket's crop then comes as near to the `[focus]` as it
can. Where several crops of each picture are asked for (the setting `crops`), they lie anywhere in the part, and a focus does
nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np

from trainer.data import intake
from trainer.data.buckets import Bucket, Cut, Placement, place_within
from trainer.data.dataset import Dataset, Picture, Shares
from trainer.data.seeds import seed_of
from trainer.errors import DatasetError
from trainer.settings import Settings

SMALL = 96
"""Longest side of the copy that is looked at for its content, in pixels."""

DETAIL = 2.0
"""How much a difference between neighbours counts, beside one from the picture's usual colour."""

FAINT = 8
"""Differences up to this, of 255, are what compression leaves behind."""

Values = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@dataclass(frozen=True)
class Framing:
    """What is said by hand of how a dataset's pictures are framed, by file name."""

    cuts: dict[str, Cut | None]
    focus: dict[str, tuple[float, float]]

    @classmethod
    def of(cls, dataset: Dataset) -> Framing:
        """As `dataset.toml` says. Raises `DatasetError` if it makes no sense."""
        crops = dataset.crops
        cuts = {
            picture.path.name: _cut(picture, crops[picture.path.name])
            for picture in dataset.pictures
            if picture.path.name in crops
        }
        return cls(cuts, dataset.focus)

    def placements(self, picture: Picture, settings: Settings) -> Iterator[Placement]:
        """Every way in which a picture is trained: at each resolution, there in each crop, and there mirrored if that is asked
        for. Where a small picture lands in the same bucket from two resolutions, it is there once.
        """
        cut = self.cuts.get(picture.path.name)
        width, height = cut.size if cut else (picture.width, picture.height)
        wanted = (settings.resolution, *settings.resolutions)
        sized = [place_within(width, height, resolution, settings.max_upscale) for resolution in wanted]
        focus = self.focus.get(picture.path.name) if settings.crops == 1 else None
        for centred in dict.fromkeys(sized):
            for crop in _anywhere(replace(centred, cut=cut), picture.path.name, settings):
                for placement in (crop, replace(crop, mirrored=True)) if settings.flip else (crop,):
                    yield placement.towards(*focus) if focus else placement


def seen(picture: Picture, settings: Settings, dataset: Dataset) -> Placement:
    """The first way in which a picture of `dataset` is trained, and the one in which it is measured. Raises `DatasetError`."""
    return next(Framing.of(dataset).placements(picture, settings))


def box(placement: Placement) -> Shares:
    """What training sees of a picture: the left, top, right and bottom edge as shares of the whole upright picture."""
    left, top, right, bottom = placement.box
    if placement.mirrored:
        left, right = placement.scaled[0] - right, placement.scaled[0] - left
    from_left, from_top = placement.cut.box[:2] if placement.cut else (0, 0)

    def share(at: int, axis: int, start: int) -> float:
        return (start + at / placement.scaled[axis] * placement.original[axis]) / placement.whole[axis]

    return share(left, 0, from_left), share(top, 1, from_top), share(right, 0, from_left), share(bottom, 1, from_top)


def tally(dataset: Dataset, settings: Settings) -> list[tuple[Bucket, int]]:
    """How many pictures go into each bucket at the settings' own resolution, the narrowest first. Raises `DatasetError`."""
    framing = Framing.of(dataset)
    return sorted(Counter(next(framing.placements(picture, settings)).bucket for picture in dataset.pictures).items())


def _cut(picture: Picture, edges: Shares) -> Cut | None:
    """The edges as whole pixels; None if they leave the whole picture. Raises `DatasetError` if too little is left."""
    width, height = picture.width, picture.height
    left, top, right, bottom = edges
    cut = Cut((width, height), (round(left * width), round(top * height), round(right * width), round(bottom * height)))
    if cut.size == cut.whole:
        return None
    if min(cut.size) < intake.LEAST_SIDE:
        raise DatasetError(
            f"The crop of {picture.path.name} leaves only {cut.size[0]} x {cut.size[1]} pixels of it: "
            f"widen or delete it under [crops] in {picture.path.with_name('dataset.toml')}."
        )
    return cut


def _anywhere(centred: Placement, name: str, settings: Settings) -> list[Placement]:
    """The middle crop, then as many others as are asked for and differ; more of them leave the first ones as they are."""
    crops = [centred]
    for number in range(1, min(settings.crops, centred.ways)):
        random = Random(seed_of(settings.seed, "crop", name, number))
        while (crop := centred.elsewhere(random)) in crops:
            pass
        crops.append(crop)
    return crops


def by_content(path: Path) -> tuple[float, float]:
    """Where the subject of a picture probably is, as a focus: the middle of what stands out from it in colour and in detail;
    the picture's own middle where nothing does. A guess, made from a small copy. Raises `PictureError`.
    """
    colours = np.asarray(intake.read_small(path, SMALL), dtype=np.float32)
    apart = np.abs(colours - np.median(colours, axis=(0, 1))).mean(axis=2)
    across = np.abs(np.diff(colours, axis=1, append=colours[:, -1:])).mean(axis=2)
    down = np.abs(np.diff(colours, axis=0, append=colours[-1:])).mean(axis=2)
    strength = apart + DETAIL * (across + down)
    weight = np.square(np.where(strength > FAINT, strength, 0))
    weight = np.maximum(weight - weight.mean(), 0)  # what is everywhere, as grain is, stands out nowhere
    if not weight.any():
        return 0.5, 0.5
    return _middle(weight.sum(axis=0)), _middle(weight.sum(axis=1))


def _middle(weights: Values) -> float:
    """The weighted mean of the places along a side, as a share of it."""
    return float(weights @ (np.arange(len(weights)) + 0.5) / weights.sum() / len(weights))
