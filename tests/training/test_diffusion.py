"""The arithmetic of a step against diffusers' scheduler, and the loss by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from trainer.errors import SettingsError
from trainer.settings import Prediction
from trainer.settings_text import validated
from trainer.training.diffusion import (
    add_noise,
    alphas_cumprod,
    debiased_weight,
    draw_time,
    huber_loss,
    huber_width,
    loss,
    min_snr_weight,
    perturbed,
    pyramid_noise,
    snr,
    target,
    weights,
)

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


# Weights and losses against float64 -------------------------------------------------------------------------------------


def close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=0)


@pytest.fixture
def ratios(scheduler: DDPMScheduler) -> torch.Tensor:
    """diffusers' SNR at every time step, in float64."""
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    return torch.as_tensor(scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod))


def test_snr_is_diffusers(scheduler: DDPMScheduler) -> None:
    torch.testing.assert_close(snr(alphas_cumprod(SDXL)), compute_snr(scheduler, torch.arange(1000)), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("prediction", "more"), [("epsilon", 0), ("v_prediction", 1)])
def test_min_snr_is_as_diffusers_scripts_have_it(ratios: torch.Tensor, prediction: Prediction, more: int) -> None:
    least = torch.stack([ratios, 5.0 * torch.ones_like(ratios)], dim=1).min(dim=1).values
    got = weights(alphas_cumprod(SDXL).double(), validated({}), prediction)
    close(got, least / (ratios + more))


def test_min_snr_without_any_signal() -> None:
    assert min_snr_weight(torch.tensor([0.0]), 5.0, "epsilon").tolist() == [1.0]
    assert min_snr_weight(torch.tensor([0.0]), 5.0, "v_prediction").tolist() == [0.0]


def test_the_debiased_weight_of_epsilon(ratios: torch.Tensor) -> None:
    got = weights(alphas_cumprod(SDXL).double(), validated({"debiased": True}), "epsilon")
    close(got, ratios.clamp(max=1000) ** -0.5)
    assert got.max() == pytest.approx(14.6, abs=0.1)


def test_the_debiased_weight_of_v_judges_the_same_picture_alike() -> None:
    """An epsilon and a v that mean the same clean picture have the same weighted loss."""
    x0, epsilon, times = (value.double() if value.is_floating_point() else value for value in batch())
    abar = alphas_cumprod(SDXL).double()[times]
    answered = x0 + 0.1 * epsilon.flip(0)
    share = abar.view(-1, 1, 1, 1)
    noisy = add_noise(x0, epsilon, abar)
    as_epsilon = (noisy - share.sqrt() * answered) / (1 - share).sqrt()
    as_v = target(answered, as_epsilon, abar, "v_prediction")
    answers: tuple[tuple[torch.Tensor, Prediction], ...] = ((as_epsilon, "epsilon"), (as_v, "v_prediction"))
    for picture in range(1, len(times)):  # of the first the SNR is beyond 1000, where the weight is held
        one = slice(picture, picture + 1)
        ratio = snr(abar[one])
        losses = []
        for answer, prediction in answers:
            error = (answer - target(x0, epsilon, abar, prediction))[one].square().mean()
            losses.append((error * debiased_weight(ratio, prediction)).item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_debiased_weight_is_finite_at_both_ends(prediction: Prediction) -> None:
    assert debiased_weight(torch.tensor([0.0, 1e9]), prediction).isfinite().all()


def test_the_huber_loss_in_float64() -> None:
    answer, wanted, _ = batch(2)
    weight, width = torch.linspace(0.1, 2.0, len(answer)), torch.linspace(0.01, 1.0, len(answer))
    c = width.double().view(-1, 1, 1, 1)
    huber = 2 * c * (((answer.double() - wanted.double()) ** 2 + c**2).sqrt() - c)
    close(huber_loss(answer, wanted, weight, width), (huber.mean(dim=(1, 2, 3)) * weight.double()).mean())


def test_the_huber_loss_of_a_small_error_is_its_square_and_of_a_large_one_linear() -> None:
    one, nothing = torch.ones(1), torch.zeros(1, 1)
    assert huber_loss(torch.tensor([[1e-4]]), nothing, one, one).item() == pytest.approx(1e-8, rel=1e-4)
    assert huber_loss(torch.tensor([[1e4]]), nothing, one, 0.1 * one).item() == pytest.approx(2 * 0.1 * 1e4, rel=1e-4)


def test_the_width_of_the_huber_loss(scheduler: DDPMScheduler) -> None:
    abar = alphas_cumprod(SDXL)
    assert huber_width(0.1, abar, "constant").unique().tolist() == pytest.approx([0.1])
    sigmas = ((1 - abar.double()) / abar.double()) ** 0.5
    close(huber_width(0.1, abar, "snr"), 0.9 / (1 + sigmas) ** 2 + 0.1)
    assert huber_width(0.1, torch.tensor([0.0]), "snr").item() == pytest.approx(0.1)


# Noise and times --------------------------------------------------------------------------------------------------------


def many_times(count: int = 4000, **values: Any) -> torch.Tensor:
    settings, random = validated(values), torch.Generator().manual_seed(1)
    return torch.stack([draw_time(settings, 1000, random) for _ in range(count)])


def test_uniform_times_are_torchs_own_draws() -> None:
    random = torch.Generator().manual_seed(1)
    assert many_times(20).tolist() == [torch.randint(1000, (), generator=random).item() for _ in range(20)]


@pytest.mark.parametrize("sampling", ["uniform", "logit_normal"])
def test_times_stay_in_their_range_and_reach_its_ends(sampling: str) -> None:
    times = many_times(timestep_sampling=sampling, timestep_min=500, timestep_max=503, timestep_std=2.0)
    assert times.unique().tolist() == [500, 501, 502, 503]


def test_a_range_without_any_time_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"^timestep_max, 4, must not be below timestep_min, 5\.$"):
        validated({"timestep_min": 5, "timestep_max": 4})


