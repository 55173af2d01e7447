"""Whether a training fits, before it starts: the ladder of what can be done about memory, and the least slow rung that fits.

A rung is how the base is kept and what is computed twice. Rungs that keep the base as it is come before those that round it
to 8 and then to 4 bits; within these, they are ordered by predicted time, and a rung that needs no less than one before it is
left out. What changes the task (text encoders left alone, smaller pictures) is never chosen here, only offered in a sentence.
Knows no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import get_args

from trainer.bases.source import Facts
from trainer.errors import RunError
from trainer.lora.keys import COMPONENTS, Component
from trainer.lora.shape import Shape
from trainer.sdxl.counts import Counts, Subject, configs_of
from trainer.sdxl.memory import DrawingNeeds, Keeping, Needs, drawing_sizes, step_count, training_needs, way_to_draw
from trainer.settings import Precision, Recompute, Settings
from trainer.training.machine import Machine
from trainer.training.moments import remembered
from trainer.training.plan import Plan

_KEPT = {"fp32": "in fp32", "bf16": "in bf16", "fp16": "in fp16", "int8": "on an 8-bit base", "nf4": "on an NF4 base"}
_RECOMPUTED = {"none": "without recompute", "selective": "with selective recompute", "full": "with full recompute"}
_ROUNDING: tuple[Precision, ...] = ("int8", "nf4")
"""How the base may be rounded where it must be, the gentler way first."""
SMALLEST = 512
"""Smallest resolution that is offered: below it SDXL draws badly."""


@dataclass(frozen=True)
class Rung:
    """One way to train."""

    precision: Precision
    recompute: Recompute

    def __str__(self) -> str:
        return f"{_KEPT[self.precision]} {_RECOMPUTED[self.recompute]}"


@dataclass(frozen=True)
class Option:
    """A rung with what it is predicted to need (bytes) and to take (seconds for a step)."""

    rung: Rung
    needs: Needs
    seconds: float


@dataclass(frozen=True)
class Job:
    """A training as far as memory and time go."""

    settings: Settings
    configs: Path
    cache: Path
    largest: int
    """Pixels of the largest bucket."""
    mean: float
    """Pixels of the mean picture."""

    @classmethod
    def of(cls, settings: Settings, plan: Plan, facts: Facts, cache: Path) -> Job:
        """`cache` is the home's cache folder."""
        areas = [entry.placement.bucket.width * entry.placement.bucket.height for entry in plan.pictures]
        return cls(settings, configs_of(facts), cache / "counts", max(areas), sum(areas) / len(areas))

    @property
    def trained(self) -> tuple[Component, ...]:
        """The parts of the base that are trained."""
        settings = self.settings
        rates = {"unet": settings.unet_lr, "te1": settings.te1_lr, "te2": settings.te2_lr}
        return tuple(component for component in COMPONENTS if rates[component] > 0)

    @property
    def text_once(self) -> bool:
        """Whether captions are encoded before the first step, and never again."""
        return self.settings.cache_text and self.trained == ("unet",)

    def counts(self, machine: Machine, precision: Precision = "bf16") -> Counts:
        """What it takes on a machine, where a base that is kept so is computed in 16 or in 32 bits."""
        shape = replace(Shape.of(self.settings), alpha=1.0, rslora=False)  # which take no memory
        half = machine.native != "fp32" and precision != "fp32"
        return _counts(Subject(self.configs, self.trained, shape, self.settings.resolution, half, machine.fused), self.cache)

    def option(self, rung: Rung, machine: Machine) -> Option:
        """What a rung would need and take."""
        settings, counts = self.settings, self.counts(machine, rung.precision)
        own, keeping = settings.resolution**2, self._keeping(rung, machine)
        needs = training_needs(counts, rung.precision, rung.recompute, settings.batch * self.largest / own, keeping)
        step = step_count(counts, rung.precision, rung.recompute, settings.batch * self.mean / own, self.text_once)
        return Option(rung, needs, settings.accumulation * machine.seconds(step, single=not counts.subject.half))

    def loading(self, rung: Rung, machine: Machine) -> int:
        """Bytes of the computer's own memory that the base takes, in full, before it is packed or brought to a card."""
        counts = self.counts(machine, rung.precision)
        plain: Precision = rung.precision if rung.precision not in _ROUNDING else "bf16" if counts.subject.half else "fp32"
        return sum(counts.weights(plain).values())

    def _keeping(self, rung: Rung, machine: Machine) -> Keeping:
        settings, packed = self.settings, rung.precision in _ROUNDING
        trained = self.counts(machine, rung.precision).matrices().values()
        return Keeping(
            moments=remembered(settings.optimizer, chain(*trained)),
            average=settings.ema > 0,
            swapped=settings.optimizer.startswith("schedulefree"),
            text_once=self.text_once,
            text_away=self.text_once and machine.card,
            loading=self.loading(rung, machine) if packed and not machine.card else 0,
        )

    def rungs(self, native: Precision) -> list[Rung]:
        """What the settings leave to choose from."""
        asked = self.settings
        precisions: list[Precision] = [native, *_ROUNDING] if asked.precision == "auto" else [asked.precision]
        hows: list[Recompute] = list(get_args(Recompute)) if asked.recompute == "auto" else [asked.recompute]
        return [Rung(precision, how) for precision in precisions for how in hows]


