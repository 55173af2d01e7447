"""Ctrl+C, and what a system ends a process by, in a training: first it is asked to stop, then it has to. Knows no torch."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from trainer.training.run import Run

_NAMES = ("SIGINT", "SIGTERM", "SIGBREAK")
"""Those that the system has: only Windows has the last one."""


@contextmanager
def unheard() -> Iterator[None]:
    """While it lasts, interruptions do nothing: another process hears of them, and tells this one what to do."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _numbers()}
    try:
        yield
    finally:
        _restore(before)


@contextmanager
def heeded(run: Run, begun: Callable[[], bool], tell: Callable[[str], None]) -> Iterator[None]:
    """While it lasts, the first interruption asks `run` to stop and tells so; the second is a `KeyboardInterrupt`.

    So is the first before the training has `begun`, or after its end: there is nothing to keep then. Both functions may be
    called anywhere in the block. Outside the main thread, which alone hears of signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def heard(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked or not begun() or not run.alive():
            raise KeyboardInterrupt
        asked = True
        run.ask("stop")
        with suppress(RuntimeError):  # another line was just being written, and cannot be written into
            tell("It stops after this step, and keeps a checkpoint and the LoRA. Interrupt it again to end it at once.")

    before = {number: signal.signal(number, heard) for number in _numbers()}
    try:
        yield
    finally:
        _restore(before)


def _numbers() -> list[signal.Signals]:
    return [signal.Signals[name] for name in _NAMES if name in signal.Signals.__members__]


def _restore(before: Mapping[signal.Signals, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)
