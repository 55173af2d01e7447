"""The steps that a change of a dataset's files consists of, each of which can be told, done once more and taken back.

    Write   what a small file says: a caption, `dataset.toml`, a mask
    Move    a file to another place: a picture that is removed

A step looks at the folder to tell whether it is still to be done: one that is done, or that somebody else's change stands in
the way of, is never done again. Paths are relative to the dataset's folder, with slashes. Knows no journal.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainer.home import clear_parts, replace, sync_folder, write_all

ROOMS = ("originals", "removed", "masks")
"""The folders within a dataset's folder."""

State = Literal["ready", "done", "blocked"]


@dataclass(frozen=True)
class Write:
    """A small file says `now` instead of `was`; None: it is not there."""

    name: str
    """What the step belongs to: a picture, or `dataset.toml`. The steps of one name are done together or not at all."""
    path: str
    was: bytes | None
    now: bytes | None

    def state(self, folder: Path) -> State:
        """Whether it can be done, or is done already."""
        path = folder / self.path
        content = path.read_bytes() if path.is_file() else None
        return "done" if content == self.now else "ready" if content == self.was else "blocked"

    def back(self) -> Write:
        """What takes it back."""
        return Write(self.name, self.path, self.now, self.was)


@dataclass(frozen=True)
class Move:
    """A file goes to where none is."""

    name: str
    source: str
    target: str

    def state(self, folder: Path) -> State:
        """Whether it can be done, or is done already."""
        here, there = os.path.exists(folder / self.source), os.path.exists(folder / self.target)
        return "ready" if here and not there else "done" if there and not here else "blocked"

    def apply(self, folder: Path) -> None:
        """Do it. Raises `OSError`."""
        source, target = folder / self.source, folder / self.target
        target.parent.mkdir(exist_ok=True)
        replace(source, target)

    def back(self) -> Move:
        """What takes it back."""
        return Move(self.name, self.target, self.source)


Step = Write | Move

_KINDS: dict[str, type[Write] | type[Move]] = {"write": Write, "move": Move}


def carry_out(folder: Path, steps: Sequence[Step]) -> tuple[str, ...]:
    """Do what is still to be done. Returns the names that stay as they are, since somebody else's change is in the way.

    Raises `OSError`; doing it again then goes on.
    """
    states = [(step, step.state(folder)) for step in steps]
    blocked = {step.name for step, state in states if state == "blocked"}
    ready = [step for step, state in states if state == "ready" and step.name not in blocked]
    written = {folder / step.path: step.now for step in ready if isinstance(step, Write)}
    write_all({path: content for path, content in written.items() if content is not None})
    for path, content in written.items():
        if content is None:
            path.unlink()
    moved = [step for step in ready if isinstance(step, Move)]
    for step in moved:
        step.apply(folder)
    for room in (folder, *(folder / room for room in ROOMS)) if moved else ():
        if room.is_dir():
            sync_folder(room)
    return tuple(sorted(blocked))


def clear(folder: Path, steps: Sequence[Step]) -> None:
    """Delete what a killed writer has left beside the files of these steps. Raises `OSError`."""
    for step in steps:
        if isinstance(step, Write):
            clear_parts(folder / step.path)


def to_json(step: Step) -> dict[str, Any]:
    """A step as JSON."""
    kind = next(kind for kind, made in _KINDS.items() if isinstance(step, made))
    return {"do": kind, **{key: _told(value) for key, value in vars(step).items()}}


def from_json(given: dict[str, Any], folder: Path) -> Step:
    """The step that `to_json` told. Raises `ValueError` if it is none, or leads out of the dataset's folder."""
    rest: dict[str, Any] = {key: _meant(value) for key, value in given.items() if key != "do"}
    try:
        step = _KINDS[given["do"]](**rest)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no step: {error}") from None
    if not all(_within(folder, value) for key, value in rest.items() if key not in ("name", "was", "now")):
        raise ValueError("a step that leads out of the folder")
    return step


def relative(folder: Path, paths: Iterable[Path]) -> list[str]:
    """Paths as steps name them."""
    return [path.relative_to(folder).as_posix() for path in paths]


def _within(folder: Path, path: Any) -> bool:
    """Whether it names a file of the dataset: in the folder or in one of its rooms, which is no link to elsewhere."""
    if not isinstance(path, str):
        return False
    whole = folder / path
    room, real = whole.parent, Path(os.path.realpath(folder))
    if whole.name in ("", "..") or room not in (folder, *(folder / name for name in ROOMS)):
        return False
    return room == folder or Path(os.path.realpath(room)) == real / room.name


def _told(value: str | bytes | None) -> Any:
    """Bytes as the text that they are in UTF-8, in a list; else as base64."""
    if not isinstance(value, bytes):
        return value
    try:
        return {"text": value.decode("utf-8")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode("ascii")}


def _meant(value: Any) -> str | bytes | None:
    match value:
        case {"text": str(text)}:
            return text.encode("utf-8")
        case {"base64": str(text)}:
            return base64.b64decode(text, validate=True)
        case str() | None:
            return value
    raise ValueError(f"neither text nor bytes: {value!r}")
