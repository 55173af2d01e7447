"""A micro-batch: what the models see in one forward pass, and what they should answer. Nothing here is computed by a model.

Every random draw comes from (seed, micro-batch, place, picture): there is no generator whose state could be lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import torch

from trainer.data.cache import Encoded
from trainer.data.seeds import seed_of
from trainer.data.variety import varied
from trainer.settings import Settings
from trainer.training import diffusion
from trainer.training.state import Training


@dataclass(frozen=True)
class Batch:
    """n pictures of one bucket, on the CPU; latents are (n, 4, h, w)."""

    clean: torch.Tensor
    noise: torch.Tensor
    """What is asked for."""
    shown: torch.Tensor
    """What the latents are shown with: the same, but for input perturbation."""
    times: torch.Tensor
    """Time steps (n,), int64."""
    keep: torch.Tensor
    """Whether a picture is shown with its caption, (n,)."""
    captions: list[str]
    sizes: torch.Tensor
    """SDXL's size conditioning, (n, 6)."""
    weights: torch.Tensor
    """How much each picture counts, (n,)."""
    mask: torch.Tensor | None
    """How much each place counts, (n, 1, h, w); None if all count alike."""


@dataclass(frozen=True)
class _Row:
    """One picture of a batch."""

    clean: torch.Tensor
    noise: torch.Tensor
    shown: torch.Tensor
    time: torch.Tensor
    keep: torch.Tensor
    caption: str


def drawn(training: Training, micro: int) -> Batch:
    """The micro-batch of this number, counted over all steps and processes."""
    settings = training.run.settings
    indices = training.plan.indices(micro)
    rows = []
    for place, index in enumerate(indices):
        seed = settings.seed, micro, place, index
        generator = torch.Generator().manual_seed(seed_of(*seed))
        rows.append(_row(training, index, generator, Random(seed_of(*seed, "caption"))))
    return _stacked(rows, [training.encoded[index] for index in indices], settings)


def fixed(training: Training, index: int, time: int) -> Batch:
    """A picture that is held out, as it is measured each time: at this time step, with always the same noise."""
    entry = training.held_out[index]
    generator = torch.Generator().manual_seed(
        seed_of(training.run.settings.seed, "held out", entry.shown.picture.path.name, time)
    )
    noise = torch.randn(entry.mean.shape, generator=generator)
    caption = _caption(training, entry, Random(training.run.settings.seed))
    row = _Row(entry.mean, noise, noise, torch.tensor(time), torch.tensor(True), caption)
    return _stacked([row], [entry], training.run.settings)


def _row(training: Training, index: int, generator: torch.Generator, random: Random) -> _Row:
    settings, entry = training.run.settings, training.encoded[index]
    clean = entry.mean + entry.deviation * torch.randn(entry.mean.shape, generator=generator)
    offset = settings.noise_offset * torch.randn(4, 1, 1, generator=generator)
    noise = torch.randn(entry.mean.shape, generator=generator) + offset
    time = diffusion.draw_time(settings, len(training.abar), generator)
    keep = torch.rand((), generator=generator) >= settings.caption_dropout
    if settings.multires_noise:
        noise = diffusion.pyramid_noise(noise, settings.multires_noise, settings.multires_discount, generator)
    shown = diffusion.perturbed(noise, settings.ip_noise_gamma, generator) if settings.ip_noise_gamma else noise
    return _Row(clean, noise, shown, time, keep, _caption(training, entry, random))


def _caption(training: Training, entry: Encoded, random: Random) -> str:
    """A caption as it is shown this time: where text is encoded once, one of its variants."""
    if not training.texts.kept:
        return varied(entry.shown.caption, entry.shown.captioned(training.run.settings), random)
    return random.choice(entry.shown.variants(training.run.settings))


def _stacked(rows: list[_Row], entries: list[Encoded], settings: Settings) -> Batch:
    """The rows as a batch. A picture without a mask counts everywhere."""
    mask = None
    if any(entry.mask is not None for entry in entries):
        everywhere = torch.ones(1, *rows[0].clean.shape[-2:])
        masks = torch.stack([everywhere if entry.mask is None else entry.mask for entry in entries])
        mask = settings.mask_floor + (1 - settings.mask_floor) * masks
    return Batch(
        clean=torch.stack([row.clean for row in rows]),
        noise=torch.stack([row.noise for row in rows]),
        shown=torch.stack([row.shown for row in rows]),
        times=torch.stack([row.time for row in rows]),
        keep=torch.stack([row.keep for row in rows]),
        captions=[row.caption for row in rows],
        sizes=torch.stack([torch.tensor(entry.shown.placement.time_ids, dtype=torch.float32) for entry in entries]),
        weights=torch.tensor([entry.shown.weight for entry in entries]),
        mask=mask,
    )
