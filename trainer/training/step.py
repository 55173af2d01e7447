"""One step of a training: micro-batches in, gradients, a step of the optimizer, and what there is to tell of it.

Knows no run folder and no checkpoint: when a step is taken, and what follows it, is the loop's.
"""

from __future__ import annotations

import math

import torch

from trainer.sdxl.device import filled
from trainer.training import diffusion, optim
from trainer.training.batch import Batch, drawn
from trainer.training.events import Stepped
from trainer.training.guard import Unstable
from trainer.training.state import Training

SMOOTHING = 0.98
"""Share of the old value in the smoothed loss."""


def take_step(training: Training) -> Stepped:
    """One step of the optimizer. Raises `Unstable`."""
    settings, optimizer, steps = training.run.settings, training.optimizer, training.plan.steps
    training.pace.start()
    optim.set_rates(optimizer, settings, training.step, steps, training.guard.factor)
    value, gradient, gradients = _gradient(training)
    optimizer.step()
    if training.scale:
        training.scale.took_step()
    training.step += 1
    if training.average:
        training.average.follow(training.adapter, training.step)
    training.smoothed = _smoothed(training.smoothed, value, training.step)
    training.guard.watch(training.step, training.smoothed)
    speed = training.pace.tick()
    return Stepped(
        step=training.step,
        steps=steps,
        loss=value,
        smoothed=training.smoothed,
        rates={str(part): rate for part, rate in optim.part_rates(optimizer).items()},
        gradient=gradient,
        gradients=gradients,
        change={part: training.adapter.size_of_change(part) for part in training.adapter.layers},
        speed=speed,
        eta=(steps - training.step) / speed,
        memory=torch.cuda.max_memory_allocated(training.base.device) if training.base.device.type == "cuda" else 0,
    )


def _smoothed(before: float, value: float, step: int) -> float:
    """The loss of late: the mean of the first steps, then a running average over some 1 / (1 - SMOOTHING)."""
    share = max(1 - SMOOTHING, 1 / step)
    return value if math.isnan(before) else before + share * (value - before)


def spilt(training: Training) -> str | None:
    """A sentence if the last step shows that the card has run over into the computer's memory."""
    if not training.spill:
        return None
    bucket = training.plan.pictures[training.plan.indices(training.micros(training.step - 1)[0])[0]].placement.bucket
    return training.spill.watch(training.pace.last, *filled(training.base.device), bucket.width * bucket.height)


def predicted(training: Training, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """What the U-Net answers, and what it should, (n, 4, h, w)."""
    base, abar_t = training.base, training.abar[batch.times]
    text = training.texts.read(batch.captions).masked(batch.keep.to(base.device))
    answer = base.unet(
        diffusion.add_noise(batch.clean, batch.shown, abar_t).to(base.device, base.unet.dtype),
        batch.times.to(base.device),
        text.context,
        added_cond_kwargs={"text_embeds": text.pooled, "time_ids": batch.sizes.to(base.device)},
    ).sample
    return answer, diffusion.target(batch.clean, batch.noise, abar_t, base.prediction).to(base.device)


def _loss(training: Training, batch: Batch) -> torch.Tensor:
    """The loss of a micro-batch."""
    settings, prediction = training.run.settings, training.base.prediction
    answer, wanted = predicted(training, batch)
    abar_t = training.abar[batch.times]
    weight = (diffusion.weights(abar_t, settings, prediction) * batch.weights).to(answer.device)
    mask = None if batch.mask is None else batch.mask.to(answer.device)
    if settings.loss == "mse":
        return diffusion.loss(answer, wanted, weight, mask)
    width = diffusion.huber_width(settings.huber_c, abar_t, settings.huber_schedule).to(answer.device)
    return diffusion.huber_loss(answer, wanted, weight, width, mask)


def _gradient(training: Training) -> tuple[float, float, dict[str, float]]:
    """The loss of the next step, the length of its gradient, which is left cut in the matrices, and the parts' own lengths.

    Where a scaled gradient overflows, the same pictures are seen again with a lower scale: no step is lost. Raises
    `Unstable` if the loss, or the gradient at any scale, is not a number.
    """
    optimizer, scale = training.optimizer, training.scale
    matrices = [matrix for group in optimizer.param_groups for matrix in group["params"]]
    while True:
        value = _backward(training)
        if scale:
            scale.undo(matrices)
        training.processes.average([matrix.grad for matrix in matrices if matrix.grad is not None])
        optim.rest(optimizer)
        lengths: dict[str, float] = {part: _length(training.adapter.parameters(part)) for part in training.adapter.layers}
        length = torch.nn.utils.clip_grad_norm_(matrices, training.run.settings.max_grad_norm).item()
        if math.isfinite(value) and math.isfinite(length):
            return value, length, lengths
        if not (scale and math.isfinite(value) and scale.lower()):
            raise Unstable(f"at step {training.step + 1} its loss is not a number")


def _backward(training: Training) -> float:
    """Put the gradient of the next step's mean loss into the matrices, times the loss scale; the mean loss."""
    training.optimizer.zero_grad(set_to_none=True)
    several, total = training.run.settings.accumulation, torch.zeros(1, device=training.base.device)
    for micro in training.micros(training.step):
        loss = _loss(training, drawn(training, micro)) / several
        (loss * training.scale.value if training.scale else loss).backward()
        total += loss.detach()
    training.processes.average([total])
    return total.item()


def _length(matrices: list[torch.nn.Parameter]) -> float:
    """The length of the matrices' gradients together."""
    return torch.nn.utils.get_total_norm([matrix.grad for matrix in matrices if matrix.grad is not None]).item()
