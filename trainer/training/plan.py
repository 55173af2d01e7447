"""The plan of a training: which picture goes into which bucket, how many steps there are, which pictures each step sees.

A function of the dataset and the settings alone: every step's pictures follow from (seed, step), so that a resumed
training sees what an uninterrupted one would have seen. Knows no torch.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from random import Random

from trainer.data.buckets import Bucket, Placement, place, sizes
from trainer.data.dataset import Dataset, Picture
from trainer.settings import Settings


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from whatever a draw depends on: (seed, step, picture …)."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class Plan:
    """Pictures with their placements, by index; and the steps to take."""

    pictures: tuple[tuple[Picture, Placement], ...]
    steps: int
    batch: int
    seed: int

    @classmethod
    def of(cls, dataset: Dataset, settings: Settings) -> Plan:
        """Place every picture; `settings.steps`, or as many as give each picture its passes."""
        buckets = sizes(settings.resolution)
        placed = tuple((picture, place(picture.width, picture.height, buckets)) for picture in dataset.pictures)
        steps = settings.steps or math.ceil(settings.passes * len(placed) / settings.batch)
        return cls(placed, steps, settings.batch, settings.seed)

    def without(self, refused: set[int]) -> Plan:
        """The same steps without some pictures, which turned out not to be readable."""
        kept = tuple(entry for index, entry in enumerate(self.pictures) if index not in refused)
        return Plan(kept, self.steps, self.batch, self.seed)

    @property
    def buckets(self) -> dict[str, int]:
        """Pictures per bucket, by `WIDTHxHEIGHT`."""
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
