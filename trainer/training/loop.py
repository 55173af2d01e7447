"""The training loop: a run in, events out. The only loop there is.

Every random draw comes from (seed, step, picture): there is no generator whose state could be lost, so a resumed run
takes the same steps as one left alone, and drawing samples cannot change them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, replace
from random import Random

import torch

from trainer.bases import hub
from trainer.bases.fingerprint import origin_of
from trainer.bases.source import Facts, facts_of
from trainer.data.cache import Encoded as EncodedPicture
from trainer.data.cache import LatentCache
from trainer.data.captions import varied
from trainer.data.dataset import Dataset
from trainer.errors import PictureError, RunError, StorageError
from trainer.home import Home
from trainer.lora import file, sidecar
from trainer.sdxl.base import Base, load_base, located
from trainer.sdxl.device import best_device, out_of_memory, training_dtype
from trainer.sdxl.quantise import packing_of
from trainer.sdxl.recompute import recompute
from trainer.sdxl.text import encode_text
from trainer.training import checkpoint, diffusion, metadata, optim
from trainer.training.events import (
    Encoded,
    Event,
    Fetched,
    Finished,
    Resumed,
    Started,
    Stepped,
    Stopped,
    Warned,
)
from trainer.training.fit import Fit, Job, choose
from trainer.training.guard import Unstable
from trainer.training.machine import machine_of
from trainer.training.plan import Plan, seed_of
from trainer.training.progress import fold
from trainer.training.proof import Proof, prove
from trainer.training.run import Run
from trainer.training.samples import draw_samples
from trainer.training.state import Training, fresh, rewound, save

SMOOTHING = 0.98
"""Share of the old value in the smoothed loss."""

MOST_STEP_EVENTS = 4000
"""Longer runs tell of every second, third … step, so that their log stays small."""


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
    if before.state == "finished" and before.finished and run.lora.is_file():
        yield replace(before.finished, lora=run.lora.name, time=time.time())
        return
    optim.require(run.settings)
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
    if done := (yield from rewound(training)):
        training.earlier = done.seconds
        yield Resumed(step=done.step)
    elif run.settings.sample_every:
        yield from _samples(training)
    every = max(1, training.plan.steps // MOST_STEP_EVENTS)
    if training.step < training.plan.steps:
        checkpoint.require_room(run.folder, training.adapter)
    while training.step < training.plan.steps and not run.asked_to_stop and not training.guard.spent:
        try:
            event = _take_step(training)
        except Unstable as trouble:
            yield from _go_back(training, trouble)
            continue
        if training.step % every == 0 or training.step == training.plan.steps:
            yield event
        last = training.step == training.plan.steps
        if last or (training.step % run.settings.checkpoint_every == 0 and training.guard.calm):
            yield save(training)
            if not last:
                checkpoint.require_room(run.folder, training.adapter)
        if run.settings.sample_every and (training.step % run.settings.sample_every == 0 or last):
            yield from _samples(training)
    if training.step < training.plan.steps:
        if not training.guard.spent:
            yield save(training)
        yield from _write_lora(training)
        yield Stopped(step=training.step, lora=run.lora.name, seconds=training.seconds)
    else:
        proof = yield from _write_lora(training)
        yield Finished(step=training.step, lora=run.lora.name, seconds=training.seconds, **asdict(proof))


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


def _prepare(run: Run, base: Base, plan: Plan, found: Fit, home: Home) -> Generator[Event, None, Training]:
    """Encode the pictures, put the LoRA in, say what will be done."""
    settings = run.settings
    plan, encoded = yield from _encode(run, base, plan, home)
    adapter, optimizer = fresh(base, settings)
    how = found.chosen.rung.recompute
    recompute(base.parts, how)
    abar = diffusion.alphas_cumprod(base.scheduler)
    yield Started(
        steps=plan.steps,
        pictures=plan.distinct,
        base=run.base,
        device=str(base.device),
        precision=base.precision,
        recompute=how,
        fit=found.sentence,
        buckets=plan.buckets,
    )
    scale = optim.LossScale() if base.unet.dtype == torch.float16 else None
    return Training(run, base, adapter, optimizer, plan, encoded, abar, home.cache, how, scale)


def _encode(run: Run, base: Base, plan: Plan, home: Home) -> Generator[Event, None, tuple[Plan, list[EncodedPicture]]]:
    """Every picture's latents; a picture that cannot be decoded is told of and left out."""
    cache = LatentCache(home.cache / "latents", base.vae_fingerprint, base.encode)
    encoded: list[EncodedPicture] = []
    refused: dict[int, str] = {}
    for index, (picture, placement) in enumerate(plan.pictures):
        try:
            encoded.append(cache.get(picture, placement))
        except PictureError as error:
            if str(error) not in refused.values():
                yield Warned(message=f"Left out: {error}")
            refused[index] = str(error)
        yield Encoded(done=index + 1, total=len(plan.pictures))
    if not encoded:
        raise RunError(f"There is no picture to train on in {run.dataset}. {next(iter(refused.values()), '')}".strip())
    return plan.without(set(refused)), encoded


