"""Zips: one from anywhere, unpacked where it can do no harm; a dataset, packed into one that can be added again.

Knows nothing of what the files in it are. What a program keeps as a zip, such as a drawing or a document, is not unpacked.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from trainer.data import intake, masks
from trainer.data.arrival import strangers
from trainer.data.editing.edits import ORIGINALS
from trainer.errors import DatasetError, storing
from trainer.home import free_name, replace

MOST_BYTES = 4_000_000_000
"""Unpacked; an archive that is larger itself, since nothing in it is packed tightly, may hold as much as it is large."""

MOST_FILES = 10_000
MOST_RATIO = 100
"""How much more a zip may hold than it takes; photographs and texts stay far below."""

FROM = 16_000_000
"""Below so many bytes unpacked, that ratio does not matter: a small picture of one colour exceeds it."""

DEEPEST = 30
"""Folders within folders; no system takes many more."""

LONGEST = 200
"""Bytes of a name; systems take 255, and something may be added to it."""

BLOCK = 1 << 20

_SIGNS = (b"PK\3\4", b"PK\5\6")
_MIMETYPE = "mimetype"
"""The entry that says what a document is, in OpenDocument, EPUB, OpenRaster and Krita's files."""

_PACKED = intake.SUFFIXES | {".txt", ".caption", ".toml"}
_RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
"""Names that Windows takes for devices, whatever follows their dot."""

_BROKEN = (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, RuntimeError, LookupError, zlib.error)
"""What zipfile raises over damaged or unusual archives."""

_NO_PLACE = (errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ENOENT)
"""What a system says of a path that is too long for it, or goes through a file."""


def is_zip(path: Path) -> bool:
    """Whether a file begins as a zip does."""
    if not os.path.isfile(path):  # whoever opens a pipe waits for its other end
        return False
    try:
        with path.open("rb") as file:
            return file.read(4) in _SIGNS
    except OSError:
        return False


def package(path: Path) -> str:
    """How `NAME is` goes on for a zip that a program keeps as its own file; empty where somebody packed it."""
    try:
        with zipfile.ZipFile(path) as opened:
            return _package(opened)
    except (*_BROKEN, OSError) as error:
        return _damaged_package(path, error)


def _package(opened: zipfile.ZipFile) -> str:
    names, mimetype = frozenset(opened.namelist()), ""
    if _MIMETYPE in names:
        with opened.open(_MIMETYPE) as file:
            mimetype = file.read(LONGEST).decode(errors="replace").strip()
    told = strangers.told_package(names, mimetype if mimetype.isprintable() else "")
    return told and f"not a picture but {told}"


def _damaged_package(path: Path, error: Exception) -> str:
    what, _, advice = strangers.meant(path.suffix).partition(": ")
    return what and f"by its name {what}, but damaged ({error}): copy it again, then {advice}"


def unpacked(archive: Path, into: Path) -> list[tuple[str, str]]:
    """Unpack into a folder, nothing of which is overwritten; names keep all that every system takes in one.

    Returns name and reason, a sentence, of each entry that was left out. Raises `DatasetError` where nothing of the archive
    can be taken, `StorageError`.
    """
    name, refused = intake.named(archive), []
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            if reason := _unfit(opened, entries, archive.stat().st_size):
                raise DatasetError(f"{name} {reason}.")
            with storing(into):
                into.mkdir(parents=True, exist_ok=True)
            for entry in entries:
                if reason := _dangerous(entry) or _written(opened, entry, into):
                    shown = intake.named(Path(entry.filename))
                    refused.append((shown, f"{shown} in {name} {reason}."))
    except _BROKEN as error:
        reason = _damaged_package(archive, error) or f"a damaged zip ({error}): download or pack it again"
        raise DatasetError(f"{name} is {reason}.") from None
    except OSError as error:
        raise DatasetError(f"{name} cannot be read ({error.strerror or error}): copy it again.") from None
    return refused


