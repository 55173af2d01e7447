"""Progress on stderr: a live bar in a terminal, a line now and then where it goes into a file. Does not know of what."""

from __future__ import annotations

import sys
from typing import Any, TextIO

PATIENCE = 10.0
"""Seconds between two lines where nobody looks on."""


class _Lines:
    """A file that gets every state of a bar as a line of its own, because it cannot be written over."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        """Write what a bar draws."""
        if shown := text.strip():
            self._file.write(f"{shown}\n")

    def flush(self) -> None:
        """Pass on what was written."""
        self._file.flush()


def bar(what: str, total: int, **more: Any) -> Any:
    """A progress bar of tqdm; `reach` moves it."""
    from tqdm import tqdm

    live = sys.stderr.isatty()
    how = {"file": sys.stderr, "dynamic_ncols": True} if live else {"file": _Lines(sys.stderr), "ncols": 100}
    pace = 0.1 if live else PATIENCE
    return tqdm(total=total, desc=what, mininterval=pace, miniters=1, leave=True, **how, **more)


def reach(bar: Any, done: int) -> None:
    """Move a bar to `done` of its total; it is drawn anew if that is not too soon."""
    bar.update(done - bar.n)


def begin(bar: Any, done: int) -> None:
    """Have a bar go on from `done`, which it did not see happen and does not take into its speed."""
    bar.initial = bar.n = bar.last_print_n = done


def say(text: str) -> None:
    """A line on stderr, above the bars."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)