def _loss(training: Training, step: int) -> torch.Tensor:
    """The loss of one step's pictures."""
    base, settings = training.base, training.run.settings
    clean, noise, shown, times, keep, captions, ids = [], [], [], [], [], [], []
    for place, index in enumerate(training.plan.indices(step)):
        generator = torch.Generator().manual_seed(seed_of(settings.seed, step, place, index))
        entry = training.encoded[index]
        clean.append(entry.mean + entry.deviation * torch.randn(entry.mean.shape, generator=generator))
        offset = settings.noise_offset * torch.randn(4, 1, 1, generator=generator)
        drawn = torch.randn(entry.mean.shape, generator=generator) + offset
        times.append(diffusion.draw_time(settings, len(training.abar), generator))
        keep.append(torch.rand((), generator=generator) >= settings.caption_dropout)
        if settings.multires_noise:
            drawn = diffusion.pyramid_noise(drawn, settings.multires_noise, settings.multires_discount, generator)
        noise.append(drawn)
        shown.append(diffusion.perturbed(drawn, settings.ip_noise_gamma, generator) if settings.ip_noise_gamma else drawn)
        captions.append(varied(entry.picture.caption, settings, Random(seed_of(settings.seed, step, place, index, "caption"))))
        ids.append(torch.tensor(entry.placement.time_ids, dtype=torch.float32))
    x0, epsilon, t = torch.stack(clean), torch.stack(noise), torch.stack(times)
    abar_t = training.abar[t]
    text = encode_text(base, captions).masked(torch.stack(keep).to(base.device))
    answer = base.unet(
        diffusion.add_noise(x0, torch.stack(shown), abar_t).to(base.device, base.unet.dtype),
        t.to(base.device),
        text.context,
        added_cond_kwargs={"text_embeds": text.pooled, "time_ids": torch.stack(ids).to(base.device)},
    ).sample
    wanted = diffusion.target(x0, epsilon, abar_t, base.prediction).to(base.device)
    weight = diffusion.weights(abar_t, settings, base.prediction).to(base.device)
    if settings.loss == "mse":
        return diffusion.loss(answer, wanted, weight)
    width = diffusion.huber_width(settings.huber_c, abar_t, settings.huber_schedule).to(base.device)
    return diffusion.huber_loss(answer, wanted, weight, width)


