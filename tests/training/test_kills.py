"""A training that is killed, again and again and at any moment, goes on to the very LoRA of one that is left alone."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import held, short_run
from trainer.bases.source import facts_of
from trainer.home import Home
from trainer.sdxl.base import load_base
from trainer.training import checkpoint, prepare
from trainer.training.events import Finished, Resumed, Saved, Stepped
from trainer.training.loop import train
from trainer.training.run import Run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork, with which a process begins warm"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

KILLS = 50
"""With each optimizer."""

INSIDE = 15
"""So many of them at least while a checkpoint is written."""

SETTINGS: dict[str, Any] = {
    "steps": 16, "checkpoint_every": 2, "keep_checkpoints": 2, "batch": 2, "accumulation": 2, "ema": 0.9,
    "shuffle_tags": True, "caption_dropout": 0.2, "noise_offset": 0.1, "flip": True, "rank": 2,
}  # fmt: skip
"""With all that a training has to remember, or to draw anew."""

CAPTION = {"te1_lr": 0, "te2_lr": 0, "wildcards": True, "tag_dropout": 0.2}
"""Text that is encoded only once, in variants."""


@pytest.fixture(scope="module")
def base(toy_base: Path) -> Iterator[Path]:
    """The toy base, read before a process is forked, which then has it of its own."""
    kept = load_base(facts_of(str(toy_base)), torch.device("cpu"), torch.float32, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "load_base", lambda *_: kept)
        yield toy_base


def begun(run: Run, home: Home, last: int = 0, doom: tuple[int, float] | None = None) -> int:
    """A process that trains `run`, warm as this one is; it stops after the step `last`, or dies of its `doom`."""
    child = os.fork()
    if child:
        return child
    if doom:
        sys.addaudithook(Fuse(str(run.checkpoints), *doom).see)
    status = 1
    try:
        for event in run.recorded(train(run, home)):
            if isinstance(event, Stepped) and event.step == last:
                run.ask("stop")
        status = 0
    finally:
        if status:
            traceback.print_exc()
        os._exit(status)


class Fuse:
    """Kills its own process `delay` seconds after the `left`-th time that something is done to a half-written checkpoint."""

    def __init__(self, folder: str, left: int, delay: float) -> None:
        self.folder, self.left, self.delay = folder, left, delay

    def see(self, event: str, given: tuple[Any, ...]) -> None:
        """Python's own report of what is about to be done: a file opened, a folder made or renamed."""
        if event in ("open", "os.rename") and str(given[0]).startswith(f"{self.folder}/.") and ".part" in str(given[0]):
            self.left -= 1
            if self.left == 0 and self.delay:
                threading.Timer(self.delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
            elif self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class Killer:
    """Kills a training's process: at any moment of it, or in every second case while it writes a checkpoint."""

    def __init__(self, seed: int, seconds: float) -> None:
        self.random, self.seconds = random.Random(seed), seconds
        self.kills = self.inside = 0

    def spares(self, run: Run, home: Home) -> bool:
        """Train and kill, unless it ends before; whether it did, and well."""
        inside, deadline = self.random.random() < 0.5, time.monotonic() + self.seconds * self.random.random()
        doom = self.random.randint(1, 12), self.random.choice((0, 0.002 * self.random.random()))
        child = begun(run, home, doom=doom if inside else None)
        while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if not inside and time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                break
            time.sleep(0.001)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, -signal.SIGKILL)
        self.kills += status != 0
        self.inside += status != 0 and any(run.checkpoints.glob(".*.part"))
        return status == 0


def assert_nothing_is_lost(run: Run) -> None:
    """Every checkpoint that was told of is there, and whole."""
    saved = [event.step for event in run.events() if isinstance(event, Saved)]
    found = checkpoint.newest(run.checkpoints)
    assert checkpoint.damaged(run.checkpoints, found) == []
    assert (found.step if found else 0) >= max(saved, default=0)


@pytest.mark.parametrize("more", [{"optimizer": "adamw"}, {"optimizer": "adafactor", **CAPTION}], ids=["adamw", "adafactor"])
def test_a_hundred_kills_change_nothing(base: Path, dataset: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    settings, home = {**SETTINGS, **more}, Home(tmp_path / "home")
    for name in ("first", "alone"):  # the first one finds nothing in the cache
        alone, start = short_run(tmp_path / name, dataset, base, **settings), time.monotonic()
        assert os.waitpid(begun(alone, home), 0)[1] == 0
    killer, runs = Killer(7, time.monotonic() - start), 0
    while killer.kills < KILLS or killer.inside < INSIDE:
        run = short_run(tmp_path / str(runs), dataset, base, **settings)
        while not killer.spares(run, home):
            assert not run.alive()
            assert_nothing_is_lost(run)
        assert isinstance(list(run.events())[-1], Finished)
        assert held(run) == held(alone)
        assert list(run.folder.rglob(".*.part")) == []
        runs += 1
    print(f"{killer.kills} kills, {killer.inside} of them inside a checkpoint, in {runs} runs")


def test_five_resumes_in_a_chain_change_nothing(base: Path, dataset: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    alone, parted = (short_run(tmp_path / name, dataset, base, **SETTINGS) for name in ("alone", "parted"))
    assert os.waitpid(begun(alone, home), 0)[1] == 0
    for last in (1, 2, 5, 9, 14, 0):
        assert os.waitpid(begun(parted, home, last), 0)[1] == 0
    assert [event.step for event in parted.events() if isinstance(event, Resumed)] == [1, 2, 5, 9, 14]
    losses = [[(e.step, e.loss, e.rates) for e in run.events() if isinstance(e, Stepped)] for run in (alone, parted)]
    assert losses[0] == losses[1]
    assert held(parted) == held(alone)
