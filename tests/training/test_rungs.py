"""A training takes the rung that was chosen for it, and says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import short_run
from trainer.errors import RunError
from trainer.home import Home
from trainer.lora.file import LoraFile
from trainer.settings import Recompute
from trainer.training import diffusion, prepare
from trainer.training.events import Event, Failed, Lowered, Resumed, Started, Stepped, Warned
from trainer.training.fit import Fit, Job, choose
from trainer.training.loop import train
from trainer.training.machine import Machine, machine_of
from trainer.training.progress import fold
from trainer.training.run import Run


def started(events: Iterator[Event]) -> Started:
    (found,) = [event for event in events if isinstance(event, Started)]
    return found


def limited(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """A computer with so much free memory."""

    def machine(device: torch.device) -> Machine:
        return replace(machine_of(device), free=free)

    monkeypatch.setattr(prepare, "machine_of", machine)


def test_the_log_tells_the_rung_and_why(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, recompute="auto")
    told = started(run.recorded(train(run, home)))
    assert (told.precision, told.recompute) == ("fp32", "none")
    assert told.fit.startswith("Fits: ")
    assert told.fit.endswith("in fp32 without recompute, the fastest way.")
    assert LoraFile.read(run.lora).metadata["ss_gradient_checkpointing"] == "False"


def test_every_recompute_ends_with_the_same_file(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    made = []
    for how in get_args(Recompute):
        run = short_run(tmp_path / how, dataset, toy_base, recompute=how)
        assert started(run.recorded(train(run, home))).recompute == how
        made.append(load_file(run.lora))
        assert LoraFile.read(run.lora).metadata["ss_gradient_checkpointing"] == str(how != "none")
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
    monkeypatch.setattr(prepare, "load_base", None)
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
        short_of_memory.setattr(prepare, "choose", packed)
        for event in run.recorded(train(run, home)):
            if isinstance(event, Stepped) and event.step == 3:
                break
    again = Run.open(run.folder)
    assert started(again.recorded(train(again, home))).precision == "int8"


def test_a_run_that_finds_less_memory_when_it_is_gone_on_with_says_what_can_be_done(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, recompute="auto")
    for event in run.recorded(train(run, home)):
        if isinstance(event, Stepped) and event.step == 3:
            break
    limited(monkeypatch, free=1000)
    with pytest.raises(RunError, match=r"Does not fit.* keeps its settings: resume it with more memory, or start again"):
        list(train(Run.open(run.folder), home))


@pytest.mark.parametrize("sentence", ["CUDA out of memory. Tried to allocate 8 GiB.", "MPS backend out of memory"])
def test_memory_that_runs_out_ends_with_a_sentence_and_the_checkpoint_is_kept(
    sentence: str, toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = diffusion.loss, []

    def short(*given: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError(sentence)
        return real(*given)

    monkeypatch.setattr(diffusion, "loss", short)
    run = short_run(tmp_path / "run", dataset, toy_base, precision="fp32")
    with pytest.raises(RunError, match=r"Memory ran out in the training; its last checkpoint is kept"):
        list(run.recorded(train(run, home)))
    *_, last = run.events()
    assert isinstance(last, Failed)
    again = Run.open(run.folder)
    assert [event.step for event in again.recorded(train(again, home)) if isinstance(event, Resumed)] == [2]


def test_where_memory_runs_out_it_goes_on_a_rung_lower_and_learns_the_same(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, short = (short_run(tmp_path / name, dataset, toy_base, recompute="auto") for name in ("alone", "short"))
    list(alone.recorded(train(alone, home)))
    real, calls = diffusion.loss, []

    def short_of_memory(*given: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) in (4, 6):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(*given)

    monkeypatch.setattr(diffusion, "loss", short_of_memory)
    events = list(short.recorded(train(short, home)))
    lowered = [event for event in events if isinstance(event, Lowered)]
    assert [(event.precision, event.recompute) for event in lowered] == [("fp32", "selective"), ("fp32", "full")]
    assert lowered[0].message == (
        "Memory ran out. The training goes on from its last checkpoint, in fp32 with selective recompute."
    )
    assert [event.step for event in events if isinstance(event, Resumed)] == [2, 2]
    assert fold(short.events()).state == "finished"
    whole, broken = (load_file(run.lora) for run in (alone, short))
    assert all(torch.allclose(broken[name], value, atol=1e-4) for name, value in whole.items())
    more = short.with_steps(6)
    started = [event for event in more.recorded(train(more, home)) if isinstance(event, Started)]
    assert [event.recompute for event in started] == ["full"], "a run that goes on remembers it"


def test_other_faults_in_a_training_keep_their_traceback(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(diffusion, "loss", fault)
    with pytest.raises(RuntimeError, match="shapes"):
        list(train(short_run(tmp_path / "run", dataset, toy_base), home))
