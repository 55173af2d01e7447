"""What mixing costs: every way is measured, and every way mixes the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.lora.test_layer import answer, apart
from trainer import bench
from trainer.sdxl.base import load_base


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "REPEATS", 1)
    monkeypatch.setattr(bench, "STEPS", 1)


def test_all_ways_mix_the_same(toy_base: Path) -> None:
    base = load_base(str(toy_base), torch.device("cpu"), torch.float32)
    loras = [bench._lora(base, seed) for seed in range(3)]
    before, drawn = answer("unet", base.unet), []
    for way in (bench._ours(base, loras), bench._adapters(base, loras), bench._fused(base, loras)):
        way.mix([9.0, -1.0, 9.0])
        way.mix([5.0, 0.0, -7.0])
        drawn.append(answer("unet", way.base.unet))
    assert apart(drawn[1], drawn[0]) < 1e-4
    assert apart(drawn[2], drawn[0]) < 1e-4
    assert apart(before, drawn[0]) > 1e-2
    assert torch.equal(answer("unet", base.unet), before), "each has a U-Net of its own"


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("peft", [True, False])
def test_the_command_measures_every_way(impasto: Any, toy_base: Path, monkeypatch: pytest.MonkeyPatch, peft: bool) -> None:
    monkeypatch.setattr(bench, "is_peft_available", lambda: peft)
    told = impasto("bench", "mix", "--base", toy_base, "--json")
    assert told.code == 0, told.err
    found = json.loads(told.out)
    names = ["the base alone", "Impasto", *(["set_adapters", "fuse_lora"] if peft else [])]
    assert [way["way"] for way in found["ways"]] == names
    alone = found["ways"][0]
    assert (alone["remix"], alone["step_ratio"]) == (None, 1.0)
    for way in found["ways"][1:]:
        assert way["remix"] > 0
        assert way["step_ratio"] == way["step"] / alone["step"]
        assert way["remix_in_steps"] == way["remix"] / alone["step"]
    table = impasto("bench", "mix", "--base", toy_base).out
    assert all(name in table for name in names)
    assert ("pip install peft" in table) is not peft


@pytest.mark.slow
def test_four_loras_are_mixed_anew_within_a_step_of_the_starter() -> None:
    """With four times the time that it takes to spare, on an idle machine and a busy one."""
    ours = next(way for way in bench.mixing("starter")["ways"] if way["way"] == "Impasto")
    assert ours["remix_in_steps"] <= 1
