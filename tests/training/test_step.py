"""One step: accumulation against the mean of its micro-batches, and what is told of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tiny import short_run
from tests.training.begun import begun
from trainer.home import Home
from trainer.training import step
from trainer.training.batch import drawn
from trainer.training.spill import Spill
from trainer.training.state import Training
from trainer.training.step import predicted, spilt, take_step


def by_hand(training: Training, micros: range) -> dict[str, torch.Tensor]:
    """The gradient of the mean over these micro-batches' plain losses."""
    means = []
    for micro in micros:
        answer, wanted = predicted(training, drawn(training, micro))
        means.append((answer - wanted).square().mean())
    for matrix in training.adapter.state().values():
        matrix.grad = None
    torch.stack(means).mean().backward()
    return {name: matrix.grad.clone() for name, matrix in training.adapter.state().items() if matrix.grad is not None}


def test_the_gradient_of_a_step_is_the_mean_over_its_micro_batches(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path
) -> None:
    asked = {"accumulation": 3, "min_snr_gamma": 0.0, "max_grad_norm": 1e9, "caption_dropout": 0.3}
    training = begun(short_run(tmp_path / "run", dataset, toy_base, **asked), home)
    take_step(training)  # so that both matrices of a layer have a gradient
    wanted = by_hand(training, range(3, 6))
    event = take_step(training)
    for name, matrix in training.adapter.state().items():
        assert matrix.grad is not None
        assert torch.allclose(matrix.grad, wanted[name], rtol=1e-4, atol=1e-6 * wanted[name].abs().max().item()), name
    lengths = torch.stack([gradient.norm() for gradient in wanted.values()])
    assert event.gradient == pytest.approx(lengths.norm().item(), rel=1e-4)
    assert event.gradient == pytest.approx(sum(length**2 for length in event.gradients.values()) ** 0.5, rel=1e-5)
    assert event.gradients.keys() == {"unet", "te1", "te2"} == event.rates.keys() == event.change.keys()


def test_text_that_is_encoded_once_reads_as_text_that_is_encoded_each_time(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {}
    for cached in (True, False):
        asked = {"te1_lr": 0.0, "te2_lr": 0.0, "cache_text": cached, "caption_dropout": 0.4, "trigger": "glassy"}
        training = begun(short_run(tmp_path / str(cached), dataset, toy_base, **asked), home)
        if cached:
            monkeypatch.setattr(training.base, "te1", None)  # it is not asked any more
        answers[cached] = [predicted(training, drawn(training, micro))[0].detach() for micro in range(4)]
        monkeypatch.undo()
    for kept, fresh in zip(answers[True], answers[False], strict=True):
        assert torch.allclose(kept, fresh, atol=1e-5)


def test_only_a_card_is_watched_for_spilling(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = begun(short_run(tmp_path / "run", dataset, toy_base), home)
    assert training.spill is None
    assert spilt(training) is None
    monkeypatch.setattr(step, "filled", lambda _: (99, 100))
    training.spill = Spill(predicted=1e-6, mean=64 * 64)
    said = []
    for _ in range(5):
        take_step(training)
        said.append(spilt(training))
    assert said[:4] == [None] * 4
    assert said[4]
