"""The arithmetic of a diffusion step: pure functions in the papers' letters.

`abar` is the cumulative product of the schedule's alphas (DDPM, arXiv 2006.11239), t a time step, x0 a clean latent.
All work on batches (n, …); a value per picture has the shape (n,).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from trainer.settings import Prediction


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
    return snr_t.clamp(max=gamma) / (snr_t if prediction == "epsilon" else snr_t + 1)


def loss(answer: torch.Tensor, wanted: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of each picture's squared error times its weight (n,); a scalar in float32."""
    squared = (answer.float() - wanted.float()).square()
    return (squared.flatten(1).mean(dim=1) * weight).mean()
