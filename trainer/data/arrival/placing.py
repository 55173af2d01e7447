"""One picture -> its files in a dataset's folder, under a free name: original, mask, caption, and the picture last.

So a picture appears whole, with all that belongs to it, or not at all; what is there already is never touched.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from trainer.data import captions, masks
from trainer.data.arrival.archive import BLOCK, portable
from trainer.data.arrival.pile import Entry
from trainer.data.editing.edits import ORIGINALS
from trainer.data.editing.steps import ROOMS
from trainer.data.editing.turns import alone
from trainer.data.intake import Intake, named
from trainer.errors import PictureError, StorageError, storing
from trainer.home import safe_name, write_blocks


def placed(folder: Path, entry: Entry, taken: Intake, with_mask: bool = True) -> str:
    """Write a picture and what belongs to it; returns its file name.

    Raises `PictureError` if it is there already or is gone meanwhile, `StorageError`; then nothing of it stays.
    """
    with alone(folder):
        with storing(folder):
            target = _free(folder, entry, taken)
        written: list[Path] = []
        try:
            for path, source in _parts(target, entry, taken, with_mask):
                written.append(path)
                with storing(path):
                    write_blocks(path, _blocks(source) if isinstance(source, Path) else (source,))
        except (PictureError, StorageError):
            for path in written:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            raise
    return target.name


def _parts(target: Path, entry: Entry, taken: Intake, with_mask: bool) -> Iterator[tuple[Path, Path | bytes]]:
    """The files that a picture becomes: where each goes, and its content or the file that has it."""
    original = entry.original or (None if taken.content is None else entry.path)
    if original:
        yield _original(target, original), original
    if entry.mask and with_mask:
        yield masks.mask_path(target), entry.mask
    elif taken.mask:
        yield masks.mask_path(target), taken.mask
    if entry.caption is not None:
        yield target.with_suffix(".txt"), captions.encode(entry.caption, entry.name)
    yield target, entry.path if taken.content is None else taken.content


def _original(target: Path, source: Path) -> Path:
    """Where a picture's original is kept."""
    return target.parent / ORIGINALS / portable(f"{target.stem}{source.suffix}")


def _blocks(source: Path) -> Iterator[bytes]:
    """A file's content. Raises `PictureError` if it is gone meanwhile, which is not the dataset's disk's fault."""
    try:
        with source.open("rb") as file:
            while block := file.read(BLOCK):
                yield block
    except OSError as error:
        raise PictureError(f"{named(source)} cannot be read any more ({error.strerror or error}): drop it again.") from None


def _free(folder: Path, entry: Entry, taken: Intake) -> Path:
    """Where a picture goes: a name of which no file is left, on any system. Raises `PictureError` if it is there already."""
    first, count = safe_name(entry.path.stem, "picture"), 2
    if masks.is_mask(Path(f"{first}.png")):
        first = f"{first}-1"  # what became a PNG would be taken for a mask
    if os.path.realpath(entry.path.parent) == os.path.realpath(folder):
        raise PictureError(f"{entry.name} is in the dataset already: it was not added again.")
    # what was removed keeps its name, so that it can always come back
    rooms = [room for room in (folder, *(folder / name for name in ROOMS)) if room.is_dir()]
    names = [name.casefold() for room in rooms for name in os.listdir(room)]
    start = safe_name(first, spare=len(str(len(names))) + 1).casefold()
    stems = {*ROOMS, *(_stem(name) for name in names if name.startswith(start))}
    if first.casefold() in stems:
        there = folder / f"{first}{taken.suffix}"
        if _alike(entry.path, there if taken.content is None else _original(there, entry.path)):
            raise PictureError(f"{entry.name} is in the dataset already, the same in every byte: it was not added again.")
    stem = first
    while stem.casefold() in stems:
        stem, count = f"{safe_name(first, spare=len(f'-{count}'))}-{count}", count + 1
    return folder / f"{stem}{taken.suffix}"


def _stem(name: str) -> str:
    """The name that a file of a dataset shares with those that belong to it."""
    path = Path(name)
    return masks.picture_stem(path) if masks.is_mask(path) else path.stem


def _alike(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False
