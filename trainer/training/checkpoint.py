"""Checkpoints: the LoRA's float32 matrices, the optimizer's state and the moment of the training, whole or not at all.

A checkpoint is a folder `checkpoints/000120`, written beside itself and renamed; `state.json`, written last, holds the
SHA-256 of the others, so that one that was cut off is known. Only safetensors and JSON: nothing that could run code.
Knows no optimizer by name: what one remembers is tensors and plain values.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from trainer.errors import RunError, StorageError, storing
from trainer.lora.adapter import Adapter
from trainer.training.guard import Guard
from trainer.training.optim import LossScale

_FILES = ("adapter.safetensors", "optimizer.safetensors")

_COPIES = 3
"""A checkpoint is about so many times its matrices: themselves, and two more of the optimizer."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where a training stands, apart from its tensors. `smoothed` is the smoothed loss at its step."""

    step: int
    smoothed: float
    seconds: float
    scale: LossScale | None = None
    """Where the gradients are float16."""
    guard: Guard = field(default_factory=Guard)


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Moment):
    """A checkpoint on disk that was found whole."""

    folder: Path
    values: Mapping[str, Any]
    """What the optimizer remembers beside tensors, by the names of `_values`."""


def write(folder: Path, moment: Moment, adapter: Adapter, optimizer: torch.optim.Optimizer, keep: int) -> Path:
    """Write a checkpoint into `folder`, then drop all but the `keep` last. Raises `StorageError`.

    One of the same step that is whole already stays: steps are exact, so it holds the same.
    """
    target = folder / f"{moment.step:06d}"
    part = folder / f".{moment.step:06d}.part"
    if _read(target):
        return target
    contents = {
        "adapter.safetensors": save({name: matrix.detach().cpu().contiguous() for name, matrix in adapter.state().items()}),
        "optimizer.safetensors": save(dict(_tensors(optimizer))),
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    state = {**dataclasses.asdict(moment), "optimizer": dict(_values(optimizer)), "sha256": digests}
    with storing(target):
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            for name, content in {**contents, "state.json": json.dumps(state).encode()}.items():
                with (part / name).open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            shutil.rmtree(target, ignore_errors=True)
            os.replace(part, target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    written = _by_step(folder)
    for old in written[: written.index(target) + 1][:-keep]:  # what lies behind it is damaged, and does not count
        shutil.rmtree(old, ignore_errors=True)
    return target


def require_room(folder: Path, adapter: Adapter) -> None:
    """Raise `StorageError` if the disk of `folder` has not room for two more checkpoints: asked while nothing can be lost."""
    with storing(folder):
        free = shutil.disk_usage(folder).free
    needed = 2 * _COPIES * sum(matrix.nbytes for matrix in adapter.state().values())
    if free < needed:
        raise StorageError(
            f"There is too little room for the next checkpoint in {folder}: {free / 1e6:,.0f} MB are free, "
            f"{needed / 1e6:,.0f} MB are wanted. Nothing is lost so far: free some space and resume the run."
        )


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None if there is none."""
    return next((found for path in reversed(_by_step(folder)) if (found := _read(path))), None)


def damaged(folder: Path, found: Checkpoint | None) -> list[Path]:
    """Those that `newest` passed over to come to `found`."""
    paths = _by_step(folder)
    return paths[paths.index(found.folder) + 1 :] if found else paths


def _read(folder: Path) -> Checkpoint | None:
    """The checkpoint in `folder`; None if it is not whole."""
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if any(hashlib.sha256((folder / name).read_bytes()).hexdigest() != state["sha256"][name] for name in _FILES):
            return None
        return Checkpoint(
            folder=folder,
            step=int(state["step"]),
            smoothed=float(state["smoothed"]),
            seconds=float(state["seconds"]),
            scale=LossScale(**state["scale"]) if state.get("scale") else None,
            guard=Guard(**state.get("guard", {})),
            values=state.get("optimizer", {}),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _by_step(folder: Path) -> list[Path]:
    """The checkpoints, oldest first."""
    return sorted(folder.glob("[0-9]*"), key=lambda path: (len(path.name), path.name))


def restore(checkpoint: Checkpoint, adapter: Adapter, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's matrices and optimizer state back. Raises `RunError` if they are of another LoRA."""
    try:
        adapter.load_state(load((checkpoint.folder / "adapter.safetensors").read_bytes()))
        parameters = [(parameter, group) for group in optimizer.param_groups for parameter in group["params"]]
        optimizer.state.clear()
        for name, tensor in load((checkpoint.folder / "optimizer.safetensors").read_bytes()).items():
            index, _, key = name.partition(".")
            parameter, group = parameters[int(index)]
            counts = key == "step" and not (group.get("fused") or group.get("capturable"))  # torch counts on the CPU then
            optimizer.state[parameter][key] = tensor if counts else tensor.to(parameter.device)
        for name, value in checkpoint.values.items():
            kind, index, key = name.split(".", 2)
            (optimizer.param_groups[int(index)] if kind == "group" else optimizer.state[parameters[int(index)][0]])[key] = value
    except (KeyError, IndexError, RuntimeError) as error:
        raise RunError(f"{checkpoint.folder} does not fit this run ({error}): start a new run.") from None


def _states(optimizer: torch.optim.Optimizer) -> Iterator[tuple[int, str, Any]]:
    """What the optimizer remembers of each matrix: the matrix's place, a name, a value."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, parameter in enumerate(parameters):
        for key, value in optimizer.state.get(parameter, {}).items():
            yield index, key, value


def _tensors(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors among it, as `12.exp_avg`; copied, because a file cannot hold one that two matrices share."""
    for index, key, value in _states(optimizer):
        if isinstance(value, torch.Tensor):
            yield f"{index}.{key}", value.detach().to("cpu", copy=True).contiguous()


def _values(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Any]]:
    """The plain values, as `state.12.step` and, of a group of matrices, `group.0.lr`."""
    for index, key, value in _states(optimizer):
        if not isinstance(value, torch.Tensor):
            yield f"state.{index}.{key}", value
    for index, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            if isinstance(value, int | float):
                yield f"group.{index}.{key}", value
