"""Findings in a dataset's pictures, from what was measured and how they are placed. Each threshold is here, with its reason.

Looks at no file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from trainer.data.buckets import Placement
from trainer.data.checkup import likeness
from trainer.data.checkup.finding import KINDS, Finding, counted, found
from trainer.data.checkup.measures import Measure
from trainer.data.crops import Framing
from trainer.data.dataset import ABOUT, Dataset, Shares
from trainer.settings import Settings

ENOUGH = 0.85
"""A picture with this share of the resolution's pixels is not called small: a bucket has as few."""

ENLARGED = 1.3
"""An enlargement by less is not worth a word."""

SOFT, SOFTER = 0.4, 0.6
"""A picture may be blurred whose sharpness is below the first, and below the second times that of the sharper pictures here:
where all are soft, the style is."""

HALF = 0.5
"""It does no harm if the detail that there is fills half the pixels, a side, that training sees."""

BLOCKED = 0.4
"""Differences at the edges of JPEG's blocks that much above those within: qualities of about 30 and less have it."""

FRAMED = 0.008
"""A frame is as wide as this share of the side at least."""

PADDING = 2
"""So many pixels more than the frame are cut off: JPEG blurs its inner edge."""

LEAST_LEFT = 64
"""Pixels that must be left of a side."""

LETTERED = 0.5
"""Share of what looks like letters that is in one corner."""

MOST_LOST = 0.35
"""Share of a picture that a crop may leave out."""


@dataclass(frozen=True)
class _Look:
    """A picture, its measure, how it is placed."""

    name: str
    measure: Measure
    placement: Placement

    @property
    def side(self) -> float:
        """Of the bucket, were it square, in pixels."""
        return math.sqrt(self.placement.bucket.width * self.placement.bucket.height)

    @property
    def enlarged(self) -> bool:
        """Whether it was enlarged so much that training sees more pixels than there were."""
        width, height = self.measure.detailed
        return self.measure.upscaled >= ENLARGED and math.sqrt(width * height) < math.sqrt(ENOUGH) * self.side


def picture_findings(dataset: Dataset, settings: Settings, measures: Mapping[str, Measure]) -> Iterator[Finding]:
    """All that was found in the pictures. Raises `DatasetError` if `dataset.toml` makes no sense."""
    framing = Framing.of(dataset)
    placements = {each.path.name: next(framing.placements(each, settings)) for each in dataset.pictures}
    looks = [_Look(name, measures[name], placement) for name, placement in placements.items() if name in measures]
    yield from _likenesses({look.name: look.measure for look in looks})
    yield from _small(placements, settings)
    yield from _upscaled([look for look in looks if look.enlarged])
    yield from _blurred([look for look in looks if not look.enlarged])
    yield from _blocked(looks)
    yield from _framed(frames(dataset, measures))
    yield from _lettered([look for look in looks if look.name not in dataset.crops])
    yield from _cropped({name: placement for name, placement in placements.items() if name not in dataset.focus})


def frames(dataset: Dataset, measures: Mapping[str, Measure]) -> dict[str, Shares]:
    """For each picture with a frame on two sides or more, that is not cut off yet: the crop that leaves it out."""
    cut: dict[str, Shares] = {}
    crops = dataset.crops
    for name, measure in measures.items():
        sides = (measure.width, measure.height) * 2
        border = [depth if depth >= FRAMED * side else 0 for depth, side in zip(measure.border, sides, strict=True)]
        left, top, right, bottom = (depth + PADDING if depth else 0 for depth in border)
        if sum(map(bool, border)) < 2 or min(measure.width - left - right, measure.height - top - bottom) < LEAST_LEFT:
            continue
        within = (left / sides[0], top / sides[1], 1 - right / sides[0], 1 - bottom / sides[1])
        now = crops.get(name, (0.0, 0.0, 1.0, 1.0))
        crop = (max(now[0], within[0]), max(now[1], within[1]), min(now[2], within[2]), min(now[3], within[3]))
        if crop != now and crop[0] < crop[2] and crop[1] < crop[3]:
            cut[name] = crop
    return cut


