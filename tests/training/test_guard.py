"""The guard: what it takes for trouble, and trainings that get into it."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import short_run
from trainer.errors import RunError
from trainer.home import Home
from trainer.lora.file import LoraFile
from trainer.training import diffusion, step
from trainer.training.batch import Batch
from trainer.training.events import Event, Failed, Finished, Resumed, Saved, Stepped, Stopped, Warned
from trainer.training.guard import PATIENCE, WINDOW, Guard, Unstable
from trainer.training.loop import train
from trainer.training.progress import fold
from trainer.training.run import Run
from trainer.training.state import Training

# What is trouble ----------------------------------------------------------------------------------------------------------


def after(*losses: float) -> Guard:
    """A guard that has seen these smoothed losses."""
    guard = Guard()
    for number, smoothed in enumerate(losses, 1):
        guard.watch(number, smoothed)
    return guard


def test_a_loss_that_wanders_is_calm() -> None:
    guard = after(*(0.1 * (1 + 0.9 * math.sin(step / 7)) for step in range(500)))
    assert guard.calm
    assert guard.factor == 1


def test_a_loss_that_rises_and_stays_is_an_explosion() -> None:
    guard = after(*[0.1] * WINDOW, *[0.51] * (PATIENCE - 1))
    assert not guard.calm
    with pytest.raises(Unstable, match=r"at step 110 its loss is 0\.51, where 0\.1 was usual"):
        guard.watch(110, 0.51)


def test_a_peak_is_no_explosion() -> None:
    guard = after(*[0.1] * WINDOW, *[0.51] * (PATIENCE - 1), 0.49, *[0.51] * (PATIENCE - 1), 0.1)
    assert guard.calm


def test_a_doubled_loss_is_no_moment_to_keep() -> None:
    assert after(*[0.1] * WINDOW, 0.19).calm
    assert not after(*[0.1] * WINDOW, 0.21).calm


def test_first_losses_are_not_judged() -> None:
    assert after(0.001, *[0.1] * (WINDOW - 2)).calm


# Trainings that get into it -----------------------------------------------------------------------------------------------


def spoil(monkeypatch: pytest.MonkeyPatch, wrong: Callable[[int], bool]) -> None:
    """Make the loss no number at those of its computations, counted from 1, for which `wrong` says so."""
    original, numbers = diffusion.loss, count(1)

    def loss(*given: Any) -> torch.Tensor:
        return original(*given) * (math.nan if wrong(next(numbers)) else 1)

    monkeypatch.setattr(diffusion, "loss", loss)


def told(run: Run, home: Home) -> list[Event]:
    """What happened, without what is told before the first step."""
    events = list(run.recorded(train(run, home)))
    kinds = (Stepped, Saved, Warned, Resumed, Stopped, Finished)
    return [event for event in events if isinstance(event, kinds)]


def content(run: Run) -> dict[str, torch.Tensor]:
    layers = LoraFile.read(run.lora).layers
    return {f"{name} {which}": getattr(layer, which) for name, layer in layers.items() for which in ("down", "up")}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_after_a_loss_that_is_no_number_it_goes_back_and_halves_the_rates(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, warmup=0)
    spoil(monkeypatch, lambda number: number == 4)
    events = told(run, home)
    steps = [(event.kind, getattr(event, "step", None)) for event in events]
    assert steps == [
        ("stepped", 1), ("stepped", 2), ("saved", 2), ("stepped", 3), ("warned", None), ("resumed", 2), ("stepped", 3),
        ("stepped", 4), ("saved", 4), ("finished", 4),
    ]  # fmt: skip
    (warned,) = (event for event in events if isinstance(event, Warned))
    assert warned.message == (
        "The training became unstable: at step 4 its loss is not a number. It goes back to step 2, with its learning rates at "
        "0.5 of what was asked."
    )
    third = [event for event in events if isinstance(event, Stepped) and event.step == 3]
    assert third[0].loss == third[1].loss, "the same pictures and noise on the same weights"
    assert third[1].rates["unet"] == third[0].rates["unet"] / 2
    assert [step for step, *_ in fold(run.events()).losses] == [1, 2, 3, 4]


def test_a_run_that_was_halved_is_resumed_exactly(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, broken = (short_run(tmp_path / name, dataset, toy_base, steps=8, noise_offset=0.1) for name in ("alone", "broken"))
    spoil(monkeypatch, lambda number: number == 4)
    told(alone, home)
    monkeypatch.undo()
    spoil(monkeypatch, lambda number: number == 4)
    for event in (recording := broken.recorded(train(broken, home))):
        if isinstance(event, Stepped) and event.step == 7:
            recording.close()  # type: ignore[attr-defined]
            break
    events = told(Run.open(broken.folder), home)
    assert [event.step for event in events if isinstance(event, Resumed)] == [6]
    assert same(content(broken), content(alone))


def test_trouble_before_the_first_checkpoint_begins_anew_with_lower_rates(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = dict.fromkeys(("unet_lr", "te1_lr", "te2_lr"), 5e-3)
    runs = [short_run(tmp_path / "a", dataset, toy_base), short_run(tmp_path / "b", dataset, toy_base, **half)]
    spoil(monkeypatch, lambda number: number == 2)
    events = told(runs[0], home)
    assert [event.step for event in events if isinstance(event, Resumed)] == [0]
    monkeypatch.undo()
    told(runs[1], home)
    assert same(content(runs[0]), content(runs[1]))


def test_trouble_for_the_fourth_time_stops_and_keeps_the_good_lora(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = short_run(tmp_path / "good", dataset, toy_base)
    for event in good.recorded(train(good, home)):
        if isinstance(event, Stepped) and event.step == 2:
            good.ask("stop")
    run = short_run(tmp_path / "run", dataset, toy_base)
    spoil(monkeypatch, lambda number: number > 2)
    events = told(run, home)
    assert [event.step for event in events if isinstance(event, Resumed)] == [0, 0, 0], "step 2's own loss is no number"
    *_, warned, last = events
    assert isinstance(warned, Warned)
    assert warned.message.endswith("its loss is not a number. It stops, and what was learnt up to step 2 is kept.")
    assert isinstance(last, Stopped)
    assert last.step == 2
    assert same(content(run), content(good))


def test_a_checkpoint_in_which_the_trouble_had_begun_is_passed_over(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The update of step 4 ruins the weights, which shows in the loss of step 5: halved rates cannot heal checkpoint 4."""
    real, ruined = step.predicted, list[torch.Tensor]()

    def predicted(training: Training, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        answer, wanted = real(training, batch)
        matrix = next(iter(training.adapter.state().values())).detach()
        if training.step == 4 and not ruined:
            ruined.append(matrix.clone())
        return (answer * math.nan if ruined and torch.equal(matrix, ruined[0]) else answer), wanted

    monkeypatch.setattr(step, "predicted", predicted)
    run = short_run(tmp_path / "run", dataset, toy_base, steps=8, warmup=0)
    events = told(run, home)
    assert [event.step for event in events if isinstance(event, Resumed)] == [2]
    assert isinstance(events[-1], Finished)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["000004", "000004.aside", "000006", "000008"]


def test_without_a_good_step_there_is_nothing_to_keep(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base)
    spoil(monkeypatch, lambda _: True)
    with pytest.raises(RunError, match="There is no good step to keep: start again with lower learning rates"):
        list(run.recorded(train(run, home)))
    assert isinstance(list(run.events())[-1], Failed)
    assert not run.lora.exists()


def test_no_checkpoint_is_written_while_trouble_may_have_begun(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = iter([True, False])
    monkeypatch.setattr(Guard, "calm", property(lambda _: next(calm)))
    events = told(short_run(tmp_path / "run", dataset, toy_base, steps=6), home)
    assert [event.step for event in events if isinstance(event, Saved)] == [2, 6]
