"""Noise -> latents, as a generator of steps with classifier-free guidance; closed, it stops where it is.

The first noise, and that of steps which draw their own, is drawn on the CPU, so that a seed gives the same picture on every
device and beside any others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from trainer.recipe import Sampler
from trainer.sdxl.base import Base
from trainer.sdxl.samplers import clean, scheduler_for, step_noise
from trainer.sdxl.text import TextFeatures


@dataclass(frozen=True)
class Sampling:
    """How pictures are sampled; sizes in pixels, one seed per picture."""

    width: int
    height: int
    steps: int
    cfg: float
    seeds: tuple[int, ...]
    sampler: Sampler = "Euler"


@dataclass(frozen=True)
class Step:
    """Scaled latents (n, 4, h/8, w/8), float32, after a step, and what they would be without their noise."""

    latents: torch.Tensor
    clean: torch.Tensor


def first_noise(seeds: Sequence[int], height: int, width: int) -> torch.Tensor:
    """Standard normal (n, 4, height/8, width/8), each row from its own seed."""
    shape = (4, height // 8, width // 8)
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def sample(base: Base, prompt: TextFeatures, negative: TextFeatures, how: Sampling) -> Iterator[torch.Tensor]:
    """Yield the scaled latents (n, 4, h/8, w/8), float32, after each step."""
    return (step.latents for step in steps(base, prompt, negative, how))


@torch.no_grad()
def steps(base: Base, prompt: TextFeatures, negative: TextFeatures, how: Sampling) -> Iterator[Step]:
    """Yield after each of `how.steps` steps."""
    scheduler = scheduler_for(how.sampler, base.scheduler, how.steps, base.device)
    latents = first_noise(how.seeds, how.height, how.width).to(base.device) * scheduler.init_noise_sigma
    guided = how.cfg > 1
    context = torch.cat([negative.context, prompt.context]) if guided else prompt.context
    pooled = torch.cat([negative.pooled, prompt.pooled]) if guided else prompt.pooled
    ids = torch.tensor([[how.height, how.width, 0, 0, how.height, how.width]] * len(pooled), dtype=torch.float32)
    conditions = {"text_embeds": pooled, "time_ids": ids.to(base.device)}
    for number, time in enumerate(scheduler.timesteps, start=1):
        rows = torch.cat([latents, latents]) if guided else latents
        rows = scheduler.scale_model_input(rows, time).to(base.unet.dtype)
        made = base.unet(rows, time, context, added_cond_kwargs=conditions).sample.float()
        if guided:
            without, with_prompt = made.chunk(2)
            made = without + how.cfg * (with_prompt - without)
        stepped = scheduler.step(made, time, latents, **step_noise(how.sampler, how.seeds, number))
        latents = stepped.prev_sample
        if number % scheduler.order == 0 or number == len(scheduler.timesteps):  # Heun's steps are two, but for the last
            yield Step(latents, clean(scheduler, stepped))


def to_picture(pixels: torch.Tensor) -> Image.Image:
    """Pixels (3, h, w) in -1 … 1 as an 8-bit RGB picture."""
    values = ((pixels.float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(values.permute(1, 2, 0).numpy())
