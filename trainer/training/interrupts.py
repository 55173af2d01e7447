"""Ctrl+C, and what a system ends a process by, in a training: first it is asked to stop, then it has to. Knows no torch."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from trainer.training.run import Run

_NAMES = ("SIGINT", "SIGTERM", "SIGBREAK")
"""Those that the system has: only Windows has the last one."""


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

    numbers = [signal.Signals[name] for name in _NAMES if name in signal.Signals.__members__]
    before = {number: signal.signal(number, heard) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
