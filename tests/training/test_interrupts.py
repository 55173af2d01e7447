"""Ctrl+C: the first asks, the second ends."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from trainer.settings import Settings
from trainer.training.events import Resumed
from trainer.training.interrupts import heeded
from trainer.training.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", tmp_path / "set", "starter", "balanced", Settings())


def interrupted(run: Run, times: int, begun: bool = True) -> list[str]:
    """What is told when a training is interrupted so often."""
    said: list[str] = []
    with heeded(run, lambda: begun, said.append):
        for _ in run.recorded(iter([Resumed(step=1)])):
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
            assert run.wishes("stop") == (times > 0)
    return said


def test_the_first_asks_the_training_to_stop(run: Run) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert interrupted(run, 0) == []
    (sentence,) = interrupted(run, 1)
    assert sentence == "It stops after this step, and keeps a checkpoint and the LoRA. Interrupt it again to end it at once."
    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_ends_it(run: Run) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        interrupted(run, 2)
    assert signal.getsignal(signal.SIGINT) is before
    assert not run.alive()


def test_one_that_has_not_begun_has_nothing_to_keep(run: Run) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(run, 1, begun=False)
    assert not run.wishes("stop")


def test_a_thread_hears_nothing(run: Run) -> None:
    before, found = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with heeded(run, lambda: True, print):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]
