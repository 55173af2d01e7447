"""Measuring on pictures that are held out: always the same question, and what the answers mean."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tiny import save_dataset, short_run
from trainer.home import Home
from trainer.training import diffusion, step
from trainer.training.batch import Batch
from trainer.training.events import Event, Stepped, Validated
from trainer.training.loop import train
from trainer.training.plan import MEASURED_TIMES
from trainer.training.progress import fold
from trainer.training.run import Run
from trainer.training.state import Training
from trainer.training.validation import PATIENCE, meaning

ASKED = {"validation_share": 0.4, "validate_every": 2, "steps": 4, "checkpoint_every": 2}


@pytest.fixture
def five(tmp_path: Path) -> Path:
    return save_dataset(tmp_path / "set", ((64, 64), (96, 80), (70, 64), (64, 96), (80, 80)))


def trained(run: Run, home: Home) -> list[Event]:
    return list(run.recorded(train(run, home)))


def test_it_is_measured_before_the_first_step_and_then_as_often_as_asked(
    toy_base: Path, five: Path, home: Home, tmp_path: Path
) -> None:
    run = short_run(tmp_path / "run", five, toy_base, **ASKED)
    found = [event for event in trained(run, home) if isinstance(event, Validated)]
    assert [event.step for event in found] == [0, 2, 4]
    assert len({event.loss for event in found}) == 3
    assert found == fold(run.events()).validated
    for number, event in enumerate(found):
        assert event.best == min(found[: number + 1], key=lambda each: each.loss).step


def test_the_same_weights_give_the_same_loss(toy_base: Path, five: Path, home: Home, tmp_path: Path) -> None:
    """With rates too small to change anything the curve is flat: noise and times are always the same."""
    rates = {"unet_lr": 1e-12, "te1_lr": 0.0, "te2_lr": 0.0}
    run = short_run(tmp_path / "run", five, toy_base, **ASKED, **rates)
    losses = [event.loss for event in trained(run, home) if isinstance(event, Validated)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


def test_the_loss_is_the_mean_squared_error_on_pictures_that_are_not_trained(
    toy_base: Path, five: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool, torch.Tensor]] = []
    real = step.predicted

    def predicted(training: Training, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        answer, wanted = real(training, batch)
        error = (answer.double() - wanted.double()).square().mean().detach()
        asked.extend((caption, torch.is_grad_enabled(), error) for caption in batch.captions)
        return answer, wanted

    monkeypatch.setattr(step, "predicted", predicted)
    monkeypatch.setattr("trainer.training.validation.predicted", predicted)
    run = short_run(tmp_path / "run", five, toy_base, **ASKED)
    first = next(event for event in trained(run, home) if isinstance(event, Validated))
    held_out = {caption for caption, learnt, _ in asked if not learnt}
    assert len(held_out) == 2
    assert not held_out & {caption for caption, learnt, _ in asked if learnt}
    by_hand = [error for _, learnt, error in asked if not learnt][: 2 * MEASURED_TIMES]
    assert first.loss == pytest.approx(torch.stack(by_hand).mean().item(), rel=1e-5)


def test_measuring_changes_nothing_and_a_resumed_run_measures_the_same(
    toy_base: Path, five: Path, home: Home, tmp_path: Path
) -> None:
    alone, seldom, broken = (
        short_run(tmp_path / name, five, toy_base, **{**ASKED, "validate_every": every})
        for name, every in (("alone", 2), ("seldom", 1000), ("broken", 2))
    )
    whole = [event for event in trained(alone, home) if isinstance(event, Validated)]
    trained(seldom, home)
    for event in (recording := broken.recorded(train(broken, home))):
        if isinstance(event, Stepped) and event.step == 3:
            recording.close()  # type: ignore[attr-defined]
            break
    again = Run.open(broken.folder)
    trained(again, home)
    told = [(event.step, event.loss, event.best) for event in fold(again.events()).validated]
    assert told == [(event.step, event.loss, event.best) for event in whole]
    kept = [(run.checkpoints / "000004" / "adapter.safetensors").read_bytes() for run in (alone, seldom, again)]
    assert kept[0] == kept[1] == kept[2]


def test_overfitting_is_told_once_when_it_shows() -> None:
    falling = [(step, 1 - step / 100) for step in range(0, 50, 10)]
    told = []
    for number in range(1, PATIENCE + 3):
        rising = [(40 + 10 * more, 0.6 + 0.02 * more) for more in range(1, number + 1)]
        told.append(meaning([*falling, *rising]))
    assert [bool(sentence) for sentence in told] == [number == PATIENCE for number in range(1, PATIENCE + 3)]
    assert "best at step 40" in told[PATIENCE - 1]


def test_chance_is_not_overfitting() -> None:
    assert not meaning([(0, 0.5), (10, 0.502), (20, 0.503), (30, 0.504)])
    assert not meaning([(0, 0.5), (10, 0.52), (20, 0.5), (30, 0.52), (40, 0.53)])


def test_a_mask_weighs_places_and_an_empty_one_counts_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    answer, wanted = (torch.randn(2, 4, 6, 6, generator=generator) for _ in range(2))
    mask = torch.zeros(2, 1, 6, 6)
    mask[0, :, :2] = 1
    mask[0, :, 2:4] = 0.5
    weight = torch.tensor([0.7, 3.0])
    squared = (answer[0].double() - wanted[0].double()).square()
    seen = (squared[:, :2].sum() + 0.5 * squared[:, 2:4].sum()) / (4 * 6 * (2 + 1))
    assert diffusion.loss(answer, wanted, weight, mask).item() == pytest.approx(0.7 * seen.item() / 2, rel=1e-5)
    wide = torch.tensor([1e4, 1e4])
    assert diffusion.huber_loss(answer, wanted, weight, wide, mask).item() == pytest.approx(0.7 * seen.item() / 2, rel=1e-3)
