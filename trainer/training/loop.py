"""The training loop: a run in, events out. The only loop there is.

Every random draw comes from (seed, step, picture): there is no generator whose state could be lost, so a resumed run
takes the same steps as one left alone, and drawing samples cannot change them.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from trainer.bases import hub
from trainer.bases.fingerprint import origin_of
from trainer.bases.source import Facts, facts_of
from trainer.data.cache import Encoded as EncodedPicture
from trainer.data.cache import LatentCache
from trainer.data.captions import with_trigger
from trainer.data.dataset import Dataset
from trainer.errors import PictureError, RunError
from trainer.home import Home
from trainer.lora import file
from trainer.lora.adapter import Adapter
from trainer.sdxl.base import Base, load_base, located
from trainer.sdxl.device import best_device, out_of_memory, training_dtype
from trainer.sdxl.quantise import packing_of
from trainer.sdxl.recompute import recompute
from trainer.sdxl.text import encode_text
from trainer.settings import Recompute
from trainer.training import checkpoint, diffusion, metadata, optim
from trainer.training.events import (
    Encoded,
    Event,
    Fetched,
    Finished,
    Resumed,
    Saved,
    Started,
    Stepped,
    Stopped,
    Warned,
)
from trainer.training.fit import Fit, Job, choose
from trainer.training.machine import machine_of
from trainer.training.plan import Plan, seed_of
from trainer.training.progress import fold
from trainer.training.run import Run
from trainer.training.samples import draw_samples

SMOOTHING = 0.98
"""Share of the old value in the smoothed loss."""

MOST_STEP_EVENTS = 4000
"""Longer runs tell of every second, third … step, so that their log stays small."""


@dataclass
class _Training:
    """What a training under way consists of."""

    run: Run
    base: Base
    adapter: Adapter
    optimizer: torch.optim.AdamW
    plan: Plan
    encoded: list[EncodedPicture]
    abar: torch.Tensor
    cache: Path
    """Where it is remembered what the base is known by."""
    recompute: Recompute
    scale: optim.LossScale | None = None
    """Where the gradients are float16."""
    step: int = 0
    smoothed: float = math.nan
    earlier: float = 0.0
    """Seconds that the run took before it was resumed."""
    began: float = field(default_factory=time.monotonic)
    ticks: deque[float] = field(default_factory=lambda: deque(maxlen=30))

    @property
    def seconds(self) -> float:
        """Seconds of training, over all resumptions."""
        return self.earlier + time.monotonic() - self.began


def train(run: Run, home: Home) -> Iterator[Event]:
    """Train `run` to its end, from its newest checkpoint if it has one, and yield what happens.

    Raises `ImpastoError`; the LoRA and the checkpoints on disk are whole at any moment.
    """
    try:
        yield from _trained(run, home)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise RunError(
            "Memory ran out in the training; its last checkpoint is kept. Close other programs that use memory and resume it. "
            "If that is not enough, start again with a smaller batch or resolution, or with recompute full."
        ) from None


def _trained(run: Run, home: Home) -> Iterator[Event]:
    before = fold(run.events())
    if before.state == "finished" and run.lora.is_file():
        yield Finished(step=before.step, lora=run.lora.name, seconds=before.seconds)
        return
    done = checkpoint.newest(run.checkpoints)
    dataset = Dataset.open(run.dataset).for_training()
    plan = Plan.of(dataset, run.settings)
    for sentence in dataset.refused:
        yield Warned(message=f"Left out: {sentence}")
    facts = (yield from _located(run.base)).overruled(run.settings.family, run.settings.prediction)
    device = best_device()
    found = _fit(run, plan, facts, device, home)
    if not found.fits:
        yield Warned(message=found.sentence)
    precision = found.chosen.rung.precision
    base = load_base(facts, device, training_dtype(device, precision), packing_of(precision))
    training = yield from _prepare(run, base, plan, found, home)
    if done:
        checkpoint.restore(done, training.adapter, training.optimizer)
        training.step, training.smoothed, training.earlier = done.step, done.smoothed, done.seconds
        if training.scale and done.scale:
            training.scale = done.scale
        yield Resumed(step=done.step)
    elif run.settings.sample_every:
        yield from draw_samples(run, training.base, training.plan, training.step)
    every = max(1, training.plan.steps // MOST_STEP_EVENTS)
    while training.step < training.plan.steps and not run.asked_to_stop:
        event = _take_step(training)
        if training.step % every == 0 or training.step == training.plan.steps:
            yield event
        last = training.step == training.plan.steps
        if training.step % run.settings.checkpoint_every == 0 or last:
            yield _save(training)
        if run.settings.sample_every and (training.step % run.settings.sample_every == 0 or last):
            yield from draw_samples(run, training.base, training.plan, training.step)
    if training.step < training.plan.steps:
        yield _save(training)
        _write_lora(training)
        yield Stopped(step=training.step, lora=run.lora.name, seconds=training.seconds)
    else:
        _write_lora(training)
        yield Finished(step=training.step, lora=run.lora.name, seconds=training.seconds)


def _located(source: str) -> Generator[Event, None, Facts]:
    """The facts about a base that is on this disk; a Hub id is fetched, which is told of once a second."""
    facts, told = facts_of(source), 0.0
    if facts.place:
        return facts
    for done, total in hub.fetching(source):
        if done == total or time.monotonic() - told >= 1:
            told = time.monotonic()
            yield Fetched(done=done, total=total)
    return located(source)


def _fit(run: Run, plan: Plan, facts: Facts, device: torch.device, home: Home) -> Fit:
    """How this machine takes the run. One that is gone on with keeps its precision, so that its steps stay the same."""
    taken = [event.precision for event in run.events() if isinstance(event, Started) and event.precision]
    settings = run.settings.model_copy(update={"precision": taken[0]}) if taken else run.settings
    job, machine = Job.of(settings, plan, facts, home.cache), machine_of(device)
    try:
        return choose(job, machine)
    except RunError as error:
        if not taken:
            raise
        raise RunError(f"{error} What has begun keeps its settings: resume it with more memory, or start again.") from None


def _prepare(run: Run, base: Base, plan: Plan, found: Fit, home: Home) -> Generator[Event, None, _Training]:
    """Encode the pictures, put the LoRA in, say what will be done."""
    settings = run.settings
    plan, encoded = yield from _encode(run, base, plan, home)
    parts = {component: base.parts[component] for component in optim.rates(settings)}
    adapter = Adapter.inject(parts, settings.rank, settings.alpha, settings.seed)
    how = found.chosen.rung.recompute
    recompute(base.parts, how)
    abar = diffusion.alphas_cumprod(base.scheduler)
    yield Started(
        steps=plan.steps,
        pictures=len(plan.pictures),
        base=run.base,
        device=str(base.device),
        precision=base.precision,
        recompute=how,
        fit=found.sentence,
        buckets=plan.buckets,
    )
    scale = optim.LossScale() if base.unet.dtype == torch.float16 else None
    return _Training(run, base, adapter, optim.make_optimizer(adapter, settings), plan, encoded, abar, home.cache, how, scale)


def _encode(run: Run, base: Base, plan: Plan, home: Home) -> Generator[Event, None, tuple[Plan, list[EncodedPicture]]]:
    """Every picture's latents; a picture that cannot be decoded is told of and left out."""
    cache = LatentCache(home.cache / "latents", base.vae_fingerprint, base.encode)
    encoded, refused = [], {}
    for index, (picture, placement) in enumerate(plan.pictures):
        try:
            encoded.append(cache.get(picture, placement))
        except PictureError as error:
            refused[index] = str(error)
            yield Warned(message=f"Left out: {error}")
        yield Encoded(done=index + 1, total=len(plan.pictures))
    if not encoded:
        raise RunError(f"There is no picture to train on in {run.dataset}. {next(iter(refused.values()), '')}".strip())
    return plan.without(set(refused)), encoded


