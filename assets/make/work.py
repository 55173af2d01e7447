"""What the scripts that make the starter share: where they keep their work, checkpoints, the learning-rate curve."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch

STARTER = Path(__file__).resolve().parents[1] / "starter"
"""Where the finished starter base lies: a diffusers folder."""


def work_folder() -> Path:
    """Checkpoints and drawn pictures; `IMPASTO_MAKE_WORK` moves it (default: `build/starter` in the checkout)."""
    folder = Path(os.environ.get("IMPASTO_MAKE_WORK", Path(__file__).resolve().parents[2] / "build" / "starter"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cosine(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate: linear warm-up, then half a cosine down to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def load_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint that one of these scripts wrote."""
    state: dict[str, Any] = torch.load(path, map_location=device(), weights_only=True)
    return state
