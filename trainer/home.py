"""Where things live on disk: the person's own folder, and the files that ship with the program.

Knows paths only. The home folder is `~/Impasto`, or what `IMPASTO_HOME` (or `--home`) names.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

_SIDE_BY_SIDE = 8
"""So many files are flushed to the disk at once."""

_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


@dataclass(frozen=True)
class Home:
    """The folder that holds a person's datasets, runs, LoRAs and pictures. Nothing is made before it is needed."""

    root: Path

    @classmethod
    def default(cls) -> Home:
        """`IMPASTO_HOME`, else `~/Impasto`."""
        named = os.environ.get("IMPASTO_HOME")
        return cls(Path(named).expanduser().resolve() if named else Path.home() / "Impasto")

    @property
    def datasets(self) -> Path:
        """One folder a dataset."""
        return self.root / "datasets"

    @property
    def runs(self) -> Path:
        """One folder a run."""
        return self.root / "runs"

    @property
    def loras(self) -> Path:
        """The library: finished LoRA files."""
        return self.root / "loras"

    @property
    def bases(self) -> Path:
        """Base models, beside the folders that are named for them."""
        return self.root / "bases"

    @property
    def pictures(self) -> Path:
        """What was drawn in the page."""
        return self.root / "pictures"

    @property
    def cache(self) -> Path:
        """Encoded pictures, shared between runs; may be deleted at any time."""
        return self.root / "cache"


def shipped(*parts: str) -> Path:
    """A preset or asset, from an installed wheel (`trainer/shipped/`) or else from the checkout."""
    package = Path(__file__).resolve().parent
    installed = package.joinpath("shipped", *parts)
    return installed if installed.exists() else package.parent.joinpath(*parts)


def safe_name(name: str, fallback: str = "untitled", spare: int = 0) -> str:
    """`name` as a file or folder name that every system takes: no separators, no reserved names, at most 80
    characters and 160 bytes, so that something can be put before and behind it; shorter by `spare`."""
    kept = re.sub(r"[^\w.-]+", "-", name.strip(), flags=re.UNICODE).strip("-._")[: 80 - spare]
    kept = kept.encode()[: 160 - spare].decode(errors="ignore").rstrip("-._")
    device, dot, rest = kept.partition(".")
    return f"{device}-1{dot}{rest}" if device.lower() in _RESERVED else kept or fallback


def free_name(folder: Path, name: str) -> Path:
    """`folder/name`, or with `-2`, `-3` … behind it: the first that does not exist."""
    stem, suffix = os.path.splitext(name)
    path, count = folder / name, 2
    while path.exists():
        path, count = folder / f"{stem}-{count}{suffix}", count + 1
    return path


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` whole or not at all: a neighbour file, flushed to the disk, then renamed over `path`."""
    write_blocks(path, (content,))


def write_all(contents: Mapping[Path, bytes]) -> None:
    """The same of many small files, each whole or not at all; what is flushed side by side takes a tenth of the time.

    Raises `OSError`; some may be written then, and others not.
    """
    with ExitStack() as tidy, ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        parts = {path: _part(path) for path in contents}
        for part in parts.values():
            tidy.callback(part.unlink, missing_ok=True)
        list(pool.map(lambda path: _fill(parts[path], (contents[path],)), contents))
        for path, part in parts.items():
            replace(part, path)
    for folder in {path.parent for path in contents}:
        sync_folder(folder)


def write_blocks(path: Path, blocks: Iterable[bytes]) -> None:
    """The same of what is too large to be held at once; `path` itself may be read meanwhile."""
    part = _part(path)
    try:
        _fill(part, blocks)
        replace(part, path)
        sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def clear_parts(path: Path) -> None:
    """Delete what killed writers of `path` have left behind; there must be no living one. Raises `OSError`."""
    for part in path.parent.glob(f"{glob.escape(_part_prefix(path))}*.part"):
        part.unlink(missing_ok=True)


def _fill(part: Path, blocks: Iterable[bytes]) -> None:
    """Have a file with this content on the disk."""
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("wb") as file:
        for block in blocks:
            file.write(block)
        file.flush()
        os.fsync(file.fileno())


def _part(path: Path) -> Path:
    """The neighbour file from which `path` is written: of this thread alone."""
    return path.with_name(f"{_part_prefix(path)}{os.getpid()}-{threading.get_native_id()}.part")


def _part_prefix(path: Path) -> str:
    """How its name begins: told apart by the file's whole name, but never too long for a disk."""
    return f".{path.name[:40]}.{crc32(os.fsencode(path.name)):08x}."


def replace(source: Path, target: Path) -> None:
    """`os.replace`, with patience: on Windows a virus scanner may hold a new file for a moment."""
    for seconds in (0.05, 0.2, 1.0):
        try:
            os.replace(source, target)
            return
        except PermissionError:
            time.sleep(seconds)
    os.replace(source, target)


def sync_folder(folder: Path) -> None:
    """Have the names in `folder` outlast a loss of power, after one was renamed; Windows sees to that by itself."""
    if sys.platform != "win32":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a network's disk may not do it for folders
                raise
        finally:
            os.close(handle)
