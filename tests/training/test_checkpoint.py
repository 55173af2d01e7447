"""Checkpoints: whole or not there, and exact when they come back."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from trainer.errors import RunError, StorageError
from trainer.lora.adapter import Adapter
from trainer.lora.layer import inject
from trainer.training import checkpoint
from trainer.training.guard import Guard
from trainer.training.optim import LossScale


def adapter(seed: int = 1, rank: int = 2) -> Adapter:
    """An adapter of one layer, enough for a checkpoint."""
    path = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    model: nn.Module = nn.Linear(6, 5)
    for name in reversed(path.split(".")):
        outer = nn.Module()
        outer.add_module(name, model)
        model = outer
    return Adapter({"unet": model}, {"unet": inject(model, [path], rank, 2.0, seed)})


def trained(an_adapter: Adapter, steps: int = 3) -> torch.optim.AdamW:
    """Its optimizer after some steps."""
    optimizer = torch.optim.AdamW(an_adapter.parameters("unet"), lr=0.1)
    for step in range(steps):
        for matrix in an_adapter.parameters("unet"):
            matrix.grad = torch.full_like(matrix, 0.1 * (step + 1))
        optimizer.step()
    return optimizer


def write(folder: Path, step: int, an_adapter: Adapter, optimizer: torch.optim.Optimizer, **more: Any) -> Path:
    """A checkpoint of that step; two are kept."""
    moment = checkpoint.Moment(**{"step": step, "smoothed": 0.25, "seconds": 1.5, **more})
    return checkpoint.write(folder, moment, an_adapter, optimizer, keep=2)


def test_everything_comes_back_bit_for_bit(tmp_path: Path) -> None:
    first = adapter()
    optimizer = trained(first)
    write(tmp_path, 3, first, optimizer)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert (found.step, found.smoothed, found.seconds) == (3, 0.25, 1.5)
    second = adapter(seed=9)
    restored = torch.optim.AdamW(second.parameters("unet"), lr=0.1)
    checkpoint.restore(found, second, restored)
    for one, other in zip(first.parameters("unet"), second.parameters("unet"), strict=True):
        assert torch.equal(one, other)
        for name in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[one][name], restored.state[other][name])


def test_a_checkpoint_from_before_the_first_step_comes_back(tmp_path: Path) -> None:
    first = adapter()
    write(tmp_path, 0, first, trained(first, steps=0))
    found = checkpoint.newest(tmp_path)
    assert found is not None
    second = adapter(seed=9)
    checkpoint.restore(found, second, torch.optim.AdamW(second.parameters("unet"), lr=0.1))
    assert torch.equal(first.parameters("unet")[0], second.parameters("unet")[0])


@pytest.mark.parametrize("scale", [None, LossScale(512.0, steps=77)])
def test_the_scale_of_the_loss_comes_back(tmp_path: Path, scale: LossScale | None) -> None:
    an_adapter = adapter()
    write(tmp_path, 3, an_adapter, trained(an_adapter), scale=scale)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.scale == scale


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.newest(tmp_path / "missing") is None


@pytest.mark.parametrize("steps", [[10, 20, 30, 40], [999_998, 999_999, 1_000_000]])
def test_the_newest_ones_are_kept(tmp_path: Path, steps: list[int]) -> None:
    an_adapter = adapter()
    optimizer = trained(an_adapter)
    for step in steps:
        write(tmp_path, step, an_adapter, optimizer)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.step == steps[-1]
    assert {int(path.name) for path in tmp_path.iterdir()} == set(steps[-2:])


def damage(folder: Path, how: str) -> None:
    match how:
        case "matrices cut off":
            (folder / "adapter.safetensors").write_bytes((folder / "adapter.safetensors").read_bytes()[:-1])
        case "one bit of the optimizer":
            content = bytearray((folder / "optimizer.safetensors").read_bytes())
            content[-1] ^= 1
            (folder / "optimizer.safetensors").write_bytes(content)
        case "no matrices":
            (folder / "adapter.safetensors").unlink()
        case "no state":
            (folder / "state.json").unlink()
        case "empty state":
            (folder / "state.json").write_text("")
        case "state that says nothing":
            (folder / "state.json").write_text("{}")
        case "state that is no table":
            (folder / "state.json").write_text("null")
        case "nothing in it":
            shutil.rmtree(folder)
            folder.mkdir()
        case _:
            raise AssertionError(how)


@pytest.mark.parametrize(
    "how",
    [
        "matrices cut off", "one bit of the optimizer", "no matrices", "no state", "empty state", "state that says nothing",
        "state that is no table", "nothing in it",
    ],
)  # fmt: skip
def test_of_a_damaged_checkpoint_the_one_before_is_taken(tmp_path: Path, how: str) -> None:
    an_adapter = adapter()
    optimizer = trained(an_adapter)
    write(tmp_path, 10, an_adapter, optimizer)
    damage(write(tmp_path, 20, an_adapter, optimizer), how)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.step == 10


def test_a_checkpoint_of_another_rank_is_refused(tmp_path: Path) -> None:
    first = adapter(rank=2)
    write(tmp_path, 3, first, trained(first))
    found = checkpoint.newest(tmp_path)
    assert found is not None
    second = adapter(rank=3)
    with pytest.raises(RunError, match="does not fit this run"):
        checkpoint.restore(found, second, torch.optim.AdamW(second.parameters("unet")))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    an_adapter = adapter()
    optimizer = trained(an_adapter)
    write(tmp_path, 10, an_adapter, optimizer)
    monkeypatch.setattr(os, call, full)
    with pytest.raises(StorageError, match=r"Could not write .*000020: the disk is full"):
        write(tmp_path, 20, an_adapter, optimizer)
    assert [path.name for path in tmp_path.iterdir()] == ["000010"]
    assert checkpoint.newest(tmp_path) is not None


def test_what_a_killed_process_left_behind_is_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    an_adapter = adapter()
    written = write(tmp_path, 10, an_adapter, trained(an_adapter))
    written.rename(tmp_path / ".000010.part")
    assert checkpoint.newest(tmp_path) is None
    write(tmp_path, 10, an_adapter, trained(an_adapter))
    assert [path.name for path in tmp_path.iterdir()] == ["000010"]


@pytest.mark.parametrize("keep", [1, 3])
def test_a_damaged_one_is_not_counted_among_those_kept(tmp_path: Path, keep: int) -> None:
    an_adapter = adapter()
    optimizer = trained(an_adapter)
    for step in (10, 20, 40):
        checkpoint.write(tmp_path, checkpoint.Moment(step=step, smoothed=0, seconds=0), an_adapter, optimizer, keep=3)
    damage(tmp_path / "000040", "matrices cut off")
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert checkpoint.damaged(tmp_path, found) == [tmp_path / "000040"]
    checkpoint.write(tmp_path, checkpoint.Moment(step=30, smoothed=0, seconds=0), an_adapter, optimizer, keep=keep)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.step == 30
    assert {int(path.name) for path in tmp_path.iterdir()} == {*[10, 20, 30][-keep:], 40}
    written = checkpoint.write(tmp_path, checkpoint.Moment(step=40, smoothed=0, seconds=0), an_adapter, optimizer, keep=keep)
    assert checkpoint.damaged(tmp_path, checkpoint.newest(tmp_path)) == []
    assert written.name == "000040"


def test_where_none_is_whole_all_are_damaged(tmp_path: Path) -> None:
    an_adapter = adapter()
    damage(write(tmp_path, 10, an_adapter, trained(an_adapter)), "no state")
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.damaged(tmp_path, None) == [tmp_path / "000010"]


def test_a_checkpoint_that_is_whole_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    an_adapter = adapter()
    first = write(tmp_path, 10, an_adapter, trained(an_adapter))
    monkeypatch.setattr(os, "replace", None)
    assert write(tmp_path, 10, an_adapter, trained(an_adapter)) == first


def test_what_the_guard_has_seen_comes_back(tmp_path: Path) -> None:
    an_adapter = adapter()
    guard = Guard(halvings=2, recent=[0.1, 1 / 3], above=1)
    write(tmp_path, 3, an_adapter, trained(an_adapter), guard=guard)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.guard == guard


class Counting(torch.optim.SGD):
    """An optimizer that remembers plain values, of a matrix and of a group, and one tensor for all matrices."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["weight_sum"] = group.get("weight_sum", 0.0) + 0.1
            shared = torch.full((2,), group["weight_sum"])
            for matrix in group["params"]:
                self.state[matrix] |= {"steps": self.state[matrix].get("steps", 0) + 1, "map": shared}


