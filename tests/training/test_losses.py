"""Losses, noise and time steps in whole trainings: what is asked for reaches the U-Net, and the loss is that by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import short_run
from tests.training.test_loop import Seen, trained, watch
from trainer.home import Home
from trainer.training.events import Stepped


def trained_with(folder: Path, dataset: Path, base: Path, **settings: Any) -> tuple[list[float], Seen]:
    """The losses of a short training, and what passed through it."""
    with pytest.MonkeyPatch.context() as patch:
        seen = watch(patch)
        events = trained(short_run(folder / "run", dataset, base, **settings), Home(folder / "home"))
    return [event.loss for event in events if isinstance(event, Stepped)], seen


@pytest.fixture(scope="module")
def plain(toy_base: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A training without any of it."""
    return trained_with(tmp_path_factory.mktemp("plain"), dataset, toy_base)[1]


def by_hand(seen: Seen, step: int, epsilon: torch.Tensor, asked: dict[str, Any]) -> float:
    """The loss of a step in float64, from what the U-Net was given and what it answered."""
    x0, _, abar_t = seen.noised[step]
    x0, abar = x0.double(), abar_t.double().view(-1, 1, 1, 1)
    wanted, ratio = epsilon.double(), abar / (1 - abar)
    weight = ratio.clamp(max=5) / ratio
    if asked.get("prediction") == "v_prediction":
        wanted = abar.sqrt() * wanted - (1 - abar).sqrt() * x0
        weight = ratio.clamp(max=5) / (ratio + 1)
    if asked.get("debiased"):
        weight = ratio.clamp(max=1000).sqrt() / (ratio.clamp(max=1000) + 1) if "prediction" in asked else ratio.rsqrt()
    error = (seen.answers[step].double() - wanted).square()
    if asked.get("loss") == "huber":
        c = torch.full_like(abar, asked["huber_c"])
        if asked["huber_schedule"] == "snr":
            c = (1 - c) / (1 + ratio.rsqrt()) ** 2 + c
        error = 2 * c * ((error + c**2).sqrt() - c)
    return (error * weight).mean().item()


@pytest.mark.parametrize(
    "asked",
    [
        {"loss": "huber", "huber_c": 0.2, "huber_schedule": "constant"},
        {"loss": "huber", "huber_c": 0.05, "huber_schedule": "snr", "prediction": "v_prediction"},
        {"debiased": True},
        {"debiased": True, "prediction": "v_prediction"},
    ],
)
def test_the_loss_by_hand(toy_base: Path, dataset: Path, tmp_path: Path, asked: dict[str, Any]) -> None:
    losses, seen = trained_with(tmp_path, dataset, toy_base, **asked)
    expected = [by_hand(seen, step, seen.noised[step][1], asked) for step in range(4)]
    assert losses == pytest.approx(expected, rel=1e-5)


def test_perturbed_noise_is_shown_but_not_asked_for(toy_base: Path, dataset: Path, tmp_path: Path, plain: Seen) -> None:
    losses, seen = trained_with(tmp_path, dataset, toy_base, ip_noise_gamma=0.1)
    for step, ((x0, shown, abar), (x0_plain, epsilon, abar_plain)) in enumerate(zip(seen.noised, plain.noised, strict=True)):
        assert torch.equal(x0, x0_plain)
        assert torch.equal(abar, abar_plain)
        assert (shown - epsilon).std().item() == pytest.approx(0.1, rel=0.15)
        assert losses[step] == pytest.approx(by_hand(seen, step, epsilon, {}), rel=1e-5)


def test_multires_noise_is_shown_and_asked_for(toy_base: Path, dataset: Path, tmp_path: Path, plain: Seen) -> None:
    losses, seen = trained_with(tmp_path, dataset, toy_base, multires_noise=4, multires_discount=0.8)
    for step, ((x0, shown, abar), (x0_plain, epsilon, abar_plain)) in enumerate(zip(seen.noised, plain.noised, strict=True)):
        assert torch.equal(x0, x0_plain)
        assert torch.equal(abar, abar_plain)
        assert not torch.allclose(shown, epsilon, atol=0.1)
        assert shown.flatten(1).std(dim=1).tolist() == pytest.approx([1.0, 1.0], rel=1e-4)
        assert losses[step] == pytest.approx(by_hand(seen, step, shown, {}), rel=1e-5)


@pytest.mark.parametrize("sampling", ["uniform", "logit_normal"])
def test_only_times_of_the_range_are_practised(toy_base: Path, dataset: Path, tmp_path: Path, sampling: str) -> None:
    _, seen = trained_with(
        tmp_path, dataset, toy_base, timestep_sampling=sampling, timestep_min=200, timestep_max=204, steps=1, batch=32
    )
    assert set(seen.inputs[0]["time"].tolist()) == {200, 201, 202, 203, 204}
