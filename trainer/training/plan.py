"""The plan of a training: which picture goes into which bucket, how many steps there are, which pictures are seen when.

A function of the datasets and the settings alone: the pictures of every micro-batch follow from (seed, its number), so that
a resumed training sees what an uninterrupted one would have seen. A micro-batch is one batch of one bucket; a step takes one
for each process and each accumulation, numbered on through the whole training. Knows no torch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from random import Random

from trainer.data.buckets import Bucket
from trainer.data.crops import Framing
from trainer.data.dataset import Dataset, Picture
from trainer.data.seeds import seed_of
from trainer.data.shown import Shown
from trainer.errors import DatasetError, RunError
from trainer.settings import Settings

MEASURED_TIMES = 6
"""Time steps at which each of them is measured, evenly over the schedule."""

LEAST_TO_HOLD_OUT = 4
"""With fewer pictures none can be spared to measure progress."""


def _shown(dataset: Dataset, pictures: Iterable[Picture], settings: Settings, prior: bool = False) -> list[Shown]:
    """Each picture in each of its placements, as often as the dataset's repeats say."""
    repeats, weights, framing = dataset.repeats, dataset.weights, Framing.of(dataset)
    factor = settings.prior_weight if prior else 1.0
    return [
        Shown(picture, placement, factor * weights.get(picture.path.name, 1.0), prior)
        for picture in pictures
        for _ in range(repeats.get(picture.path.name, 1))
        for placement in framing.placements(picture, settings)
    ]