@dataclass(frozen=True)
class Fit:
    """The rung to take, and what is left to say of it."""

    job: Job
    machine: Machine
    chosen: Option
    fits: bool

    @cached_property
    def ladder(self) -> tuple[Option, ...]:
        """Every rung worth taking, the largest and most exact first."""
        return _ladder(self.job, self.machine)

    @property
    def above(self) -> Option | None:
        """The next rung up: more exact or faster, for more memory."""
        if self.chosen.rung == self.job.rungs(self.machine.native)[0]:
            return None  # told without counting the others
        above = [option for option in self.ladder if option.needs.total > self.chosen.needs.total]
        return above[-1] if above else None

    @property
    def below(self) -> Option | None:
        """The next rung down, for less memory."""
        below = [option for option in self.ladder if option.needs.total < self.chosen.needs.total]
        return below[0] if below else None

    @property
    def sentence(self) -> str:
        """Whether it fits, which rung it is, and why or what to do."""
        needs, free = self.chosen.needs.total, self.machine.free
        if not self.fits:
            advice = _advice(self.job, self.machine, self.chosen.rung)
            verdict = "Does not fit" if self.chosen.needs.peak > free else "May not fit"
            return f"{verdict}: {self.chosen.rung} it needs {size(needs)}, and {size(free)} are free. {advice}"
        why = f"; {self.above.rung} it would need {size(self.above.needs.total)}" if self.above else ", the fastest way"
        return f"Fits: {size(needs)} of {size(free)} free, {self.chosen.rung}{why}."

    @property
    def remark(self) -> str | None:
        """What the computer's own memory has to do with it, where that is known to be too little to load the base."""
        ram, loading = self.machine.ram, self.job.loading(self.chosen.rung, self.machine)
        if ram is None or loading <= ram:
            return None
        return (
            f"Loading the base takes up to {size(loading)} of the computer's own memory for a while, and {size(ram)} are free: "
            "close other programs, or it may take very long."
        )


def fit(job: Job, machine: Machine) -> Fit:
    """The least slow rung that fits, or the smallest one if none does."""
    first = job.option(job.rungs(machine.native)[0], machine)
    if first.needs.total <= machine.free:
        return Fit(job, machine, first, True)  # nothing is faster: the others need not be counted
    ladder = _ladder(job, machine)
    fitting = next((option for option in ladder if option.needs.total <= machine.free), None)
    return Fit(job, machine, fitting or ladder[-1], fitting is not None)


def choose(job: Job, machine: Machine) -> Fit:
    """The fit that a training starts with. Raises `RunError` where memory cannot be enough; a person who has chosen both
    precision and recompute is believed.
    """
    found = fit(job, machine)
    left_to_us = "auto" in (job.settings.precision, job.settings.recompute)
    if left_to_us and found.chosen.needs.peak > machine.free:
        raise RunError(found.sentence)
    return found


