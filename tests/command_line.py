"""What the tests of the commands share: short settings, and what a command answered."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from trainer import cli, commands_training
from trainer.home import Home
from trainer.training.run import Run

SHORT = [
    part
    for text in ("steps=2", "resolution=64", "rank=2", "alpha=1", "checkpoint_every=1", "sample_every=0")
    for part in ("--set", text)
]


class Told:
    """What a command answered."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> dict[str, Any]:
        """stdout, which must be exactly one JSON object on one line."""
        assert self.out.count("\n") == 1
        value: dict[str, Any] = json.loads(self.out)
        assert isinstance(value, dict)
        return value

    @property
    def sentence(self) -> str:
        """stderr, which must be exactly one sentence and no traceback."""
        assert self.out == ""
        assert self.err.count("\n") == 1
        assert "Traceback" not in self.err
        assert self.err.endswith(".\n")
        return self.err.strip()


def settings_of(folder: Path) -> dict[str, Any]:
    """What a run's settings.toml says."""
    table: dict[str, Any] = tomllib.loads((folder / "settings.toml").read_text(encoding="utf-8"))["settings"]
    return table


def asked_for(base: object, dataset: Path, out: Path, preset: str, *more: str) -> dict[str, Any]:
    """The settings that `train` writes, without the training itself."""

    def stand_in(run: Run, home: Home) -> dict[str, Any]:
        return {"lora": str(run.lora), "state": "finished", "steps": 0, "base": run.base}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands_training, "trained", stand_in)
        assert cli.main(["train", str(dataset), "--base", str(base), "--preset", preset, "--out", str(out), *more]) == 0
    return settings_of(out)
