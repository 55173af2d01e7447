"""Several processes, as `accelerate launch` starts them: they learn what one process learns, and only the first one writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import short_run
from trainer.home import Home
from trainer.training.events import Finished, Started, Stepped
from trainer.training.run import Run

LAUNCH = [
    sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_processes", "2",
    "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
]  # fmt: skip


def launched(*command: str, several: bool = True) -> str:
    """Run `python -m COMMAND …` in two processes, or in one; what it wrote."""
    start = LAUNCH if several else [sys.executable]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "IMPASTO_DEVICE": "cpu"}
    done = subprocess.run(
        [*start, "-m", *command], capture_output=True, text=True, timeout=300, env=environment, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def kept(run: Run) -> dict[str, torch.Tensor]:
    """The matrices of the last checkpoint, in the type that they were trained in."""
    return load_file(max(run.checkpoints.iterdir()) / "adapter.safetensors")


@pytest.mark.slow
def test_two_processes_learn_what_one_does(toy_base: Path, dataset: Path, tmp_path: Path) -> None:
    """The same micro-batches, one after the other or side by side; in float64 only the order of sums differs."""
    common = {"steps": 5, "checkpoint_every": 5, "noise_offset": 0.1, "caption_dropout": 0.3, "ema": 0.5, "unet_lr": 1e-3}
    one = short_run(tmp_path / "one", dataset, toy_base, **common, accumulation=2)
    two = short_run(tmp_path / "two", dataset, toy_base, **common)
    home = str(tmp_path / "home")
    launched("tests.training.several", str(one.folder), home, several=False)
    launched("tests.training.several", str(two.folder), home)
    alone, together = kept(one), kept(two)
    assert alone.keys() == together.keys()
    assert next(iter(alone.values())).dtype == torch.float64
    for name, matrix in alone.items():
        assert (matrix - together[name]).abs().max() <= 1e-8, name
    assert any(matrix.abs().max() > 1e-4 for name, matrix in alone.items() if name.endswith("up"))
    losses = [[event.loss for event in run.events() if isinstance(event, Stepped)] for run in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


@pytest.mark.slow
def test_the_command_line_in_two_processes_writes_once(
    toy_base: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMPASTO_HOME", str(tmp_path / "home"))
    asked = ["resolution=64", "batch=1", "steps=3", "checkpoint_every=2", "sample_every=2", "sample_steps=2", "rank=2"]
    sets = [text for setting in asked for text in ("--set", setting)]
    out = tmp_path / "run"
    said = launched("trainer", "train", str(dataset), "--out", str(out), "--base", str(toy_base), *sets, "--json")
    run = Run.open(out)
    events = list(run.events())
    assert said.count('"state": "finished"') == 1
    assert sum(isinstance(event, Started) for event in events) == 1
    assert [event.step for event in events if isinstance(event, Stepped)] == [1, 2, 3]
    assert isinstance(events[-1], Finished)
    assert run.lora.is_file()
    assert Home(tmp_path / "home").cache.is_dir()