def _gradient(training: Training) -> tuple[float, float]:
    """The loss of the next step and the length of its gradient, which is left cut in the matrices.

    Where a scaled gradient overflows, the same pictures are seen again with a lower scale: no step is lost. Raises
    `Unstable` if the loss, or the gradient at any scale, is not a number.
    """
    optimizer, scale = training.optimizer, training.scale
    matrices = [matrix for group in optimizer.param_groups for matrix in group["params"]]
    while True:
        loss = _loss(training, training.step)
        optimizer.zero_grad(set_to_none=True)
        (loss * scale.value if scale else loss).backward()
        if scale:
            scale.undo(matrices)
        optim.rest(optimizer)
        length = torch.nn.utils.clip_grad_norm_(matrices, training.run.settings.max_grad_norm).item()
        value = loss.item()
        if math.isfinite(value) and math.isfinite(length):
            return value, length
        if not (scale and math.isfinite(value) and scale.lower()):
            raise Unstable(f"at step {training.step + 1} its loss is not a number")


def _take_step(training: Training) -> Stepped:
    """One step of the optimizer. Raises `Unstable`."""
    settings, optimizer, steps = training.run.settings, training.optimizer, training.plan.steps
    factors = optim.factors(settings, training.step, steps)
    optim.set_rates(optimizer, [factor * training.guard.factor for factor in factors])
    value, gradient = _gradient(training)
    optimizer.step()
    if training.scale:
        training.scale.took_step()
    training.step += 1
    old = training.smoothed
    training.smoothed = value if math.isnan(old) else SMOOTHING * old + (1 - SMOOTHING) * value
    training.guard.watch(training.step, training.smoothed)
    training.ticks.append(time.monotonic())
    ticks = training.ticks
    speed = (len(ticks) - 1) / (ticks[-1] - ticks[0]) if len(ticks) > 1 else 1 / max(1e-9, ticks[0] - training.began)
    return Stepped(
        step=training.step,
        steps=steps,
        loss=value,
        smoothed=training.smoothed,
        rates=dict(zip(training.adapter.layers, optim.true_rates(optimizer), strict=True)),
        gradient=gradient,
        change={part: training.adapter.size_of_change(part) for part in training.adapter.layers},
        speed=speed,
        eta=(steps - training.step) / speed,
        memory=torch.cuda.max_memory_allocated() if training.base.device.type == "cuda" else 0,
    )


def _go_back(training: Training, trouble: Unstable) -> Iterator[Event]:
    """To the last good step with half the learning rates; the guard is spent if that has not helped three times.

    Raises `RunError` if nothing is left to keep then.
    """
    halvings = training.guard.halvings + 1
    yield from rewound(training)
    training.guard.halvings = halvings
    if not training.guard.spent:
        yield Warned(
            message=f"The training became unstable: {trouble}. It goes back to step {training.step}, "
            f"with its learning rates at {training.guard.factor:g} of what was asked."
        )
        yield Resumed(step=training.step)
        return
    sentence = f"The training stays unstable with ever lower learning rates: {trouble}."
    if not training.step:
        raise RunError(f"{sentence} There is no good step to keep: start again with lower learning rates.")
    yield Warned(message=f"{sentence} It stops, and what was learnt up to step {training.step} is kept.")


def _samples(training: Training) -> Iterator[Event]:
    """The sample pictures of this moment, drawn with what has been learnt."""
    with optim.averaged(training.optimizer):
        yield from draw_samples(training.run, training.base, training.plan, training.step)


def _write_lora(training: Training) -> Generator[Event, None, Proof]:
    """The LoRA as it is now, in the form that every tool reads, and what other programs show it by; then read back."""
    run, base = training.run, training.base
    told = run, training.plan, origin_of(base.facts, training.cache), training.step
    texts = metadata.describe(*told)
    texts |= metadata.describe_rung(base.precision, training.recompute, str(base.unet.dtype).removeprefix("torch."))
    with optim.averaged(training.optimizer):
        file.write(run.lora, training.adapter.factors(), texts)
        proof = prove(run.lora, training.adapter.factors(), base.parts)
    for sentence in proof.doubts if training.step else ():
        yield Warned(message=sentence)
    drawn = [sample.path for sample in fold(run.events()).samples]
    try:
        sidecar.write(run.lora, metadata.card(*told), run.folder / drawn[-1] if drawn else None)
    except StorageError as error:
        yield Warned(message=str(error))
    return proof
