"""Checkpoints: whole or not there, and exact when they come back."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from trainer.errors import RunError, StorageError
from trainer.lora.adapter import Adapter
from trainer.lora.file import serialise
from trainer.lora.shape import Shape
from trainer.settings import Settings
from trainer.training import checkpoint
from trainer.training.guard import Guard
from trainer.training.optim import LossScale
from trainer.training.run import Run


def adapter(seed: int = 1, rank: int = 2) -> Adapter:
    """An adapter of one layer, enough for a checkpoint."""
    path = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    model: nn.Module = nn.Linear(6, 5)
    for name in reversed(path.split(".")):
        outer = nn.Module()
        outer.add_module(name, model)
        model = outer
    return Adapter.inject({"unet": model}, Shape(rank, 2.0), seed)


def trained(an_adapter: Adapter, steps: int = 3) -> torch.optim.AdamW:
    """Its optimizer after some steps."""
    optimizer = torch.optim.AdamW(an_adapter.parameters("unet"), lr=0.1)
    for step in range(steps):
        for matrix in an_adapter.parameters("unet"):
            matrix.grad = torch.full_like(matrix, 0.1 * (step + 1))
        optimizer.step()
    return optimizer


def a_run(folder: Path, **settings: Any) -> Run:
    """A run of which two checkpoints are kept, unless `settings` say otherwise."""
    return Run(folder / "style", folder / "set", "starter", "balanced", Settings(**{"keep_checkpoints": 2, **settings}))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return a_run(tmp_path)


def write(run: Run, step: int, an_adapter: Adapter, optimizer: torch.optim.Optimizer, **more: Any) -> Path:
    """A checkpoint of that step."""
    moment = checkpoint.Moment(**{"step": step, "smoothed": 0.25, "seconds": 1.5, **more})
    return checkpoint.write(run, moment, an_adapter, optimizer, lora=b"the LoRA")


def names(run: Run) -> list[str]:
    """What lies in the folder of the checkpoints."""
    return sorted(path.name for path in run.checkpoints.iterdir())


def test_everything_comes_back_bit_for_bit(run: Run) -> None:
    first = adapter()
    optimizer = trained(first)
    write(run, 3, first, optimizer)
    found = checkpoint.newest(run.checkpoints)
    assert found is not None
    assert (found.step, found.smoothed, found.seconds) == (3, 0.25, 1.5)
    second = adapter(seed=9)
    restored = torch.optim.AdamW(second.parameters("unet"), lr=0.1)
    checkpoint.restore(found, run, second, restored)
    for one, other in zip(first.parameters("unet"), second.parameters("unet"), strict=True):
        assert torch.equal(one, other)
        for name in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[one][name], restored.state[other][name])


def test_a_checkpoint_from_before_the_first_step_comes_back(run: Run) -> None:
    first = adapter()
    write(run, 0, first, trained(first, steps=0))
    found = checkpoint.newest(run.checkpoints)
    assert found is not None
    second = adapter(seed=9)
    checkpoint.restore(found, run, second, torch.optim.AdamW(second.parameters("unet"), lr=0.1))
    assert torch.equal(first.parameters("unet")[0], second.parameters("unet")[0])


@pytest.mark.parametrize("scale", [None, LossScale(512.0, steps=77)])
def test_the_scale_of_the_loss_comes_back(run: Run, scale: LossScale | None) -> None:
    an_adapter = adapter()
    write(run, 3, an_adapter, trained(an_adapter), scale=scale)
    found = checkpoint.newest(run.checkpoints)
    assert found is not None
    assert found.scale == scale


def test_without_a_checkpoint_there_is_none(run: Run) -> None:
    assert checkpoint.newest(run.checkpoints) is None


@pytest.mark.parametrize("steps", [[10, 20, 30, 40], [999_998, 999_999, 1_000_000]])
def test_the_newest_ones_are_kept(run: Run, steps: list[int]) -> None:
    an_adapter = adapter()
    optimizer = trained(an_adapter)
    for step in steps:
        write(run, step, an_adapter, optimizer)
    found = checkpoint.newest(run.checkpoints)
    assert found is not None
    assert found.step == steps[-1]
    assert {int(name) for name in names(run)} == set(steps[-2:])


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
def test_of_a_damaged_checkpoint_the_one_before_is_taken(run: Run, how: str) -> None:
    an_adapter = adapter()
    optimizer = trained(an_adapter)
    write(run, 10, an_adapter, optimizer)
    damage(write(run, 20, an_adapter, optimizer), how)
    found = checkpoint.newest(run.checkpoints)
    assert found is not None
    assert found.step == 10


def test_a_checkpoint_of_another_rank_is_refused(run: Run) -> None:
    first = adapter(rank=2)
    write(run, 3, first, trained(first))
    found = checkpoint.newest(run.checkpoints)
    assert found is not None
    second = adapter(rank=3)
    with pytest.raises(RunError, match="does not fit this run"):
        checkpoint.restore(found, run, second, torch.optim.AdamW(second.parameters("unet")))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_checkpoint_before(run: Run, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    an_adapter = adapter()
    optimizer = trained(an_adapter)
    write(run, 10, an_adapter, optimizer)
    monkeypatch.setattr(os, call, full)
    with pytest.raises(StorageError, match=r"Could not write .*000020: the disk is full"):
        write(run, 20, an_adapter, optimizer)
    assert names(run) == ["000010"]
    assert checkpoint.newest(run.checkpoints) is not None


def test_what_a_killed_process_left_behind_is_not_taken_for_a_checkpoint(run: Run) -> None:
    an_adapter = adapter()
    written = write(run, 10, an_adapter, trained(an_adapter))
    written.rename(run.checkpoints / ".000010.part")
    assert checkpoint.newest(run.checkpoints) is None
    write(run, 10, an_adapter, trained(an_adapter))
    assert names(run) == ["000010"]


@pytest.mark.parametrize("keep", [1, 3])
def test_a_damaged_one_is_not_counted_among_those_kept(tmp_path: Path, keep: int) -> None:
    an_adapter, run = adapter(), a_run(tmp_path, keep_checkpoints=3)
    optimizer = trained(an_adapter)
    for step in (10, 20, 40):
        write(run, step, an_adapter, optimizer)
    damage(run.checkpoints / "000040", "matrices cut off")
    found = checkpoint.newest(run.checkpoints)
    assert found is not None
    assert checkpoint.damaged(run.checkpoints, found) == [run.checkpoints / "000040"]
    run = a_run(tmp_path, keep_checkpoints=keep)
    write(run, 30, an_adapter, optimizer)
    found = checkpoint.newest(run.checkpoints)
    assert found is not None
    assert found.step == 30
    assert {int(name) for name in names(run)} == {*[10, 20, 30][-keep:], 40}
    written = write(run, 40, an_adapter, optimizer)
    assert checkpoint.damaged(run.checkpoints, checkpoint.newest(run.checkpoints)) == []
    assert written.name == "000040"


def test_where_none_is_whole_all_are_damaged(run: Run) -> None:
    an_adapter = adapter()
    damage(write(run, 10, an_adapter, trained(an_adapter)), "no state")
    assert checkpoint.newest(run.checkpoints) is None
    assert checkpoint.damaged(run.checkpoints, None) == [run.checkpoints / "000010"]


def test_a_checkpoint_that_is_whole_is_not_written_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    an_adapter = adapter()
    first = write(run, 10, an_adapter, trained(an_adapter))
    monkeypatch.setattr(os, "replace", None)
    assert write(run, 10, an_adapter, trained(an_adapter)) == first


def test_what_the_guard_has_seen_comes_back(run: Run) -> None:
    an_adapter = adapter()
    guard = Guard(halvings=2, recent=[0.1, 1 / 3], above=1)
    write(run, 3, an_adapter, trained(an_adapter), guard=guard)
    found = checkpoint.newest(run.checkpoints)
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


def test_plain_values_and_shared_tensors_of_an_optimizer_come_back(run: Run) -> None:
    first, second = adapter(), adapter(seed=9)
    optimizer, restored = (Counting(each.parameters("unet"), lr=0.1) for each in (first, second))
    for _ in range(3):
        optimizer.step()
    write(run, 3, first, optimizer)
    found = checkpoint.newest(run.checkpoints)
    assert found is not None
    checkpoint.restore(found, run, second, restored)
    assert restored.param_groups[0]["weight_sum"] == optimizer.param_groups[0]["weight_sum"]
    for matrix in second.parameters("unet"):
        assert restored.state[matrix]["steps"] == 3
        assert torch.equal(restored.state[matrix]["map"], torch.full((2,), optimizer.param_groups[0]["weight_sum"]))


@pytest.mark.parametrize(("ema", "copies"), [(0.0, 3.5), (0.9, 4.5)])
def test_room_for_two_checkpoints_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: float, copies: float
) -> None:
    size = sum(matrix.numel() * 4 for matrix in adapter().parameters("unet"))  # 2 x 6 and 5 x 2 numbers
    run = a_run(tmp_path, ema=ema)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * copies * size))
    checkpoint.require_room(run, adapter())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * copies * size - 1))
    with pytest.raises(StorageError, match=r"too little room for the next checkpoint in .*free some space and resume the run"):
        checkpoint.require_room(run, adapter())


def test_a_large_checkpoint_takes_no_more_than_the_room_asked_for(tmp_path: Path) -> None:
    an_adapter = adapter(rank=5000)
    optimizer = trained(an_adapter, steps=1)
    run = a_run(tmp_path, ema=0.9)
    lora = serialise(an_adapter.factors(), {})
    moment = checkpoint.Moment(step=1, smoothed=0, seconds=0)
    folder = checkpoint.write(run, moment, an_adapter, optimizer, lora=lora, average=an_adapter.state())
    size = sum(matrix.nbytes for matrix in an_adapter.parameters("unet"))
    assert sum(path.stat().st_size for path in folder.iterdir()) == pytest.approx(4.5 * size, rel=0.02)


def test_nothing_in_a_checkpoint_can_run_code(run: Run) -> None:
    an_adapter = adapter()
    folder = write(run, 10, an_adapter, trained(an_adapter))
    files = ["adapter.safetensors", "optimizer.safetensors", "state.json", "style-000010.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == files
    assert json.loads((folder / "state.json").read_text())["step"] == 10


# What lies in it beside the matrices ------------------------------------------------------------------------------------


def test_the_lora_of_the_moment_is_in_it(run: Run) -> None:
    an_adapter = adapter()
    folder = write(run, 120, an_adapter, trained(an_adapter))
    path = folder / "style-000120.safetensors"
    assert path.read_bytes() == b"the LoRA"
    path.write_bytes(b"the LoRa")
    assert checkpoint.newest(run.checkpoints) is None


def test_a_running_average_comes_back(run: Run) -> None:
    an_adapter = adapter()
    moment = checkpoint.Moment(step=3, smoothed=0, seconds=0)
    average = {name: matrix + 1 for name, matrix in an_adapter.state().items()}
    folder = checkpoint.write(run, moment, an_adapter, trained(an_adapter, 0), lora=b"", average=average)
    found = checkpoint.newest(run.checkpoints)
    assert found is not None
    assert found.average.keys() == average.keys()
    assert all(torch.equal(found.average[name], matrix) for name, matrix in average.items())
    (folder / "average.safetensors").unlink()
    assert checkpoint.newest(run.checkpoints) is None


def test_without_one_there_is_none(run: Run) -> None:
    write(run, 3, adapter(), trained(adapter()))
    found = checkpoint.newest(run.checkpoints)
    assert found is not None
    assert found.average == {}


def test_settings_that_shaped_its_steps_must_be_kept(tmp_path: Path, run: Run) -> None:
    first = adapter()
    write(run, 3, first, trained(first))
    found = checkpoint.newest(run.checkpoints)
    assert found is not None
    other = a_run(tmp_path, seed=7, steps=900)
    second = adapter(seed=9)
    untouched = second.parameters("unet")[0].clone()
    with pytest.raises(RunError, match=r"settings\.toml no longer fits .*: seed was 1 and is now 7\."):
        checkpoint.restore(found, other, second, trained(second, 0))
    assert torch.equal(second.parameters("unet")[0], untouched)


def test_a_checkpoint_that_tells_of_no_settings_comes_back(tmp_path: Path, run: Run) -> None:
    first = adapter()
    state = write(run, 3, first, trained(first)) / "state.json"
    told = json.loads(state.read_text())
    del told["settings"]
    state.write_text(json.dumps(told))
    found = checkpoint.newest(run.checkpoints)
    assert found is not None
    second = adapter(seed=9)
    checkpoint.restore(found, a_run(tmp_path, seed=7), second, trained(second, 0))
    assert torch.equal(first.parameters("unet")[0], second.parameters("unet")[0])


# In what order it is written --------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="names of open files are asked of /proc")
def test_all_is_on_the_disk_before_the_name_is_and_the_manifest_comes_last(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    fsync, replace = os.fsync, os.replace

    def flushed(handle: int) -> None:
        happened.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    def renamed(old: Path, new: Path) -> None:
        happened.append(f"{old.name} -> {new.name}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    write(run, 10, adapter(), trained(adapter()))
    files = ["adapter.safetensors", "optimizer.safetensors", "style-000010.safetensors", "state.json"]
    assert happened == [*files, ".000010.part", ".000010.part -> 000010", "checkpoints"]


def test_where_a_folder_is_in_the_way_it_is_a_damaged_one(run: Run) -> None:
    an_adapter = adapter()
    write(run, 5, an_adapter, trained(an_adapter))
    (run.checkpoints / "000010").mkdir()
    (run.checkpoints / "000010" / "state.json").touch()
    write(run, 10, an_adapter, trained(an_adapter))
    found = checkpoint.newest(run.checkpoints)
    assert found is not None
    assert found.step == 10