def test_a_range_beyond_a_short_schedule_is_cut() -> None:
    settings = validated({"timestep_min": 400, "timestep_max": 999})
    assert draw_time(settings, 100, torch.Generator().manual_seed(1)).item() == 99


def test_logit_normal_times_have_that_distribution() -> None:
    times = many_times(timestep_sampling="logit_normal", timestep_mean=0.5, timestep_std=0.8)
    logits = torch.logit((times.double() + 0.5) / 1000)
    assert logits.mean().item() == pytest.approx(0.5, abs=0.05)
    assert logits.std().item() == pytest.approx(0.8, abs=0.05)


def coarse_share(noise: torch.Tensor) -> float:
    """How much of the noise's power the means of its 8 x 8 tiles hold; of white noise 1 / 64."""
    return (torch.nn.functional.avg_pool2d(noise[None], 8).square().mean() / noise.square().mean()).item()


def test_multires_noise_has_coarse_parts_and_unit_deviation() -> None:
    random = torch.Generator().manual_seed(1)
    white = torch.randn(4, 64, 48, generator=random)
    mixed = [pyramid_noise(white, 6, discount, random) for discount in (0.3, 0.8)]
    assert [noise.std().item() for noise in mixed] == pytest.approx([1.0, 1.0], rel=1e-5)
    shares = [coarse_share(noise) for noise in (white, *mixed)]
    assert shares[0] * 1.2 < shares[1] < shares[2]


def test_multires_noise_of_one_level_is_the_sum_by_hand() -> None:
    white = torch.randn(4, 8, 12, generator=torch.Generator().manual_seed(1))
    got = pyramid_noise(white, 1, 0.5, torch.Generator().manual_seed(2))
    random = torch.Generator().manual_seed(2)
    shrink = 2 + 2 * torch.rand((), generator=random).item()
    coarse = torch.randn(1, 4, int(8 / shrink), int(12 / shrink), generator=random)
    added = white + 0.5 * torch.nn.functional.interpolate(coarse, (8, 12), mode="bilinear")[0]
    torch.testing.assert_close(got, added / added.std())


def test_multires_noise_ends_with_one_value_for_each_channel() -> None:
    one, other = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    white = torch.ones(4, 2, 2)
    white[0] = -1
    assert torch.equal(pyramid_noise(white, 2, 0.5, one), pyramid_noise(white, 10, 0.5, other))


def test_perturbed_noise_has_gamma_more() -> None:
    epsilon = torch.zeros(4, 100, 100)
    got = perturbed(epsilon, 0.1, torch.Generator().manual_seed(1))
    assert got.std().item() == pytest.approx(0.1, rel=0.02)
    assert torch.equal(perturbed(epsilon + 3, 0.1, torch.Generator().manual_seed(1)), got + 3)
