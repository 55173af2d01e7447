"""What a person dropped -> the pictures in it, each with its caption, mask and repeats. Copies nothing, changes nothing.

A folder may be any folder of pictures, one of kohya's (`10_name/` is shown ten times a pass), or a dataset of ours.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.data import captions, masks
from trainer.data.arrival import archive
from trainer.data.arrival.listings import SUFFIXES as LISTS
from trainer.data.arrival.listings import Listing
from trainer.data.dataset import ABOUT, MOST_REPEATS, Dataset
from trainer.data.editing.edits import ORIGINALS, REMOVED, Table, Value
from trainer.data.intake import named
from trainer.errors import DatasetError

TEXTS = (".txt", ".caption")
"""How the names of captions end; the first that is there counts."""

MOST_CAPTION = 1_000_000
"""Bytes; what is longer is no caption."""

TABLES: tuple[Table, ...] = ("repeats", "weights", "crops", "focus")
"""What a `dataset.toml` says of single pictures."""

_CLUTTER = frozenset({".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx"})
"""What systems put among pictures unasked."""

_CACHES = (".npz", ".npy")
"""What other trainers put among them."""


@dataclass(frozen=True)
class Refusal:
    """A file that is not taken, and why: a sentence that names it."""

    name: str
    reason: str


@dataclass(frozen=True)
class Entry:
    """A file that may be a picture, and what was found for it; `name` is fit to be shown."""

    path: Path
    name: str
    caption: str | None = None
    repeats: int = 1
    mask: Path | None = None
    original: Path | None = None
    """What it was made from, where it comes from a dataset that kept that."""

    about: Mapping[Table, Value] = field(default_factory=dict)
    """What a `dataset.toml` says of it, by table: `{"weights": 0.5}`."""

    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pile:
    """Everything that was found, and what is refused before any picture is opened."""

    entries: tuple[Entry, ...]
    refused: tuple[Refusal, ...]
    trigger: str = ""
    """The trigger word of a dataset among what was dropped."""


def found(paths: Iterable[Path], scratch: Path | None = None) -> Pile:
    """Look through files, folders and zips, in the order in which they are given, and by name within a folder.

    A zip is unpacked into `scratch`, and refused where there is none. Raises `StorageError` if there is no room for it.
    """
    search = _Search(scratch)
    for path in paths:
        search.given(path)
    return search.pile()


class _Search:
    """What was found so far."""

    def __init__(self, scratch: Path | None) -> None:
        self.scratch, self.zips, self.looked = scratch, 0, 0
        self.seen: set[Path] = set()
        self.pictures: list[tuple[Path, int]] = []
        self.originals: dict[tuple[Path, str], Path] = {}
        self.texts: list[Path] = []
        self.masks: list[Path] = []
        self.listings: list[Listing] = []
        self.abouts: list[tuple[Path | None, dict[str, Any]]] = []
        self.refused: list[Refusal] = []

    def refuse(self, path: Path, reason: str) -> None:
        self.refused.append(Refusal(named(path), reason))

    def folder(self, folder: Path, root: Path, repeats: int = 1, depth: int = 0) -> None:
        """Everything in a folder; links that lead out of `root` are not followed."""
        if depth > archive.DEEPEST:
            self.refuse(folder, f"The folder {named(folder)} lies more than {archive.DEEPEST} folders deep: drop it alone.")
            return
        try:
            paths = sorted(folder.iterdir(), key=lambda path: (path.name.lower(), path.name))
            self._keep_originals(folder, {path.stem for path in paths})
        except OSError as error:
            self.refuse(folder, f"The folder {named(folder)} cannot be read ({error.strerror or error}): check its rights.")
            return
        repeats = _repeats(folder, repeats)
        for path in paths:
            if path.name.startswith(".") or path.name.lower() in _CLUTTER or path.suffix.lower() in _CACHES:
                continue
            if path.is_symlink() and (os.path.isdir(path) or not _real(path).is_relative_to(root)):
                self.refuse(path, f"{named(path)} is a link to somewhere else and was not followed: drop what it leads to.")
            elif os.path.isdir(path) and path.name == REMOVED:
                self.refuse(path, f"The folder {REMOVED} holds what was taken out of a dataset: drop it alone to add it again.")
            elif os.path.isdir(path):
                self.folder(path, root, repeats, depth + 1)
            elif archive.is_zip(path):
                what = archive.package(path) or "an archive in a folder: drop it alone, or unpack it"
                self.refuse(path, f"{named(path)} is {what}.")
            else:
                self.file(path, folder, repeats)

    def _keep_originals(self, folder: Path, stems: set[str]) -> None:
        """What pictures of a dataset were made from is not added as pictures of their own."""
        kept = folder / ORIGINALS
        for path in kept.iterdir() if ORIGINALS in stems and kept.is_dir() and not kept.is_symlink() else ():
            if path.stem in stems and not path.is_symlink():
                self.originals[folder, path.stem] = path
                self.seen.add(_real(path))

    def given(self, path: Path) -> None:
        """A file, folder or zip that was named itself: a link among these is meant."""
        before = (self.looked, len(self.refused))
        if os.path.isdir(path):
            self.folder(path, _real(path))
        elif archive.is_zip(path) and self.scratch:
            inside = self.scratch / f"zip-{self.zips}"
            self.zips += 1
            try:
                self.refused += [Refusal(name, reason) for name, reason in archive.unpacked(path, inside)]
            except DatasetError as error:
                self.refuse(path, str(error))
            else:
                self.folder(inside, _real(inside))
        elif path.name.lower() in _CLUTTER:
            return
        else:
            self.file(path, None)
            return
        if (self.looked, len(self.refused)) == before:
            self.refuse(path, f"There is no picture in {named(path)}: drop another folder or zip.")

    def file(self, path: Path, folder: Path | None, repeats: int = 1) -> None:
        """One file that was found in `folder`, or was given by itself."""
        self.looked += 1
        if _real(path) in self.seen:
            return
        self.seen.add(_real(path))
        if path.suffix.lower() in TEXTS:
            self.texts.append(path)
        elif masks.is_mask(path):
            self.masks.append(path)
        elif path.name == ABOUT or path.suffix.lower() in LISTS:
            try:
                if path.name == ABOUT:
                    self.abouts.append((folder, _about(path)))
                else:
                    self.listings.append(Listing(path))
            except DatasetError as error:
                self.refuse(path, str(error))
        else:
            self.pictures.append((path, repeats))

    def pile(self) -> Pile:
        """Pictures and what belongs to them, put together."""
        pictures = [path for path, _ in self.pictures]
        texts = _partners(pictures, self.texts, _caption_beside, lambda text: text.stem)
        painted = _partners(pictures, self.masks, masks.found, masks.picture_stem)
        sharing: dict[Path, list[Path]] = defaultdict(list)
        for picture, its in texts.items():
            sharing[its].append(picture)
        entries = []
        for path, repeats in self.pictures:
            text = texts.get(path)
            caption, notes = self._caption(path, text)
            others = [named(other) for other in sharing[text] if other != path] if text else []
            if text and others:
                notes.append(f"its caption {named(text)} was also given to {', '.join(others[:3])}")
            entries.append(self._entry(path, repeats, caption, notes, painted.get(path)))
        for lone in sorted(set(self.texts) - set(texts.values())):
            self.refuse(lone, f"{named(lone)} is a caption, but it is not certain of which picture: drop both together.")
        for lone in sorted(set(self.masks) - set(painted.values())):
            self.refuse(lone, f"{named(lone)} is the mask of a picture that is not there: add it together with its picture.")
        trigger, *others = list(dict.fromkeys(about["trigger"] for _, about in self.abouts if about["trigger"])) or [""]
        for other in others:
            reason = f"{ABOUT} names another trigger word, “{other}”: “{trigger}” was taken, which came first."
            self.refused.append(Refusal(ABOUT, reason))
        return Pile(tuple(entries), tuple(self.refused), trigger)

    def _entry(self, path: Path, repeats: int, caption: str | None, notes: list[str], mask: Path | None) -> Entry:
        about = {table: said[path.name] for table, said in self._tables(path).items() if path.name in said}
        repeats = about.pop("repeats", repeats)
        original = self.originals.get((path.parent, path.stem))
        return Entry(path, named(path), caption, repeats, mask, original, about, tuple(notes))

    def _caption(self, path: Path, text: Path | None) -> tuple[str | None, list[str]]:
        """The caption of a picture, from its own file before one that lists many, and what is to be said of it."""
        caption, notes = _read(text) if text else (None, [])
        near = sorted(self.listings, key=lambda listing: not path.is_relative_to(listing.path.parent))
        listed = (listing.of(path) for listing in near)
        return caption or next((said for said in listed if said is not None), caption), notes

    def _tables(self, path: Path) -> dict[Table, dict[str, Any]]:
        """What a `dataset.toml` in its folder, else one that was given by itself, says of single pictures."""
        own = [about for folder, about in self.abouts if folder == path.parent]
        loose = [about for folder, about in self.abouts if folder is None]
        about = next(iter([*own, *loose]), {})
        return {table: about[table] for table in TABLES if table in about}


def _partners(
    pictures: list[Path], files: list[Path], beside: Callable[[Path], Path | None], stem_of: Callable[[Path], str]
) -> dict[Path, Path]:
    """Which of `files` belongs to which picture: the one beside it, else the only one of its name that lies beside none.

    What lies beside a picture through a link counts only if it is one of `files`: links that lead elsewhere are not.
    """
    known = set(files)
    partners = {
        picture: near for picture in pictures if (near := beside(picture)) and (near in known or _is_beside(near, picture))
    }
    taken, loose = set(partners.values()), defaultdict(list)
    for file in files:
        if file not in taken:
            loose[stem_of(file)].append(file)
    for picture in pictures:
        same = loose.get(picture.stem, [])
        close = [file for file in same if file.parent == picture.parent] or same
        if picture not in partners and len(close) == 1:
            partners[picture] = close[0]
    return partners


def _is_beside(near: Path, picture: Path) -> bool:
    """Whether a file is where it seems to be, and no link leads away from there."""
    return _real(near) == _real(picture.parent) / near.relative_to(picture.parent)


def _caption_beside(picture: Path) -> Path | None:
    return next((path for suffix in TEXTS if os.path.isfile(path := picture.with_suffix(suffix))), None)


def _read(text: Path) -> tuple[str | None, list[str]]:
    """A caption, and what is to be said of it; None if it cannot be taken."""
    try:
        if text.stat().st_size > MOST_CAPTION:
            return None, [f"{named(text)} is too long for a caption and was left out"]
        caption, encoding = captions.text_of(text)
    except (DatasetError, OSError) as error:
        return None, [f"{named(text)} cannot be read ({error}) and was left out"]
    guessed = f"its caption {named(text)} is in an old encoding, read as Latin-1: look it over"
    return caption, [guessed] if encoding == "latin-1" else []


def _real(path: Path) -> Path:
    """What a path leads to, also where it is a link in a circle."""
    return Path(os.path.realpath(path))


def _repeats(folder: Path, otherwise: int) -> int:
    """How often kohya's folder names have pictures shown; a year before a name is not meant so."""
    number = re.match(r"(\d{1,4})_", folder.name)
    return int(number[1]) if number and 1 <= int(number[1]) <= MOST_REPEATS else otherwise


def _about(path: Path) -> dict[str, Any]:
    """What a `dataset.toml` says. Raises `DatasetError` if a training could not read it."""
    dataset = Dataset(path.parent, (), ())
    return {table: getattr(dataset, table) for table in (*TABLES, "trigger")}
