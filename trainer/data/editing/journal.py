"""The journal of a dataset's changes: what is about to be done is on the disk before it is done.

One line of JSON a change, and after it one that says that it is done, or was called off:

    {"change": 7, "what": "caption of a.png", "names": ["a.png"], "undoes": null, "series": "", "steps": [...]}
    {"done": 7}

A change without such a mark was cut off, and is to be done once more. What takes a change back is a change itself, which names
it. Only the newest changes are kept. A line that is cut off or damaged counts as not there. Who writes must be alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from trainer.data.editing.steps import Step, from_json, to_json
from trainer.home import sync_folder, write_atomically

KEPT = 500
"""So many changes can be taken back."""

MOST_BYTES = 16 * 2**20
"""The journal is shortened to half of this where it grows beyond it; the last change is kept whatever its size."""

_BLOCK = 2**20


@dataclass(frozen=True)
class Change:
    """A change, named for a person, with the pictures that it concerns."""

    number: int
    what: str
    names: tuple[str, ...]
    steps: tuple[Step, ...]
    undoes: int | None = None
    series: str = ""
    """Changes of one series are taken back together."""


class Journal:
    """The file with a dataset's changes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def version(self) -> int:
        """How many changes have been made, those that took others back included."""
        return next((number for _, number, _ in self._entries()), 0)

    @property
    def unfinished(self) -> Change | None:
        """The change that was begun last, if it is not known to be over."""
        for kind, _, entry in self._entries():
            return self._change(entry) if kind == "change" else None
        return None

    @property
    def last(self) -> Change | None:
        """The newest change that is not taken back."""
        return next((change for entry in self._standing() if (change := self._change(entry))), None)

    @property
    def last_what(self) -> str | None:
        """What the newest change that is not taken back is called."""
        return next((str(entry.get("what")) for entry in self._standing()), None)

    def begin(self, change: Change) -> None:
        """Have a change on the disk before it is done. Raises `OSError`; then it is as if it had not been tried."""
        entry = {
            "change": change.number,
            "what": change.what,
            "names": change.names,
            "undoes": change.undoes,
            "series": change.series,
            "steps": [to_json(step) for step in change.steps],
        }
        self._append(entry)

    def end(self, change: Change, how: Literal["done", "cancelled"]) -> None:
        """Note that a change is over. Raises `OSError`; then it is looked at once more by the next one, which does no harm."""
        self._append({how: change.number}, flushed=False)
        if change.number % KEPT == 0 or self.path.stat().st_size > MOST_BYTES:
            self._shorten(change.number)

    def _append(self, entry: dict[str, Any], flushed: bool = True) -> None:
        """Put a line behind the last whole one, or leave the file as it is and raise `OSError`."""
        new = not self.path.exists()
        with self.path.open("w+b" if new else "r+b") as file:
            end = _end(file)
            try:
                file.truncate(end)
                file.seek(end)
                file.write(_line(entry))
                file.flush()
                if flushed:
                    os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    file.truncate(end)
                raise
        if new:
            sync_folder(self.path.parent)

    def _shorten(self, version: int) -> None:
        """Forget all but the newest changes that can be taken back."""
        kept, size = [_line({"done": version})], 0
        for entry in self._standing():
            line = _line(entry) + _line({"done": entry["change"]})
            size += len(line)
            if len(kept) > KEPT or (size > MOST_BYTES // 2 and len(kept) > 1):
                break
            kept.append(line)
        write_atomically(self.path, b"".join(reversed(kept)))

    def _standing(self) -> Iterator[dict[str, Any]]:
        """The changes that are neither taken back nor called off, the newest first."""
        gone = set()
        for kind, number, entry in self._entries():
            if kind == "cancelled":
                gone.add(number)
            elif kind == "change" and number not in gone:
                if entry.get("undoes") is None:
                    yield entry
                else:
                    gone.add(entry["undoes"])

    def _entries(self) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """Kind, number and content of each line, the newest first."""
        for line in self._lines():
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            for kind in ("change", "done", "cancelled"):
                if isinstance(entry, dict) and type(entry.get(kind)) is int:
                    yield kind, entry[kind], entry

    def _lines(self) -> Iterator[bytes]:
        """The whole lines, the newest first; what follows the last line's end was cut off."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            position, rest, cut_off = file.seek(0, os.SEEK_END), b"", True
            while position:
                size = min(_BLOCK, position)
                position = file.seek(position - size)
                rest, *lines = (file.read(size) + rest).split(b"\n")
                if lines and cut_off:
                    lines.pop()
                    cut_off = False
                yield from reversed(lines)
            if not cut_off:
                yield rest

    def _change(self, entry: dict[str, Any]) -> Change | None:
        try:
            steps = tuple(from_json(step, self.path.parent) for step in entry["steps"])
            names = tuple(str(name) for name in entry["names"])
            return Change(entry["change"], str(entry["what"]), names, steps, entry["undoes"], str(entry.get("series", "")))
        except (KeyError, TypeError, ValueError, AttributeError):
            return None  # nothing of ours


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry).encode("ascii") + b"\n"


def _end(file: BinaryIO) -> int:
    """Where the last whole line ends."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 1))
    if file.read() in (b"", b"\n"):
        return size
    file.seek(0)
    return file.read().rfind(b"\n") + 1
