"""The plan of a training: which picture goes into which bucket, how many steps there are, which pictures each step sees.

A function of the dataset and the settings alone: every step's pictures follow from (seed, step), so that a resumed
training sees what an uninterrupted one would have seen. Knows no torch.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

from trainer.data.buckets import Bucket, Placement, place_within
from trainer.data.dataset import Dataset, Picture
from trainer.settings import Settings


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from whatever a draw depends on: (seed, step, picture …)."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def placements(picture: Picture, settings: Settings) -> Iterator[Placement]:
    """Every way in which a picture is trained: at each resolution, and there mirrored too if that is asked for.

    Where a small picture lands in the same bucket from two resolutions, it is there once.
    """
    wanted = (settings.resolution, *settings.resolutions)
    sized = [place_within(picture.width, picture.height, resolution, settings.max_upscale) for resolution in wanted]
    for placement in dict.fromkeys(sized):
        yield placement
        if settings.flip:
            yield replace(placement, mirrored=True)


@dataclass(frozen=True)
class Plan:
    """Pictures with their placements, by index; and the steps to take."""

    pictures: tuple[tuple[Picture, Placement], ...]
    """A picture is there once for each of its placements (at several resolutions, and mirrored), and for each repeat."""
    steps: int
    batch: int
    seed: int

    @classmethod
    def of(cls, dataset: Dataset, settings: Settings) -> Plan:
        """Place every picture; `settings.steps`, or as many as give each picture its passes, over all its placements.

        A pass shows a picture as often as the dataset's repeats say. Raises `DatasetError` where these make no sense.
        """
        repeats = dataset.repeats
        shown = [picture for picture in dataset.pictures for _ in range(repeats.get(picture.path.name, 1))]
        placed = tuple((picture, where) for picture in shown for where in placements(picture, settings))
        steps = settings.steps or math.ceil(settings.passes * len(shown) / settings.batch)
        return cls(placed, steps, settings.batch, settings.seed)

    def without(self, refused: set[int]) -> Plan:
        """The same steps without some pictures, which turned out not to be readable."""
        kept = tuple(entry for index, entry in enumerate(self.pictures) if index not in refused)
        return Plan(kept, self.steps, self.batch, self.seed)

    @property
    def distinct(self) -> int:
        """Pictures, however many placements each has."""
        return len({picture.path for picture, _ in self.pictures})

    @property
    def buckets(self) -> dict[str, int]:
        """Placements per bucket, by `WIDTHxHEIGHT`."""
        counts = Counter(placement.bucket for _, placement in self.pictures)
        return {f"{bucket.width}x{bucket.height}": count for bucket, count in sorted(counts.items())}

    def indices(self, step: int) -> list[int]:
        """The pictures of `step` (from 0), all of one bucket: every pass is a new shuffle of full batches.

        A bucket's last batch is filled up with further pictures of the bucket, so that each step weighs the same.
        """
        members: dict[Bucket, list[int]] = {}
        for index, (_, placement) in enumerate(self.pictures):
            members.setdefault(placement.bucket, []).append(index)
        per_pass = sum(math.ceil(len(indices) / self.batch) for indices in members.values())
        random = Random(seed_of(self.seed, "pass", step // per_pass))
        batches = []
        for _, indices in sorted(members.items()):
            order = random.sample(indices, len(indices))
            order += random.choices(indices, k=-len(order) % self.batch)
            batches += [order[start : start + self.batch] for start in range(0, len(order), self.batch)]
        random.shuffle(batches)
        return batches[step % per_pass]
