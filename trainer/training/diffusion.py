"""The arithmetic of a diffusion step: pure functions in the papers' letters.

`abar` is the cumulative product of the schedule's alphas (DDPM, arXiv 2006.11239), t a time step, x0 a clean latent.
All work on batches (n, …); a value per picture has the shape (n,).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from trainer.settings import HuberSchedule, Prediction, Settings


def alphas_cumprod(config: Mapping[str, Any]) -> torch.Tensor:
    """abar for every t, (T,), float32, from a scheduler's config with `scaled_linear` betas, as SDXL's.

    With `rescale_betas_zero_snr`, sqrt(abar) is shifted and scaled to end at 0 and begin where it did (arXiv 2305.08891).
    """
    steps = int(config["num_train_timesteps"])
    betas = torch.linspace(config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, steps, dtype=torch.float32) ** 2
    abar = torch.cumprod(1 - betas, dim=0)
    if not config.get("rescale_betas_zero_snr"):
        return abar
    roots = abar.sqrt()
    return ((roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))).square()


def _per_picture(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))


def add_noise(x0: torch.Tensor, epsilon: torch.Tensor, abar_t: torch.Tensor) -> torch.Tensor:
    """x_t = sqrt(abar) x0 + sqrt(1 - abar) epsilon."""
    abar = _per_picture(abar_t, x0)
    return abar.sqrt() * x0 + (1 - abar).sqrt() * epsilon


def target(x0: torch.Tensor, epsilon: torch.Tensor, abar_t: torch.Tensor, prediction: Prediction) -> torch.Tensor:
    """What the U-Net should answer: epsilon, or v = sqrt(abar) epsilon - sqrt(1 - abar) x0 (arXiv 2202.00512)."""
    if prediction == "epsilon":
        return epsilon
    abar = _per_picture(abar_t, x0)
    return abar.sqrt() * epsilon - (1 - abar).sqrt() * x0


def snr(abar_t: torch.Tensor) -> torch.Tensor:
    """Signal-to-noise ratio abar / (1 - abar)."""
    return abar_t / (1 - abar_t)


def min_snr_weight(snr_t: torch.Tensor, gamma: float, prediction: Prediction) -> torch.Tensor:
    """Min-SNR (arXiv 2303.09556): min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for v; gamma 0 means 1."""
    if gamma == 0:
        return torch.ones_like(snr_t)
    if prediction == "epsilon":
        return (gamma / snr_t).clamp(max=1)  # not 0 / 0 where a schedule ends without any signal
    return snr_t.clamp(max=gamma) / (snr_t + 1)


def debiased_weight(snr_t: torch.Tensor, prediction: Prediction) -> torch.Tensor:
    """Debiased estimation (arXiv 2310.08442): 1 / sqrt(SNR) for epsilon, with the SNR held between 1/1000 and 1000.

    An error of v is an error of epsilon times (SNR + 1) / SNR, so the same weighting is sqrt(SNR) / (SNR + 1) for v.
    """
    held = snr_t.clamp(1e-3, 1e3)
    return held.rsqrt() if prediction == "epsilon" else held.sqrt() / (held + 1)


def huber_width(c: float, abar_t: torch.Tensor, schedule: HuberSchedule) -> torch.Tensor:
    """The error, (n,), above which a pseudo-Huber loss grows linearly: c, or by SNR from 1 without noise down to c.

    By SNR it is (1 - c) / (1 + sigma)^2 + c with sigma^2 = 1 / SNR (arXiv 2403.16728, in the form that trainers use).
    """
    if schedule == "constant":
        return torch.full_like(abar_t, c)
    sigma = ((1 - abar_t) / abar_t).sqrt()
    return (1 - c) / (1 + sigma).square() + c


def weights(abar_t: torch.Tensor, settings: Settings, prediction: Prediction) -> torch.Tensor:
    """The weight of each picture's loss, (n,)."""
    ratio = snr(abar_t)
    return (
        debiased_weight(ratio, prediction) if settings.debiased else min_snr_weight(ratio, settings.min_snr_gamma, prediction)
    )


def loss(answer: torch.Tensor, wanted: torch.Tensor, weight: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Mean over the batch of each picture's squared error times its weight (n,); a scalar in float32.

    With a `mask` (n, 1, h, w) each picture's error is its mean over the places, weighed by the mask.
    """
    return (_mean((answer.float() - wanted.float()).square(), mask) * weight).mean()


def huber_loss(
    answer: torch.Tensor, wanted: torch.Tensor, weight: torch.Tensor, width: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """As `loss`, with pseudo-Huber's 2 c (sqrt(e^2 + c^2) - c) of each error e and a picture's width c, (n,).

    That is e^2 where the error is small, and 2 c |e| where it is large.
    """
    squared = (answer.float() - wanted.float()).square()
    c = _per_picture(width, squared)
    huber = 2 * c * squared / ((squared + c.square()).sqrt() + c)  # the same, without a difference of near numbers
    return (_mean(huber, mask) * weight).mean()


def _mean(errors: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Each picture's mean error (n,), weighed by the mask: a small figure counts as much as a whole picture.

    It is 0 for a picture of which the mask shows nothing, as happens in a crop.
    """
    if mask is None:
        return errors.flatten(1).mean(dim=1)
    return (errors * mask).flatten(1).mean(dim=1) / mask.flatten(1).mean(dim=1).clamp_min(1e-9)


def draw_time(settings: Settings, times: int, generator: torch.Generator) -> torch.Tensor:
    """A time step of a schedule of `times`, (), int64, within the range of the settings.

    Uniform, or logit-normal: the sigmoid of a normal number is the share of the range (arXiv 2403.03206).
    """
    last = min(settings.timestep_max, times - 1)
    first = min(settings.timestep_min, last)
    if settings.timestep_sampling == "uniform":
        return torch.randint(first, last + 1, (), generator=generator)
    normal = torch.randn((), generator=generator) * settings.timestep_std + settings.timestep_mean
    count = last - first + 1
    return first + (normal.sigmoid() * count).long().clamp(max=count - 1)


def pyramid_noise(noise: torch.Tensor, levels: int, discount: float, generator: torch.Generator) -> torch.Tensor:
    """`noise` (c, h, w) with coarser noise added, each level some 2 to 4 times coarser and `discount` times weaker; std 1.

    Multi-resolution noise after J. Whitaker, "Multi-Resolution Noise for Diffusion Model Training" (2023). Levels end
    where one is a single value for each channel.
    """
    height, width = noise.shape[-2:]
    mixed, shrink = noise, 1.0
    for level in range(1, levels + 1):
        shrink *= 2 + 2 * torch.rand((), generator=generator).item()
        size = max(1, int(height / shrink)), max(1, int(width / shrink))
        coarse = torch.randn(1, noise.shape[0], *size, generator=generator)
        mixed = mixed + discount**level * F.interpolate(coarse, (height, width), mode="bilinear")[0]
        if size == (1, 1):
            break
    return mixed / mixed.std()


def perturbed(epsilon: torch.Tensor, gamma: float, generator: torch.Generator) -> torch.Tensor:
    """The noise that a picture is shown with, where the answer is still to be `epsilon`: epsilon + gamma xi, xi normal.

    Input perturbation (arXiv 2301.11706): the U-Net learns to bear its own earlier errors.
    """
    return epsilon + gamma * torch.randn(epsilon.shape, generator=generator)
