"""A training takes the rung that was chosen for it, and says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import short_run
from trainer.errors import RunError
from trainer.home import Home
from trainer.settings import Recompute
from trainer.training import loop
from trainer.training.events import Event, Started, Stepped, Warned
from trainer.training.fit import Fit, Job, choose
from trainer.training.loop import train
from trainer.training.machine import Machine, machine_of
from trainer.training.run import Run


def started(events: Iterator[Event]) -> Started:
    (found,) = [event for event in events if isinstance(event, Started)]
    return found


def limited(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """A computer with so much free memory."""

    def machine(device: torch.device) -> Machine:
        return replace(machine_of(device), free=free)

    monkeypatch.setattr(loop, "machine_of", machine)


def test_the_log_tells_the_rung_and_why(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, recompute="auto")
    told = started(run.recorded(train(run, home)))
    assert (told.precision, told.recompute) == ("fp32", "none")
    assert told.fit.startswith("Fits: ")
    assert told.fit.endswith("in fp32 without recompute, the fastest way.")


def test_every_recompute_ends_with_the_same_file(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    made = []
    for how in get_args(Recompute):
        run = short_run(tmp_path / how, dataset, toy_base, recompute=how)
        assert started(run.recorded(train(run, home))).recompute == how
        made.append(load_file(run.lora))
    for other in made[1:]:
        assert all(torch.equal(matrix, other[name]) for name, matrix in made[0].items())


def test_samples_between_steps_change_nothing_however_it_is_computed(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path
) -> None:
    made = []
    for every in (0, 1):
        run = short_run(tmp_path / str(every), dataset, toy_base, recompute="selective", sample_every=every)
        for _ in run.recorded(train(run, home)):
            pass
        made.append(load_file(run.lora))
    assert all(torch.equal(matrix, made[1][name]) for name, matrix in made[0].items())


def test_what_cannot_fit_ends_before_the_base_is_loaded(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, free=1000)
    monkeypatch.setattr(loop, "load_base", None)
    run = short_run(tmp_path / "run", dataset, toy_base, recompute="auto")
    with pytest.raises(RunError, match="Does not fit"):
        list(train(run, home))


def test_a_person_who_chose_both_is_warned_and_believed(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, free=1000)
    run = short_run(tmp_path / "run", dataset, toy_base, recompute="none", precision="fp32", steps=1)
    events = list(run.recorded(train(run, home)))
    assert [event.message[:12] for event in events if isinstance(event, Warned)] == ["Does not fit"]


def test_a_run_that_is_gone_on_with_keeps_its_precision(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though by then there would be room for a better one."""

    def packed(job: Job, machine: Machine) -> Fit:
        return choose(replace(job, settings=job.settings.model_copy(update={"precision": "int8"})), machine)

    run = short_run(tmp_path / "run", dataset, toy_base, precision="auto")
    with monkeypatch.context() as short_of_memory:
        short_of_memory.setattr(loop, "choose", packed)
        for event in run.recorded(train(run, home)):
            if isinstance(event, Stepped) and event.step == 3:
                break
    again = Run.open(run.folder)
    assert started(again.recorded(train(again, home))).precision == "int8"