def _likenesses(measures: Mapping[str, Measure]) -> Iterator[Finding]:
    copies, groups = likeness.same(measures), likeness.alike(measures)
    if copies:
        spare = sum(len(group) - 1 for group in copies)
        yield _grouped(
            "duplicate",
            f"{counted(spare, 'picture is an exact copy', 'pictures are exact copies')} of another one: what is there twice "
            "counts twice.",
            copies,
            f'One of each is kept. To show a picture more often on purpose, name it under [repeats] in {ABOUT}: "01.png" = 3.',
        )
    if groups:
        size = sum(map(len, groups))
        yield _grouped(
            "similar",
            f"{size:,} pictures may be nearly the same as others ({counted(len(groups), 'group', 'groups')}): what is there "
            "more than once counts more.",
            groups,
            "Of each the one with the most detail is kept. Look at the groups first: likeness is judged from small copies.",
        )


def _grouped(kind: str, sentence: str, groups: likeness.Groups, advice: str) -> Finding:
    names = tuple(name for group in groups for name in group)
    return Finding(kind, sentence, names, tuple(groups), KINDS[kind][1], advice)


def _small(placements: Mapping[str, Placement], settings: Settings) -> Iterator[Finding]:
    wanted = ENOUGH * settings.resolution**2
    names = [name for name, placement in placements.items() if math.prod(placement.original) < wanted]
    if names:
        most = max(placements[name].upscale for name in names)
        does = f"enlarges them up to {most:.1f} times, which teaches blur" if most > 1 else "takes them at a lower one"
        yield found(
            "small",
            f"{counted(len(names), 'picture has', 'pictures have')} too few pixels for a resolution of {settings.resolution}: "
            f"training {does}.",
            names,
            "Look for larger originals, or lower the resolution.",
        )


def _upscaled(looks: list[_Look]) -> Iterator[Finding]:
    if looks:
        yield found(
            "upscaled",
            f"{counted(len(looks), 'picture', 'pictures')} may have been enlarged: the finest detail is missing, and pixels "
            "repeat themselves as scaling leaves them.",
            [look.name for look in looks],
            "Look for the originals. What is blurred in all pictures is learnt as the style.",
        )


def _blurred(looks: list[_Look]) -> Iterator[Finding]:
    if not looks:
        return
    usual = float(np.percentile([look.measure.sharpness for look in looks], 75))
    limit = min(SOFT, SOFTER * usual)
    names = [look.name for look in looks if look.measure.sharpness < limit and look.measure.detail < HALF * look.side]
    if names:
        yield found(
            "blurred",
            f"{counted(len(names), 'picture', 'pictures')} may be blurred: much softer than the sharper ones of this dataset.",
            names,
            "Leave in what is soft on purpose.",
        )


def _blocked(looks: list[_Look]) -> Iterator[Finding]:
    names = [look.name for look in looks if look.measure.blocks >= BLOCKED and look.placement.upscale > HALF]
    if names:
        yield found(
            "blocks",
            f"{counted(len(names), 'picture', 'pictures')} may have been compressed too hard: JPEG's blocks can be seen.",
            names,
            "Look for better copies: a style learns blocks as texture.",
        )


def _framed(crops: Mapping[str, Shares]) -> Iterator[Finding]:
    if crops:
        yield found(
            "border",
            f"{counted(len(crops), 'picture seems', 'pictures seem')} to have a frame of one colour.",
            crops,
            "Training leaves out what is cut off; the files stay as they are.",
        )


def _lettered(looks: list[_Look]) -> Iterator[Finding]:
    names = [look.name for look in looks if look.measure.corner >= LETTERED]
    if names:
        yield found(
            "watermark",
            f"{counted(len(names), 'picture', 'pictures')} may have a watermark or a signature in a corner. This is a rough "
            "guess: some are missed, and small patterns are taken for letters.",
            names,
            "Crop it off, or paint a mask that leaves it out: what is on most pictures is learnt.",
        )


def _cropped(placements: Mapping[str, Placement]) -> Iterator[Finding]:
    names = [name for name, placement in placements.items() if placement.lost > MOST_LOST]
    if names:
        most = max(placements[name].lost for name in names)
        yield found(
            "ratio",
            f"{counted(len(names), 'picture is', 'pictures are')} so long that the crop leaves out up to {most:.0%}.",
            names,
            "Choose what is to be seen: set a crop or a focus.",
        )
