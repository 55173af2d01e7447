"""What comes before the first step: the base is found and loaded, pictures and captions are encoded, the LoRA is put in.

A `Task` is what is known of a run before anything is loaded; it says in which ways memory may take the run.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from time import monotonic

import torch

from trainer.bases import hub
from trainer.bases.source import Facts, facts_of
from trainer.data.cache import Encoded as EncodedPicture
from trainer.data.cache import LatentCache
from trainer.data.dataset import Dataset, prior_pictures
from trainer.data.doubts import doubts
from trainer.data.features import TextCache
from trainer.data.shown import Shown
from trainer.errors import PictureError, RunError
from trainer.home import Home
from trainer.sdxl.base import Base, load_base, located
from trainer.sdxl.device import best_device, training_dtype
from trainer.sdxl.quantise import packing_of
from trainer.sdxl.recompute import recompute
from trainer.sdxl.text import encode_text
from trainer.training import checkpoint, diffusion, optim
from trainer.training.events import Encoded, Event, Fetched, Lowered, Started, Warned
from trainer.training.fit import Fit, Job, Rung, choose, lower
from trainer.training.machine import machine_of
from trainer.training.plan import Plan
from trainer.training.processes import Processes
from trainer.training.progress import fold
from trainer.training.record import Record
from trainer.training.run import Run
from trainer.training.shaping import require_same
from trainer.training.spill import Spill
from trainer.training.state import Training, fresh
from trainer.training.texts import Texts

TELLING = 0.5
"""Seconds between two events that tell of progress: a log of many pictures stays small."""


@dataclass(frozen=True)
class Task:
    """A run on this machine, before anything is loaded."""

    run: Run
    home: Home
    processes: Processes
    record: Record
    plan: Plan
    facts: Facts
    device: torch.device
    fit: Fit
    """The way in which it is to be trained."""

    def lower(self) -> Task:
        """The same in the next way that needs less memory. Raises `RunError` if there is none."""
        found = lower(self.fit)
        if self.processes.count > 1 or not found:
            raise RunError(
                "Memory ran out in the training; its last checkpoint is kept. Close other programs that use memory and resume "
                "it. If that is not enough, start again with a smaller batch or resolution, or with recompute full."
            )
        record = Record.read(self.run.folder) or self.record  # without pictures that could not be read
        return replace(self, fit=found, record=record, plan=record.plan(self.run.settings))

    @property
    def lowered(self) -> Lowered:
        """Word of the way that is taken now."""
        rung = self.fit.chosen.rung
        return Lowered(
            precision=rung.precision,
            recompute=rung.recompute,
            message=f"Memory ran out. The training goes on from its last checkpoint, {rung}.",
        )


def task_of(run: Run, home: Home) -> Generator[Event, None, Task]:
    """What `run` consists of, and how this machine takes it. Raises `ImpastoError`."""
    optim.require(run.settings)
    if done := checkpoint.newest(run.checkpoints):
        require_same(done.settings, run.settings, run.folder)
    processes = Processes.found()
    record = yield from _recorded(run, processes)
    plan = record.plan(run.settings, processes.count)
    facts = (yield from _located(run.base)).overruled(run.settings.family, run.settings.prediction)
    device = best_device()
    fits = processes.gathered(_fit(run, plan, facts, device, home))
    found = min(fits, key=lambda each: each.chosen.needs.total)  # all must take the same way
    for doubt in filter(None, (None if found.fits else found.sentence, found.remark)):
        yield Warned(message=doubt)
    return Task(run, home, processes, record, plan, facts, device, found)


def _recorded(run: Run, processes: Processes) -> Generator[Event, None, Record]:
    """The run's pictures as they were when it began, which is now if it has not begun; all processes have the same."""
    record = Record.read(run.folder) if processes.first else None
    if record:
        for sentence in record.differences():
            yield Warned(message=sentence)
    elif processes.first:
        dataset = Dataset.open(run.dataset).for_training()
        prior = prior_pictures(run.settings.prior_dataset)
        for sentence in (*dataset.refused, *(prior.refused if prior else ())):
            yield Warned(message=f"Left out: {sentence}")
        for sentence in doubts(dataset, run.settings):
            yield Warned(message=sentence)
        record = Record.of(dataset, prior)
        record.write(run.folder)
    agreed = processes.agree(record)
    assert agreed is not None
    return agreed


def _located(source: str) -> Generator[Event, None, Facts]:
    """The facts about a base that is on this disk; a Hub id is fetched, which is told of now and then."""
    facts, due = facts_of(source), _now_and_then()
    if facts.place:
        return facts
    for done, total in hub.fetching(source):
        if due(done == total):
            yield Fetched(done=done, total=total)
    return located(source)


def _fit(run: Run, plan: Plan, facts: Facts, device: torch.device, home: Home) -> Fit:
    """How this machine takes the run. One that is gone on with keeps its precision, so that its steps stay the same, unless a
    person asks for another; where memory has run out, it goes on in the way that needs less.
    """
    ways = [event for event in run.events() if isinstance(event, Started | Lowered) and event.precision]
    job, machine = Job.of(run.settings, plan, facts, home.cache), machine_of(device)
    if not ways:
        return choose(job, machine)
    taken = next((event for event in reversed(ways) if isinstance(event, Lowered)), ways[-1])
    if isinstance(taken, Lowered):
        option = job.option(Rung(taken.precision, taken.recompute), machine)
        return Fit(job, machine, option, option.needs.total <= machine.free)
    if run.settings.precision != "auto":
        return choose(job, machine)
    kept = replace(job, settings=run.settings.model_copy(update={"precision": taken.precision}))
    try:
        return replace(choose(kept, machine), job=job)
    except RunError as error:
        raise RunError(f"{error} What has begun keeps its settings: resume it with more memory, or start again.") from None


