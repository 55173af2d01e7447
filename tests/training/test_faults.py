"""A disk that is full at any write of a training: a sentence or a warning, nothing half-written, and the same LoRA later."""

from __future__ import annotations

import copy
import dataclasses
import errno
import io
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import held, save_dataset, short_run
from trainer.bases.source import facts_of
from trainer.errors import ImpastoError
from trainer.home import Home
from trainer.sdxl.base import Base, load_base
from trainer.training import checkpoint, prepare
from trainer.training.events import Event, Finished
from trainer.training.loop import train

SETTINGS: dict[str, Any] = {
    "steps": 2, "checkpoint_every": 1, "keep_checkpoints": 1, "sample_every": 2, "sample_prompts": ("a house",),
    "sample_steps": 1, "ema": 0.5, "te1_lr": 0, "te2_lr": 0, "batch": 1, "style_blocks_only": True,
}  # fmt: skip
"""Everything that a training writes, in two short steps."""


class Disk:
    """Takes note of what is done to files under `root`; the write number `full`, from 1, fails, and if it is `lasting` those
    after it too.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, full: int = 0, lasting: bool = True) -> None:
        self.writes: list[str] = []
        """Their kinds, as `call file`."""
        self.failed = False
        self._root, self._full, self._lasting = root, full, lasting
        self._open = io.open
        patch.setattr(io, "open", self._opened)
        for call in ("mkdir", "replace", "fsync"):
            self._watch(patch, call, getattr(os, call))

    def write(self, call: str, path: object) -> None:
        """Take note of a write, which may fail."""
        name = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else str(path)
        if not name.startswith(str(self._root)):
            return
        self.writes.append(f"{call} {self._kind(name)}")
        if self._lasting if self.failed else len(self.writes) == self._full:
            self.failed = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _kind(self, name: str) -> str:
        """A file's name without its step, its process and its content's digest."""
        return re.sub(r"[0-9a-f]{16,}|\d+", "#", os.path.relpath(name, self._root))

    def _watch(self, patch: pytest.MonkeyPatch, call: str, real: Any) -> None:
        def watched(path: Any, *more: Any, **named: Any) -> Any:
            self.write(call, path)
            return real(path, *more, **named)

        patch.setattr(os, call, watched)

    def _opened(self, path: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        if not set(mode) & set("wax+"):
            return self._open(path, mode, *more, **named)
        self.write("open", path)
        return _File(self._open(path, mode, *more, **named), self, path)


class _File:
    """An open file whose writes are counted."""

    def __init__(self, file: Any, disk: Disk, path: Path) -> None:
        self._file, self._disk, self._path = file, disk, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, content: Any) -> Any:
        """Write half of it where the disk is full."""
        try:
            self._disk.write("write", self._path)
        except OSError:
            self._file.write(content[: len(content) // 2])
            raise
        return self._file.write(content)


@pytest.fixture(scope="module")
def base(toy_base: Path) -> Iterator[Path]:
    """The toy base, read once: every training gets a U-Net of its own, which is all that it changes."""
    kept = load_base(facts_of(str(toy_base)), torch.device("cpu"), torch.float32, None)

    def copied(*_: object) -> Base:
        return dataclasses.replace(kept, unet=copy.deepcopy(kept.unet))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "load_base", copied)
        yield toy_base


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of one picture."""
    return save_dataset(tmp_path_factory.mktemp("one") / "set", ((64, 64),))


class Place:
    """A new run in a home of its own, which is empty."""

    def __init__(self, root: Path, base: Path, dataset: Path) -> None:
        self.root, self.home = root, Home(root / "home")
        self.run = short_run(root / "run", dataset, base, **SETTINGS)

    def trained(self, full: int = 0, lasting: bool = True) -> tuple[Disk, list[Event], ImpastoError | None]:
        """Train the run on a disk: what happened, and the sentence in which it ended."""
        events: list[Event] = []
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(self.root, patch, full, lasting)
            try:
                for event in self.run.recorded(train(self.run, self.home)):
                    events.append(event)
            except ImpastoError as error:
                return disk, events, error
        return disk, events, None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="names of open files are asked of /proc")
def test_whichever_write_fails_it_ends_in_a_sentence_and_goes_on_to_the_same_lora(
    base: Path, one: Path, tmp_path: Path
) -> None:
    first = Place(tmp_path / "first", base, one)
    counting = [number for number, kind in enumerate(first.trained()[0].writes, 1) if "counts" in kind]
    counted = first.home.cache / "counts"  # what is counted of a base, which takes long: of its writes every tenth is enough
    alone = Place(tmp_path / "alone", base, one)
    shutil.copytree(counted, alone.home.cache / "counts")
    writes, whole = alone.trained()[0].writes, held(alone.run)
    assert len(writes) > 100
    for number, fresh in [*((number, False) for number in range(1, len(writes) + 1)), *((n, True) for n in counting[::10])]:
        place, kind = Place(tmp_path / f"{number}{fresh}", base, one), f"write {number}"
        if not fresh:
            shutil.copytree(counted, place.home.cache / "counts")
        disk, events, error = place.trained(number, lasting=number % 2 == 0)
        assert disk.failed, kind
        assert error is not None or isinstance(events[-1], Finished), kind
        if error is not None:
            assert re.match(r"Could not write .*: the disk is full: free some space and go on\.", str(error)), kind
        left = [path.name for path in place.root.rglob("*") if path.name.endswith(".part")]
        assert (kind, left) == (kind, [])
        assert not place.run.alive(), kind
        assert checkpoint.damaged(place.run.checkpoints, checkpoint.newest(place.run.checkpoints)) == [], kind
        place.trained()
        assert held(place.run) == whole, kind
        shutil.rmtree(place.root)
