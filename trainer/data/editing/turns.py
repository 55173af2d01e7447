"""Turns: one thread of one process changes a dataset's folder at a time, by a lock that the system frees if its holder dies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from trainer.errors import StorageError, storing

LOCK = ".impasto.lock"

PATIENCE = 20.0
"""Seconds to wait for another process."""

_threads: dict[Path, threading.Lock] = {}


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else who asks for a turn changes the dataset meanwhile; not to be nested. Raises `StorageError`."""
    with _threads.setdefault(folder.resolve(), threading.Lock()):
        lock = _locked(folder)
        try:
            yield
        finally:
            lock.release()


def _locked(folder: Path) -> FileLock:
    with storing(folder):
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=PATIENCE, poll_interval=0.005)
        except Timeout:  # which is an OSError too
            raise StorageError(
                f"Another program has been changing {folder} for {PATIENCE:.0f} seconds: close it, or try again."
            ) from None
    return lock