def _unfit(opened: zipfile.ZipFile, entries: list[zipfile.ZipInfo], packed_bytes: int) -> str:
    """Why nothing of an archive is taken, from its table of contents; empty if it can be. Sizes in bytes."""
    total = sum(entry.file_size for entry in entries)
    if any(PurePosixPath(entry.filename).name == "data.pkl" for entry in entries):
        return "is a model file with a Python pickle in it: such files can run programs and are never opened here"
    if any(entry.flag_bits & 1 for entry in entries):
        return "is locked with a password: unpack it and drop the folder"
    if reason := _package(opened):
        return f"is {reason}"
    if len(entries) > MOST_FILES:
        return f"holds {len(entries):,} files, more than {MOST_FILES:,}: unpack it and drop the folder"
    if total > max(MOST_BYTES, packed_bytes):
        return f"would take {total / 1e9:.1f} GB unpacked, more than {MOST_BYTES / 1e9:.0f} GB: unpack it and drop the folder"
    if total > max(FROM, MOST_RATIO * packed_bytes):
        return f"would unpack to more than {MOST_RATIO} times its size, as only harmful archives do: leave it out"
    return ""


def _dangerous(entry: zipfile.ZipInfo) -> str:
    """Why an entry is not even looked at; empty if it may be."""
    name = entry.filename.replace("\\", "/")
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name):
        return "points to a place outside of the archive: it was left out"
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        return "is a link, not a file: put the file itself into the archive"
    return f"lies more than {DEEPEST} folders deep: move it up" if len(parts) > DEEPEST else ""


def _written(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, into: Path) -> str:
    """Unpack one entry; why it was not, or nothing."""
    parts = [portable(part) for part in PurePosixPath(entry.filename.replace("\\", "/")).parts]
    folder = into.joinpath(*parts[:-1])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        target = free_name(folder, parts[-1])
    except OSError as error:
        if error.errno in _NO_PLACE:
            return f"has a path that cannot be here ({error.strerror}): rename or move it"
        with storing(folder):
            raise
    try:
        with opened.open(entry) as packed_file:
            start = packed_file.read(len(_SIGNS[0]))
            if start in _SIGNS:
                what = strangers.meant(PurePosixPath(entry.filename).suffix)
                return (
                    f"is not a picture but {what}" if what else "is an archive within an archive: unpack it and drop the folder"
                )
            _copy(start, packed_file, target)
    except _BROKEN as error:
        target.unlink(missing_ok=True)
        return f"is damaged ({error}): pack it again"
    return ""


def _copy(start: bytes, rest: IO[bytes], target: Path) -> None:
    with storing(target), target.open("xb") as file:
        file.write(start)
        while block := rest.read(BLOCK):
            file.write(block)


def portable(name: str) -> str:
    """A file's name with nothing in it that a system does not take, otherwise as it is; never empty, `.` or `..`."""
    kept = re.sub(r'[<>:"|?*\x00-\x1f\x7f/\\]', "_", name).rstrip(". ") or "_"
    stem, suffix = os.path.splitext(f"_{kept}" if _RESERVED.match(kept) else kept)
    room = max(0, LONGEST - len(suffix.encode()))
    return (stem.encode()[:room].decode(errors="ignore") + suffix).encode()[:LONGEST].decode(errors="ignore")


def packed(folder: Path, out: Path) -> None:
    """Write a dataset as a zip: pictures, captions, masks, kept originals and `dataset.toml`. Raises `StorageError`."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    with storing(out):
        try:
            with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED, strict_timestamps=False) as opened:
                for path in _members(folder):
                    opened.write(path, path.relative_to(folder).as_posix())
            replace(part, out)
        finally:
            part.unlink(missing_ok=True)


def _members(folder: Path) -> Iterator[Path]:
    """What belongs to a dataset, in the order of names."""
    for place in (folder, folder / masks.FOLDER, folder / ORIGINALS):
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            if path.is_file() and not path.name.startswith(".") and (place != folder or path.suffix.lower() in _PACKED):
                yield path