def prepared(task: Task) -> Generator[Event, None, Training]:
    """Load the base, encode the pictures, put the LoRA in, say what will be done. Raises `ImpastoError`."""
    run, rung, processes = task.run, task.fit.chosen.rung, task.processes
    base = load_base(task.facts, task.device, training_dtype(task.device, rung.precision), packing_of(rung.precision))
    if not processes.first:
        processes.agree(None)  # the first one encodes, and the others find it in the cache
    plan, encoded = yield from _encoded(task, base)
    held_out, _ = yield from _pictures(task, base, plan.held_out)
    texts = yield from _texts(task, base, [*plan.pictures, *plan.held_out])
    if processes.first:
        processes.agree(None)
    if processes.agree(plan) != plan:
        raise RunError("Pictures were deleted while they were encoded: resume the run.")
    adapter, optimizer, average = fresh(base, run.settings)
    recompute(base.parts, rung.recompute)
    yield Started(
        steps=plan.steps,
        pictures=plan.distinct,
        base=run.base,
        device=str(base.device),
        precision=base.precision,
        recompute=rung.recompute,
        fit=task.fit.sentence,
        buckets=plan.buckets,
    )
    return Training(
        run=run,
        base=base,
        adapter=adapter,
        optimizer=optimizer,
        average=average,
        plan=plan,
        encoded=encoded,
        held_out=list(held_out.values()),
        texts=texts,
        abar=diffusion.alphas_cumprod(base.scheduler),
        rung=rung,
        cache=task.home.cache,
        processes=processes,
        scale=optim.LossScale() if base.unet.dtype == torch.float16 else None,
        spill=Spill(task.fit.chosen.seconds, task.fit.job.mean) if task.device.type == "cuda" else None,
        validated=[(measured.step, measured.loss) for measured in fold(run.events()).validated],
    )


def _encoded(task: Task, base: Base) -> Generator[Event, None, tuple[Plan, dict[int, EncodedPicture]]]:
    """The latents of the plan's pictures by their index.

    Pictures that cannot be read are no part of a run that begins; in one that goes on others take their places.
    """
    plan = task.plan
    found, refused = yield from _pictures(task, base, plan.pictures)
    lost = set(range(len(plan.pictures))) - set(found)
    if lost and all(plan.pictures[index].prior for index in lost) and not any(plan.pictures[index].prior for index in found):
        raise RunError(f"There is no picture to train on in {task.run.settings.prior_dataset}. {refused[0]}")
    if all(plan.pictures[index].prior for index in found):
        raise RunError(f"There is no picture to train on in {task.run.dataset}. {refused[0] if refused else ''}".strip())
    if checkpoint.newest(task.run.checkpoints):
        return plan.skipping(lost), found
    if lost and task.processes.first:
        task.record.refusing(plan, lost).write(task.run.folder)
    return plan.without(lost), dict(enumerate(found.values()))


def _pictures(
    task: Task, base: Base, shown: Sequence[Shown]
) -> Generator[Event, None, tuple[dict[int, EncodedPicture], list[str]]]:
    """The latents of pictures by their index; those that cannot be decoded are left out, and told of in these sentences."""
    cache = LatentCache(task.home.cache / "latents", base.vae_fingerprint, base.encode, task.run.settings.masked_loss)
    found: dict[int, EncodedPicture] = {}
    refused: list[str] = []
    due = _now_and_then()
    for index, entry in enumerate(shown):
        try:
            found[index] = cache.get(entry)
        except PictureError as error:
            if str(error) not in refused:
                refused.append(str(error))
                yield Warned(message=f"Left out: {error}")
        if due(index + 1 == len(shown)):
            yield Encoded(done=index + 1, total=len(shown))
    return found, refused


def _now_and_then() -> Callable[[bool], bool]:
    """Whether it is time to tell of progress again: at the last of something, else twice a second."""
    told = 0.0

    def due(last: bool) -> bool:
        nonlocal told
        if not last and monotonic() - told < TELLING:
            return False
        told = monotonic()
        return True

    return due


def _texts(task: Task, base: Base, shown: Sequence[Shown]) -> Generator[Event, None, Texts]:
    """What the text encoders say: once, beforehand, where neither is trained. They leave the card then."""
    settings = task.run.settings
    if not settings.cache_text or settings.te1_lr or settings.te2_lr:
        return Texts(base, None)

    @torch.no_grad()
    def encode(caption: str) -> tuple[torch.Tensor, torch.Tensor]:
        features = encode_text(base, [caption])
        return features.context[0].cpu(), features.pooled[0].cpu()

    texts = Texts(base, TextCache(task.home.cache / "text", base.text_fingerprint, encode))
    captions = sorted({caption for entry in shown for caption in entry.variants(settings)})
    due = _now_and_then()
    for index, caption in enumerate(captions):
        texts.read([caption])
        if due(index + 1 == len(captions)):
            yield Encoded(done=index + 1, total=len(captions), what="captions")
    for encoder in (base.te1, base.te2):
        encoder.to("cpu")
    return texts