def _held_out(dataset: Dataset, settings: Settings) -> list[Picture]:
    """The pictures that are not trained: those whose names hash lowest, so that a further picture displaces at most one.

    Raises `DatasetError` if there are too few to spare any.
    """
    if not settings.validation_share:
        return []
    pictures = dataset.pictures
    if len(pictures) < LEAST_TO_HOLD_OUT:
        raise DatasetError(
            f"{dataset.folder} has too few pictures to hold one out ({len(pictures)}): "
            f"set validation_share to 0, or add pictures until there are {LEAST_TO_HOLD_OUT}."
        )
    count = min(max(1, round(settings.validation_share * len(pictures))), len(pictures) // 2)
    chosen = sorted(pictures, key=lambda picture: seed_of(settings.seed, "held out", picture.path.name))[:count]
    return [picture for picture in pictures if picture in chosen]


@dataclass(frozen=True)
class _Deck:
    """Pictures by bucket, which are dealt in full batches: every pass is a new shuffle."""

    members: dict[Bucket, list[int]]
    batch: int
    gone: frozenset[int]
    seed: int
    name: str
    _last: dict[int, list[tuple[Bucket, list[int]]]] = field(default_factory=dict, compare=False)
    """The batches of the pass that was asked for last, by its number: a shuffle of many pictures takes a while."""

    @cached_property
    def length(self) -> int:
        """Batches of a pass."""
        return sum(math.ceil(len(indices) / self.batch) for indices in self.members.values())

    @cached_property
    def left(self) -> dict[Bucket, list[int]]:
        """What is not gone; no bucket here is empty."""
        there = {bucket: [index for index in indices if index not in self.gone] for bucket, indices in self.members.items()}
        return {bucket: indices for bucket, indices in sorted(there.items()) if indices}

    def dealt(self, number: int) -> list[int]:
        """The batch of this number, counted over all passes.

        Others of its bucket, drawn anew, are in the places of pictures that are gone; where the whole bucket is gone, the
        batch is of another one.
        """
        turn = number // self.length
        if turn not in self._last:
            batches = self._shuffled(turn)
            self._last.clear()
            self._last[turn] = batches
        bucket, indices = self._last[turn][number % self.length]
        if self.gone.isdisjoint(indices):
            return list(indices)
        random = Random(seed_of(self.seed, self.name, "gone", number))
        if bucket not in self.left:
            return random.choices(random.choice(list(self.left.values())), k=self.batch)
        return [random.choice(self.left[bucket]) if index in self.gone else index for index in indices]

    def _shuffled(self, turn: int) -> list[tuple[Bucket, list[int]]]:
        """A bucket's last batch is filled up with further pictures of the bucket, so that each step weighs the same."""
        random = Random(seed_of(self.seed, self.name, turn))
        batches = []
        for bucket, indices in sorted(self.members.items()):
            order = random.sample(indices, len(indices))
            order += random.choices(indices, k=-len(order) % self.batch)
            batches += [(bucket, order[start : start + self.batch]) for start in range(0, len(order), self.batch)]
        random.shuffle(batches)
        return batches


@dataclass(frozen=True)
class Plan:
    """Pictures with their placements, by index; and the steps to take."""

    pictures: tuple[Shown, ...]
    """A picture is there once for each of its placements (at several resolutions, in crops, and mirrored), and for each
    repeat; those of `prior_dataset` come last."""
    steps: int
    batch: int
    seed: int
    held_out: tuple[Shown, ...] = ()
    """Pictures that are never trained, each in its first placement."""
    gone: frozenset[int] = frozenset()
    """Pictures that are there no more: they keep their indices, and others take their places."""

    @classmethod
    def of(cls, dataset: Dataset, settings: Settings, processes: int = 1, prior: Dataset | None = None) -> Plan:
        """Place every picture; `settings.steps`, or as many as give each picture its passes, over all its placements.

        A pass shows a picture as often as the dataset's repeats say, and as many prior pictures as others. Raises
        `DatasetError` where what `dataset.toml` says makes no sense, or too few pictures are there to hold any out.
        """
        aside = _held_out(dataset, settings)
        trained = [picture for picture in dataset.pictures if picture not in aside]
        own = _shown(dataset, trained, settings)
        others = _shown(prior, prior.pictures, settings, prior=True) if prior else []
        repeats = dataset.repeats
        showings = sum(repeats.get(picture.path.name, 1) for picture in trained) * (2 if others else 1)
        steps = settings.steps or math.ceil(settings.passes * showings / (settings.batch * settings.accumulation * processes))
        framing = Framing.of(dataset)
        held = [Shown(picture, next(framing.placements(picture, settings))) for picture in aside]
        return cls((*own, *others), steps, settings.batch, settings.seed, tuple(held))

    def without(self, refused: set[int]) -> Plan:
        """The same steps without some pictures, which turned out not to be readable; those behind them move up."""
        kept = tuple(entry for index, entry in enumerate(self.pictures) if index not in refused)
        return replace(self, pictures=kept)

    def skipping(self, gone: Iterable[int]) -> Plan:
        """The same plan with others in the places of pictures that are gone; all other batches stay as they were.

        Raises `RunError` if none of the pictures, or of the prior ones, is left.
        """
        plan = replace(self, gone=frozenset(gone))
        for deck in (plan._own, plan._prior):
            if deck.members and not deck.left:
                raise RunError("None of the pictures is there any more: put them back and resume the training.")
        return plan

    @property
    def distinct(self) -> int:
        """Pictures of the style that are trained, however many placements each has."""
        return len({entry.picture.path for entry in self.pictures if not entry.prior})

    def passes(self, in_a_step: int = 1) -> float:
        """How often a picture of the style is shown in all, where its repeats do not say that it is shown more often.

        `in_a_step` is how many micro-batches a step takes. Several placements of a picture share its passes.
        """
        own = [entry for entry in self.pictures if not entry.prior]
        ways = Counter(entry.picture.path for entry in set(own))
        showings = sum(1 / ways[entry.picture.path] for entry in own) * (2 if len(own) < len(self.pictures) else 1)
        return self.steps * in_a_step * self.batch / showings

    @property
    def buckets(self) -> dict[str, int]:
        """Placements per bucket, by `WIDTHxHEIGHT`."""
        counts = Counter(entry.placement.bucket for entry in self.pictures)
        return {f"{bucket.width}x{bucket.height}": count for bucket, count in sorted(counts.items())}

    def indices(self, micro: int) -> list[int]:
        """The pictures of the micro-batch of this number (from 0), all of one bucket.

        Where there are prior pictures, every second micro-batch is of them, so that both are shown equally often.
        """
        if not self._prior.members:
            return self._own.dealt(micro)
        deck = self._prior if micro % 2 else self._own
        return deck.dealt(micro // 2)

    @cached_property
    def _own(self) -> _Deck:
        return self._deck("pass", prior=False)

    @cached_property
    def _prior(self) -> _Deck:
        return self._deck("prior", prior=True)

    def _deck(self, name: str, prior: bool) -> _Deck:
        members: dict[Bucket, list[int]] = {}
        for index, entry in enumerate(self.pictures):
            if entry.prior == prior:
                members.setdefault(entry.placement.bucket, []).append(index)
        return _Deck(members, self.batch, self.gone, self.seed, name)
