"""Whole trainings on a card, in every precision, broken off and gone on with. Skipped where there is none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import pytest
import torch

from tests.tiny import short_run
from trainer.home import Home
from trainer.lora.file import LoraFile
from trainer.settings import Precision, Recompute
from trainer.training.events import Finished, Resumed, Started, Stepped
from trainer.training.loop import train
from trainer.training.machine import machine_of
from trainer.training.run import Run

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")]


@pytest.fixture(autouse=True)
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMPASTO_DEVICE", "cuda")


@pytest.mark.parametrize("how", get_args(Recompute))
@pytest.mark.parametrize("precision", get_args(Precision))
def test_a_training_ends_with_a_file_though_it_broke_off(
    precision: Precision, how: Recompute, toy_base: Path, dataset: Path, home: Home, tmp_path: Path
) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, precision=precision, recompute=how, sample_every=2)
    for event in run.recorded(train(run, home)):
        if isinstance(event, Stepped) and event.step == 3:
            break
    again = Run.open(run.folder)
    events = list(again.recorded(train(again, home)))
    assert [(event.device[:4], event.precision, event.recompute) for event in events if isinstance(event, Started)] == [
        ("cuda", precision, how)
    ]
    assert [event.step for event in events if isinstance(event, Resumed)] == [2]
    assert all(math.isfinite(event.loss) and event.memory > 0 for event in events if isinstance(event, Stepped))
    assert isinstance(events[-1], Finished)
    layers = LoraFile.read(run.lora).factors.values()
    assert all(factors.change().isfinite().all() for factors in layers)
    assert any(factors.up.any() for factors in layers)


def test_what_is_known_of_the_card() -> None:
    machine = machine_of(torch.device("cuda"))
    assert machine.native in ("bf16", "fp16")
    assert 0 < machine.free <= torch.cuda.get_device_properties(0).total_memory
    assert 1e12 < machine.rate < 1e16
    assert 1e10 < machine.bandwidth < 1e14
