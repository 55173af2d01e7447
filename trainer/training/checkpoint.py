"""Checkpoints: the LoRA's float32 matrices, the optimizer's state and the moment of the training, whole or not at all.

A checkpoint is a folder `checkpoints/000120`, written beside itself and renamed; `state.json`, written last, holds the
SHA-256 of the others, so that one that was cut off is known. Only safetensors and JSON: nothing that could run code.
Knows no optimizer by name: what one remembers is tensors and plain values.

adapter.safetensors      the matrices, in float32
optimizer.safetensors    what the optimizer remembers of them
average.safetensors      their running average, where there is one
NAME-000120.safetensors  the LoRA of this step, as every tool reads it
state.json               the `Moment`, the optimizer's plain values, the settings, the SHA-256 of the files above
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from trainer.errors import RunError, StorageError, storing
from trainer.home import replace, sync_folder
from trainer.lora.adapter import Adapter
from trainer.training.average import Average
from trainer.training.guard import Guard
from trainer.training.optim import LossScale
from trainer.training.run import Run
from trainer.training.shaping import require_same, shaping

_FILES = frozenset({"adapter.safetensors", "optimizer.safetensors"})
"""Those that every checkpoint has."""

_ASIDE = ".aside"
"""Ends the names of checkpoints that are not to be gone on from."""

_COPIES = 3.5
"""A checkpoint is about so many times its matrices: themselves, two more of the optimizer, and the LoRA in float16."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where a training stands, apart from its tensors. `smoothed` is the smoothed loss at its step."""

    step: int
    smoothed: float
    seconds: float
    scale: LossScale | None = None
    """Where the gradients are float16."""
    guard: Guard = field(default_factory=Guard)
    base: str = ""
    """What the base's weights are known by; empty where that is not known."""
    processes: int = 1
    """How many take the steps together."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Moment):
    """A checkpoint on disk that was found whole."""

    folder: Path
    values: Mapping[str, Any]
    """What the optimizer remembers beside tensors, by the names of `_values`."""
    settings: Mapping[str, Any]
    """The settings that shaped its steps; none in one that was written before they were kept."""

    @property
    def average(self) -> dict[str, torch.Tensor]:
        """The running average of the matrices, by the names of `Adapter.state`; empty if it has none."""
        path = self.folder / "average.safetensors"
        return load(path.read_bytes()) if path.is_file() else {}


def write(
    run: Run,
    moment: Moment,
    adapter: Adapter,
    optimizer: torch.optim.Optimizer,
    *,
    lora: bytes,
    average: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """Write a checkpoint of `run`, then drop all but the last ones that are to be kept. Raises `StorageError`.

    `lora` is the LoRA of the moment as a file holds it, `average` what `Checkpoint.average` gives back. A checkpoint of
    the same step that is whole already stays: steps are exact, so it holds the same.
    """
    folder = run.checkpoints
    target = folder / f"{moment.step:06d}"
    if _read(target):
        return target
    contents = {
        "adapter.safetensors": _bytes(adapter.state()),
        "optimizer.safetensors": save(dict(_tensors(optimizer))),
        f"{run.name}-{moment.step:06d}.safetensors": lora,
    }
    if average:
        contents["average.safetensors"] = _bytes(average)
    state = {
        **dataclasses.asdict(moment),
        "optimizer": dict(_values(optimizer)),
        "settings": shaping(run.settings),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    with storing(target):
        _write_folder(target, {**contents, "state.json": json.dumps(state).encode()})
    written = _by_step(folder)
    older = written[: written.index(target) + 1]  # what lies behind it is damaged, and does not count
    for old in older[: -run.settings.keep_checkpoints]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def _write_folder(target: Path, contents: Mapping[str, bytes]) -> None:
    """Write a folder of files whole or not at all: beside itself, in their order, flushed to the disk, then renamed.

    What is at `target` is lost: there is something only if it is damaged.
    """
    part = target.with_name(f".{target.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name, content in contents.items():
            with (part / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        sync_folder(part)
        shutil.rmtree(target, ignore_errors=True)
        replace(part, target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def require_room(run: Run, adapter: Adapter) -> None:
    """Raise `StorageError` if the disk has not room for two more checkpoints of `run`: asked while nothing can be lost."""
    folder = run.folder
    with storing(folder):
        free = shutil.disk_usage(folder).free
    copies = _COPIES + (run.settings.ema > 0)
    needed = math.ceil(2 * copies * sum(matrix.nbytes for matrix in adapter.state().values()))
    if free < needed:
        raise StorageError(
            f"There is too little room for the next checkpoint in {folder}: {free / 1e6:,.0f} MB are free, "
            f"{needed / 1e6:,.0f} MB are wanted. Nothing is lost so far: free some space and resume the run."
        )


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None if there is none."""
    return next((found for path in reversed(_by_step(folder)) if (found := _read(path))), None)


def set_aside(checkpoint: Checkpoint) -> None:
    """Rename a checkpoint, so that the one before it is the newest. Raises `StorageError`."""
    aside = checkpoint.folder.with_name(f"{checkpoint.folder.name}{_ASIDE}")
    with storing(aside):
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(checkpoint.folder, aside)


def take_back(folder: Path) -> None:
    """Make the last one that was set aside the newest again, if there is one. Raises `StorageError`."""
    aside = max(folder.glob(f"*{_ASIDE}"), default=None)
    if aside:
        with storing(aside):
            os.replace(aside, aside.with_name(aside.name.removesuffix(_ASIDE)))


def damaged(folder: Path, found: Checkpoint | None) -> list[Path]:
    """Those that `newest` passed over to come to `found`."""
    paths = _by_step(folder)
    return paths[paths.index(found.folder) + 1 :] if found else paths


def _read(folder: Path) -> Checkpoint | None:
    """The checkpoint in `folder`; None if it is not whole."""
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        digests = state["sha256"]
        if not digests.keys() >= _FILES or any(_digest(folder / name) != digest for name, digest in digests.items()):
            return None
        return Checkpoint(
            folder=folder,
            step=int(state["step"]),
            smoothed=float(state["smoothed"]),
            seconds=float(state["seconds"]),
            scale=LossScale(**state["scale"]) if state.get("scale") else None,
            guard=Guard(**state.get("guard", {})),
            base=str(state.get("base", "")),
            processes=int(state.get("processes", 1)),
            values=state.get("optimizer", {}),
            settings=state.get("settings", {}),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _by_step(folder: Path) -> list[Path]:
    """The checkpoints, oldest first."""
    named = (path for path in folder.glob("[0-9]*") if path.name.isdigit())  # not "000002 - Copy"
    return sorted(named, key=lambda path: int(path.name))


def restore(
    checkpoint: Checkpoint, run: Run, adapter: Adapter, optimizer: torch.optim.Optimizer, average: Average | None = None
) -> None:
    """Put a checkpoint's matrices, their average and the optimizer's state back.

    Raises `RunError` if they are of another LoRA, or if the settings that shaped them are no longer those of `run`.
    """
    require_same(checkpoint.settings, run.settings, run.folder)
    try:
        adapter.load_state(load((checkpoint.folder / "adapter.safetensors").read_bytes()))
        if average:
            average.load(checkpoint.average)
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


def _bytes(matrices: Mapping[str, torch.Tensor]) -> bytes:
    """Tensors as a file holds them."""
    return save({name: matrix.detach().cpu().contiguous() for name, matrix in matrices.items()})


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