def _loss(training: _Training, step: int) -> torch.Tensor:
    """The loss of one step's pictures."""
    base, settings = training.base, training.run.settings
    clean, noise, times, keep, captions, ids = [], [], [], [], [], []
    for place, index in enumerate(training.plan.indices(step)):
        generator = torch.Generator().manual_seed(seed_of(settings.seed, step, place, index))
        entry = training.encoded[index]
        clean.append(entry.mean + entry.deviation * torch.randn(entry.mean.shape, generator=generator))
        offset = settings.noise_offset * torch.randn(4, 1, 1, generator=generator)
        noise.append(torch.randn(entry.mean.shape, generator=generator) + offset)
        times.append(torch.randint(len(training.abar), (), generator=generator))
        keep.append(torch.rand((), generator=generator) >= settings.caption_dropout)
        captions.append(with_trigger(entry.picture.caption, settings.trigger))
        ids.append(torch.tensor(entry.placement.time_ids, dtype=torch.float32))
    x0, epsilon, t = torch.stack(clean), torch.stack(noise), torch.stack(times)
    abar_t = training.abar[t]
    text = encode_text(base, captions).masked(torch.stack(keep).to(base.device))
    answer = base.unet(
        diffusion.add_noise(x0, epsilon, abar_t).to(base.device, base.unet.dtype),
        t.to(base.device),
        text.context,
        added_cond_kwargs={"text_embeds": text.pooled, "time_ids": torch.stack(ids).to(base.device)},
    ).sample
    wanted = diffusion.target(x0, epsilon, abar_t, base.prediction).to(base.device)
    weight = diffusion.min_snr_weight(diffusion.snr(abar_t), settings.min_snr_gamma, base.prediction).to(base.device)
    return diffusion.loss(answer, wanted, weight)


