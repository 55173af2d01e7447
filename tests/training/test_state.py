"""Putting a training back to a checkpoint: what it is held against, and what is measured of what has been learnt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny import save_dataset, short_run
from tests.training.begun import begun
from trainer.errors import RunError
from trainer.home import Home
from trainer.training import validation
from trainer.training.events import Resumed, Sampled, Stepped, Validated
from trainer.training.loop import train
from trainer.training.optim import require
from trainer.training.progress import fold
from trainer.training.run import Run
from trainer.training.step import take_step


def halfway(run: Run, home: Home, step: int = 3) -> Run:
    """The run as a process left it that ended in this step."""
    for event in (recording := run.recorded(train(run, home))):
        if isinstance(event, Stepped) and event.step == step:
            recording.close()  # type: ignore[attr-defined]
            break
    return Run.open(run.folder)


def test_another_base_of_the_same_name_is_refused(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    base = shutil.copytree(toy_base, tmp_path / "base")
    run = halfway(short_run(tmp_path / "run", dataset, base), home)
    weights = base / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: matrix * 1.3 for name, matrix in load_file(weights).items()}, weights, {"format": "pt"})
    with pytest.raises(RunError, match=r"is no longer the base that .* was begun on: put that one back"):
        list(run.recorded(train(run, home)))


def test_another_number_of_processes_is_refused(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    run = halfway(short_run(tmp_path / "run", dataset, toy_base), home)
    state = run.checkpoints / "000002" / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "processes": 2}))
    with pytest.raises(RunError, match="were taken by 2 processes together, and now there are 1"):
        list(run.recorded(train(run, home)))


def test_a_run_that_ended_before_its_first_checkpoint_begins_again(toy_base: Path, home: Home, tmp_path: Path) -> None:
    dataset = save_dataset(tmp_path / "set", ((64, 64),) * 4)
    asked = {
        "checkpoint_every": 4,
        "sample_every": 2,
        "sample_prompts": ("a sea",),
        "validation_share": 0.25,
        "validate_every": 2,
    }
    run = halfway(short_run(tmp_path / "run", dataset, toy_base, **asked), home)
    events = list(run.recorded(train(run, home)))
    assert [event.step for event in events if isinstance(event, Resumed)] == [0]
    progress = fold(run.events())
    assert [step for step, *_ in progress.losses] == [1, 2, 3, 4]
    assert [event.step for event in progress.samples] == [0, 2, 4]
    assert [event.step for event in progress.validated] == [0, 2, 4]


def test_what_a_kill_left_out_after_a_checkpoint_is_made_up(toy_base: Path, home: Home, tmp_path: Path) -> None:
    dataset = save_dataset(tmp_path / "set", ((64, 64),) * 4)
    asked = {"sample_every": 2, "sample_prompts": ("a sea",), "validation_share": 0.25, "validate_every": 2}
    run = short_run(tmp_path / "run", dataset, toy_base, **asked)
    for event in (recording := run.recorded(train(run, home))):
        if event.kind == "saved":
            recording.close()  # type: ignore[attr-defined]
            break
    again = Run.open(run.folder)
    events = list(again.recorded(train(again, home)))
    assert [event.step for event in events if isinstance(event, Validated | Sampled)] == [2, 2, 4, 4]
    assert [event.step for event in fold(again.events()).validated] == [0, 2, 4]


def test_what_is_measured_is_what_becomes_the_lora(toy_base: Path, home: Home, tmp_path: Path) -> None:
    dataset = save_dataset(tmp_path / "set", ((64, 64),) * 4)
    training = begun(short_run(tmp_path / "run", dataset, toy_base, validation_share=0.25, ema=0.9), home)
    for _ in range(4):
        take_step(training)
    assert training.average is not None
    kept = {name: matrix.detach().clone() for name, matrix in training.adapter.state().items()}
    told = validation.measured(training).loss
    assert all(torch.equal(matrix, kept[name]) for name, matrix in training.adapter.state().items())
    raw = training.average
    training.average = None
    assert validation.measured(training).loss != told
    training.adapter.load_state(raw.matrices)
    assert validation.measured(training).loss == told


def test_an_average_of_an_optimizer_that_averages_is_refused(tmp_path: Path, dataset: Path, toy_base: Path) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, optimizer="schedulefree_adamw", ema=0.9)
    with pytest.raises(RunError, match="schedulefree_adamw learns an average by itself: set ema to 0"):
        require(run.settings)


def test_a_copied_checkpoint_is_not_the_newest(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, steps=6)
    run = halfway(run, home, step=5)
    shutil.copytree(run.checkpoints / "000002", run.checkpoints / "000002 - Copy")
    assert [event.step for event in run.recorded(train(run, home)) if isinstance(event, Resumed)] == [4]
