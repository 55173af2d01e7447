"""The pictures of a dataset as the page lists them, thousands at a time: a file is read again only when it has changed.

The folder stays the whole truth: what is remembered here is found by a file's time and size. Knows no web server.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel

from trainer.data import captions, intake, masks, tokens
from trainer.data.dataset import Dataset
from trainer.errors import PictureError

REMEMBERED = 20_000
"""So many files' sizes and captions are remembered."""

Seen = tuple[int, int, int]
"""What tells one state of a file from another: when it was written, its bytes, its place on the disk."""


class Entry(BaseModel):
    """One picture in the list."""

    name: str
    width: int
    height: int
    caption: str
    tokens: int
    """Of the caption with the trigger word, as it is trained."""
    masked: bool
    added: float
    """Seconds since 1970."""
    look: str
    """Changes whenever the picture does; the address of its small copies holds it."""
    state: str
    """Changes whenever anything does that is said of the picture here or in `dataset.toml`."""


class Listing:
    """One look at a dataset's folder. Raises `DatasetError` if `dataset.toml` cannot be read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = _files(folder)
        dataset = Dataset(folder, (), ())
        self.trigger, self._crops, self._focus = dataset.trigger, dataset.crops, dataset.focus

    @property
    def version(self) -> str:
        """Changes whenever a file of the dataset does, whoever changed it."""
        return _short(sorted(self._files.items()))

    def __len__(self) -> int:
        """How many pictures can be read."""
        return len(self._names()) - len(self.refused())

    def entries(self, known: Mapping[str, str]) -> list[Entry]:
        """The pictures that can be read; of those whose state is `known`, only the ones that have changed."""
        found = (self.entry(name) for name in self._names() if known.get(name) != self._state(name))
        return [entry for entry in found if entry is not None]

    def refused(self) -> list[str]:
        """A sentence for each file that is a picture by its name only."""
        return [size for name in self._names() if isinstance(size := _size(self.folder, name, self._files[name]), str)]

    def captions(self) -> dict[str, str]:
        """What is said of each picture that can be read."""
        return {entry.name: entry.caption for entry in self.entries({})}

    def gone(self, known: Mapping[str, str]) -> list[str]:
        """Those of the `known` names that are not pictures any more, or cannot be read any more."""
        return sorted(name for name, state in known.items() if state != self._state(name) and self.entry(name) is None)

    def entry(self, name: str) -> Entry | None:
        """One of the pictures; None if it is not there, or cannot be read."""
        seen = self._files.get(name)
        size = _size(self.folder, name, seen) if seen else None
        if seen is None or not isinstance(size, tuple):
            return None
        text, masked = _beside(name)
        written = self._files.get(text)
        caption = _caption(self.folder, text, written) if written else ""
        return Entry(
            name=name,
            width=size[0],
            height=size[1],
            caption=caption,
            tokens=_tokens(captions.with_trigger(caption, self.trigger)),
            masked=any(mask in self._files for mask in masked),
            added=seen[0] / 1e9,
            look=_short(seen),
            state=self._state(name),
        )

    def _names(self) -> list[str]:
        return sorted((name for name in self._files if _is_picture(name)), key=str.lower)

    def _state(self, name: str) -> str:
        text, masked = _beside(name)
        files = (self._files.get(file) for file in (name, text, *masked))
        return _short((self.trigger, self._crops.get(name), self._focus.get(name), *files))


def _files(folder: Path) -> dict[str, Seen]:
    """The files of a dataset and what they are known by; those of the program's own and kept originals are left out."""
    found = {}
    for prefix, place in (("", folder), (f"{masks.FOLDER}/", folder / masks.FOLDER)):
        for entry in os.scandir(place) if place.is_dir() else ():
            with suppress(FileNotFoundError):  # removed in this very moment
                if not entry.name.startswith(".") and entry.is_file():
                    status = entry.stat()
                    found[prefix + entry.name] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found


def _short(thing: object) -> str:
    return hashlib.blake2b(repr(thing).encode(errors="surrogateescape"), digest_size=8).hexdigest()


@lru_cache(REMEMBERED)
def _is_picture(name: str) -> bool:
    """Whether a file is a picture of the dataset, by its name."""
    return "/" not in name and Path(name).suffix.lower() in intake.SUFFIXES and not masks.is_mask(Path(name))


@lru_cache(REMEMBERED)
def _beside(name: str) -> tuple[str, tuple[str, ...]]:
    """Where a picture's caption is, and where a mask of it may be."""
    return Path(name).with_suffix(".txt").name, tuple(place.as_posix() for place in masks.places(Path(name)))


@lru_cache(REMEMBERED)
def _size(folder: Path, name: str, seen: Seen) -> tuple[int, int] | str:
    """Upright, in pixels; a sentence if the file cannot be used."""
    try:
        header = intake.read_header(folder / name)
    except PictureError as error:
        return str(error)
    return header.width, header.height


@lru_cache(REMEMBERED)
def _caption(folder: Path, name: str, seen: Seen) -> str:
    return captions.read(folder / name)


@lru_cache(REMEMBERED)
def _tokens(text: str) -> int:
    return tokens.count(text)