def _gradient(training: _Training) -> tuple[float, float]:
    """The loss of the next step and the length of its gradient, which is left cut in the matrices.

    Where a scaled gradient overflows, the same pictures are seen again with a lower scale: no step is lost. Raises
    `RunError` if the loss, or the gradient at any scale, is not a number.
    """
    optimizer, scale = training.optimizer, training.scale
    matrices = [matrix for group in optimizer.param_groups for matrix in group["params"]]
    while True:
        loss = _loss(training, training.step)
        optimizer.zero_grad(set_to_none=True)
        (loss * scale.value if scale else loss).backward()
        if scale:
            scale.undo(matrices)
        length = torch.nn.utils.clip_grad_norm_(matrices, training.run.settings.max_grad_norm).item()
        value = loss.item()
        if math.isfinite(value) and math.isfinite(length):
            return value, length
        if not (scale and math.isfinite(value) and scale.lower()):
            raise RunError(
                f"The training became unstable at step {training.step + 1}: its loss is not a number. The last checkpoint is "
                "kept; start again with lower learning rates."
            )


def _take_step(training: _Training) -> Stepped:
    """One step of the optimizer. Raises `RunError` if the loss is no longer a number."""
    settings, optimizer, steps = training.run.settings, training.optimizer, training.plan.steps
    optim.set_rates(optimizer, optim.curve(training.step, steps, settings.warmup))
    value, gradient = _gradient(training)
    optimizer.step()
    if training.scale:
        training.scale.took_step()
    training.step += 1
    old = training.smoothed
    training.smoothed = value if math.isnan(old) else SMOOTHING * old + (1 - SMOOTHING) * value
    training.ticks.append(time.monotonic())
    ticks = training.ticks
    speed = (len(ticks) - 1) / (ticks[-1] - ticks[0]) if len(ticks) > 1 else 1 / max(1e-9, ticks[0] - training.began)
    return Stepped(
        step=training.step,
        steps=steps,
        loss=value,
        smoothed=training.smoothed,
        rates={part: group["lr"] for part, group in zip(training.adapter.layers, optimizer.param_groups, strict=True)},
        gradient=gradient,
        change={part: training.adapter.size_of_change(part) for part in training.adapter.layers},
        speed=speed,
        eta=(steps - training.step) / speed,
        memory=torch.cuda.max_memory_allocated() if training.base.device.type == "cuda" else 0,
    )


def _save(training: _Training) -> Saved:
    """A checkpoint of this moment."""
    run = training.run
    folder = checkpoint.write(
        run.checkpoints,
        training.step,
        training.smoothed,
        training.seconds,
        training.adapter,
        training.optimizer,
        training.scale,
    )
    return Saved(step=training.step, path=folder.relative_to(run.folder).as_posix())


def _write_lora(training: _Training) -> None:
    """The LoRA as it is now, in the form that every tool reads."""
    run, base = training.run, training.base
    texts = metadata.describe(run, training.plan, origin_of(base.facts, training.cache), training.step)
    texts |= metadata.describe_rung(base.precision, training.recompute, str(base.unet.dtype).removeprefix("torch."))
    file.write(run.lora, training.adapter.factors(), texts)
