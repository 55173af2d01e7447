"""The arithmetic of a step against diffusers' scheduler, and the loss by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler

from trainer.settings import Prediction
from trainer.training.diffusion import add_noise, alphas_cumprod, loss, min_snr_weight, snr, target

SDXL: dict[str, Any] = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
}  # fmt: skip


@pytest.fixture
def scheduler() -> DDPMScheduler:
    return DDPMScheduler(**SDXL)


def batch(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clean latents, noise and times from the first to the last."""
    random = torch.Generator().manual_seed(seed)
    times = torch.tensor([0, 1, 250, 500, 998, 999])
    shape = (len(times), 4, 6, 5)
    return torch.randn(shape, generator=random), torch.randn(shape, generator=random), times


def test_alphas_cumprod_are_the_schedulers(scheduler: DDPMScheduler) -> None:
    torch.testing.assert_close(alphas_cumprod(SDXL), scheduler.alphas_cumprod, rtol=1e-6, atol=0)


def test_noise_is_added_as_the_scheduler_does(scheduler: DDPMScheduler) -> None:
    x0, epsilon, times = batch()
    got = add_noise(x0, epsilon, alphas_cumprod(SDXL)[times])
    torch.testing.assert_close(got, scheduler.add_noise(x0, epsilon, times), rtol=1e-6, atol=1e-6)


def test_v_is_the_schedulers_velocity(scheduler: DDPMScheduler) -> None:
    x0, epsilon, times = batch()
    got = target(x0, epsilon, alphas_cumprod(SDXL)[times], "v_prediction")
    torch.testing.assert_close(got, scheduler.get_velocity(x0, epsilon, times), rtol=1e-6, atol=1e-6)


def test_for_epsilon_the_target_is_the_noise() -> None:
    x0, epsilon, times = batch()
    assert torch.equal(target(x0, epsilon, alphas_cumprod(SDXL)[times], "epsilon"), epsilon)


def test_snr_is_signal_over_noise() -> None:
    assert snr(torch.tensor([0.5, 0.8])).tolist() == pytest.approx([1.0, 4.0])


@pytest.mark.parametrize(
    ("prediction", "weights"),
    [("epsilon", [1.0, 1.0, 0.5, 0.05]), ("v_prediction", [0.5, 5 / 6, 5 / 11, 5 / 101])],
)
def test_min_snr_by_hand(prediction: Prediction, weights: list[float]) -> None:
    got = min_snr_weight(torch.tensor([1.0, 5.0, 10.0, 100.0]), 5.0, prediction)
    assert got.tolist() == pytest.approx(weights)


def test_gamma_zero_weighs_all_times_alike() -> None:
    assert min_snr_weight(torch.tensor([0.1, 10.0]), 0.0, "epsilon").tolist() == [1.0, 1.0]


def test_the_loss_by_hand_in_float64() -> None:
    answer, wanted, _ = batch(2)
    weight = torch.linspace(0.1, 2.0, len(answer))
    pictures = [float(((a.double() - b.double()) ** 2).sum() / a.numel()) for a, b in zip(answer, wanted, strict=True)]
    expected = sum(w * picture for w, picture in zip(weight.tolist(), pictures, strict=True)) / len(pictures)
    assert loss(answer, wanted, weight).item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_summed_in_float32() -> None:
    answer, wanted, _ = batch(2)
    assert loss(answer.bfloat16(), wanted, torch.ones(len(answer))).dtype == torch.float32