def lower(found: Fit) -> Fit | None:
    """One step down from the way that was taken, for when memory has run out in it all the same; see `below`."""
    return below(found.chosen.rung, found.job, found.machine)


def below(taken: Rung, job: Job, machine: Machine) -> Fit | None:
    """The next way down from `taken` that the settings leave, if there is one.

    What computes more twice comes first, as it changes no numbers: all that counts is whether a step itself then takes less,
    for predictions have just been proved wrong. Then comes a base that is rounded more, if that makes the whole smaller.
    """
    before = job.option(taken, machine)
    rungs = job.rungs(machine.native)
    precisions = list(dict.fromkeys(rung.precision for rung in rungs))
    alike = [job.option(rung, machine) for rung in rungs if rung.precision == taken.precision]
    options = sorted((each for each in alike if each.needs.step < before.needs.step), key=lambda each: -each.needs.step)
    if not options and taken.precision in precisions:
        rounder = precisions[precisions.index(taken.precision) + 1 :]
        options = [each for each in _ladder(job, machine) if each.rung.precision in rounder]
        options = [each for each in options if each.needs.total < before.needs.total]
    return Fit(job, machine, options[0], options[0].needs.total <= machine.free) if options else None


def draw_fit(counts: Counts, free: int, native: Precision) -> tuple[DrawingNeeds, bool]:
    """The fastest way to draw with LoRAs that fits into `free` bytes, or the smallest; and whether it fits."""
    card = native != "fp32"
    return way_to_draw(drawing_sizes(counts, "fp16" if card else "fp32"), free, card)


def size(of: float) -> str:
    """Bytes for a person."""
    return f"{of / 2**30:.1f} GiB" if of >= 2**29 else f"{of / 2**20:.0f} MiB"


@lru_cache(maxsize=8)
def _counts(subject: Subject, folder: Path) -> Counts:
    return Counts(subject, folder)


def _ladder(job: Job, machine: Machine) -> tuple[Option, ...]:
    rungs = job.rungs(machine.native)
    order = {precision: number for number, precision in enumerate(dict.fromkeys(rung.precision for rung in rungs))}
    options = sorted(
        (job.option(rung, machine) for rung in rungs), key=lambda option: (order[option.rung.precision], option.seconds)
    )
    worth: list[Option] = []
    for option in options:
        if not worth or option.needs.total < worth[-1].needs.total:
            worth.append(option)
    return tuple(worth)


def _advice(job: Job, machine: Machine, rung: Rung) -> str:
    """What a person could do, as a sentence: the first change that is enough."""
    freed = replace(job, settings=job.settings.model_copy(update={"precision": "auto", "recompute": "auto"}))
    if freed != job and (found := fit(freed, machine)).fits:
        return f"With precision and recompute at auto it would fit, {found.chosen.rung}."
    for change, smaller in _smaller(job):
        needs = smaller.option(rung, machine).needs.total
        if needs <= machine.free:
            return f"With {change} it would need {size(needs)}."
    where = "the card" if machine.native != "fp32" else "memory"
    return f"Close other programs that use {where}, or train on a machine with more."


def _smaller(job: Job) -> Iterator[tuple[str, Job]]:
    """Changes that make a training smaller and its result another, the gentlest first."""
    one = job.settings.model_copy(update={"batch": 1})
    also = "batch 1 and " if job.settings.batch > 1 else ""
    if also:
        yield "batch 1", replace(job, settings=one)
    if one.unet_lr and (one.te1_lr or one.te2_lr):
        without = one.model_copy(update={"te1_lr": 0.0, "te2_lr": 0.0})
        yield f"{also}te1_lr and te2_lr at 0, which leaves the text encoders alone,", replace(job, settings=without)
    for resolution in range((one.resolution - 1) // 64 * 64, SMALLEST - 1, -64):
        share = (resolution / one.resolution) ** 2
        yield f"{also}resolution {resolution}", replace(job, settings=one, largest=int(job.largest * share))