def test_plain_values_and_shared_tensors_of_an_optimizer_come_back(tmp_path: Path) -> None:
    first, second = adapter(), adapter(seed=9)
    optimizer, restored = (Counting(each.parameters("unet"), lr=0.1) for each in (first, second))
    for _ in range(3):
        optimizer.step()
    write(tmp_path, 3, first, optimizer)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    checkpoint.restore(found, second, restored)
    assert restored.param_groups[0]["weight_sum"] == optimizer.param_groups[0]["weight_sum"]
    for matrix in second.parameters("unet"):
        assert restored.state[matrix]["steps"] == 3
        assert torch.equal(restored.state[matrix]["map"], torch.full((2,), optimizer.param_groups[0]["weight_sum"]))


@pytest.mark.parametrize("free", [527, 528])
def test_room_for_two_checkpoints_is_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    size = sum(matrix.numel() * 4 for matrix in adapter().parameters("unet"))  # 2 x 6 and 5 x 2 numbers
    assert 2 * 3 * size == 528
    if free == 528:
        checkpoint.require_room(tmp_path, adapter())
        return
    with pytest.raises(StorageError, match=r"too little room for the next checkpoint in .*free some space and resume the run"):
        checkpoint.require_room(tmp_path, adapter())


def test_nothing_in_a_checkpoint_can_run_code(tmp_path: Path) -> None:
    an_adapter = adapter()
    folder = write(tmp_path, 10, an_adapter, trained(an_adapter))
    assert sorted(path.name for path in folder.iterdir()) == ["adapter.safetensors", "optimizer.safetensors", "state.json"]
    assert json.loads((folder / "state.json").read_text())["step"] == 10
