"""Starts Python again as a child that outlives its parent. Does not know what the child is for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from trainer.errors import storing

ROOT = Path(__file__).resolve().parents[1]
"""Where `python -m trainer` is found, installed or not."""


def launch(arguments: Sequence[str], log: Path, stdin: int, stdout: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """Start Python in a process group of its own, so that Ctrl+C in the parent's terminal does not reach it.

    What it says on stderr is added to `log`. Raises `StorageError`.
    """
    command = [sys.executable, *arguments]
    with storing(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as told:
            if sys.platform == "win32":
                flags = no_window() | subprocess.CREATE_NEW_PROCESS_GROUP
                return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=told, cwd=ROOT, creationflags=flags)
            return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=told, cwd=ROOT, start_new_session=True)


def no_window() -> int:
    """What keeps Windows from opening a console for a child."""
    if sys.platform == "win32":
        return subprocess.CREATE_NO_WINDOW
    return 0
