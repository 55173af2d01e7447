"""Checkpoints: the LoRA's float32 matrices, the optimizer's state and the step, whole or not at all.

A checkpoint is a folder `checkpoints/000120`, written beside itself and renamed; `state.json`, written last, holds the
SHA-256 of the others, so that one that was cut off is known. Only safetensors and JSON: nothing that could run code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load, save

from trainer.errors import RunError, storing
from trainer.lora.adapter import Adapter
from trainer.training.optim import LossScale

KEPT = 2
_FILES = ("adapter.safetensors", "optimizer.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk that was found whole. `smoothed` is the smoothed loss at its step."""

    folder: Path
    step: int
    smoothed: float
    seconds: float
    scale: LossScale | None = None
    """Where the gradients are float16."""


def write(
    folder: Path,
    step: int,
    smoothed: float,
    seconds: float,
    adapter: Adapter,
    optimizer: torch.optim.Optimizer,
    scale: LossScale | None = None,
) -> Path:
    """Write the checkpoint of `step` into `folder` and drop the oldest ones. Raises `StorageError`."""
    target = folder / f"{step:06d}"
    part = folder / f".{step:06d}.part"
    contents = {
        "adapter.safetensors": save({name: matrix.detach().cpu().contiguous() for name, matrix in adapter.state().items()}),
        "optimizer.safetensors": save(_optimizer_tensors(optimizer)),
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    state = {"step": step, "smoothed": smoothed, "seconds": seconds, "sha256": digests}
    if scale:
        state["scale"] = dataclasses.asdict(scale)
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
    for old in _by_step(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None if there is none."""
    for candidate in reversed(_by_step(folder)):
        try:
            state = json.loads((candidate / "state.json").read_text(encoding="utf-8"))
            whole = all(hashlib.sha256((candidate / n).read_bytes()).hexdigest() == state["sha256"][n] for n in _FILES)
            if whole:
                scale = LossScale(**state["scale"]) if "scale" in state else None
                return Checkpoint(candidate, int(state["step"]), float(state["smoothed"]), float(state["seconds"]), scale)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _by_step(folder: Path) -> list[Path]:
    """The checkpoints, oldest first."""
    return sorted(folder.glob("[0-9]*"), key=lambda path: (len(path.name), path.name))


def restore(checkpoint: Checkpoint, adapter: Adapter, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's matrices and optimizer state back. Raises `RunError` if they are of another LoRA."""
    try:
        adapter.load_state(load((checkpoint.folder / "adapter.safetensors").read_bytes()))
        tensors = load((checkpoint.folder / "optimizer.safetensors").read_bytes())
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for index, parameter in enumerate(parameters if checkpoint.step else ()):  # before the first step there is no state
            state = {name: tensors[f"{index}.{name}"] for name in ("step", "exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {
                name: tensor if name == "step" else tensor.to(parameter.device) for name, tensor in state.items()
            }
    except (KeyError, RuntimeError) as error:
        raise RunError(f"{checkpoint.folder} does not fit this run ({error}): start a new run.") from None


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        f"{index}.{name}": tensor.detach().cpu().contiguous()
        for index, parameter in enumerate(parameters)
        for name, tensor in optimizer.state[parameter].items()
    }
