"""Whatever was dropped -> a dataset's folder: copied at once, normalised where needed, nothing overwritten.

Nothing of the person's own files is changed. Two pictures are decoded at a time, and one is written.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from trainer.data import intake
from trainer.data.arrival.about import About
from trainer.data.arrival.archive import is_zip
from trainer.data.arrival.pile import Entry, Pile, found
from trainer.data.arrival.placing import placed
from trainer.data.dataset import ABOUT
from trainer.data.intake import WHITE, Intake, named
from trainer.errors import PictureError, StorageError, storing

WORKERS = 2
"""Pillow decodes without holding Python up: two threads take half the time on two cores, and memory for two pictures."""

AHEAD = 2
"""So many pictures are ready or being made before the last one is written."""

_SCRATCH = ".incoming-"
_HALF = f".*.{'[0-9a-f]' * 8}.[0-9]*-[0-9]*.part"
"""What `home.write_blocks` writes before it is whole."""

_STALE = 86_400.0
"""Seconds after which what was unpacked or half written is certainly left over from a process that was killed."""


@dataclass(frozen=True)
class Added:
    """A picture that is in the dataset now, under this file name; `notes` say what was changed or decided."""

    name: str
    notes: tuple[str, ...]
    done: int
    total: int


@dataclass(frozen=True)
class Refused:
    """A file that was not added; `reason` is a sentence that names it."""

    name: str
    reason: str
    done: int
    total: int


def add(folder: Path, paths: Iterable[Path], background: tuple[int, int, int] = WHITE) -> Generator[Added | Refused]:
    """Add files, folders and zips of pictures to the dataset in `folder`, which is made if need be.

    Yields each picture as it is in, and each file that is not taken: also where the disk is full or read-only, which then holds
    for all that follow. Closing the iterator stops; what is in stays.
    """
    given = list(paths)
    try:
        with _scratch(folder, given) as scratch:
            pile = found(given, scratch)
            yield from _added(folder, pile, background)
    except StorageError as error:
        for done, path in enumerate(given, start=1):
            yield Refused(named(path), f"{named(path)} was not added. {error}", done, len(given))


@contextmanager
def _scratch(folder: Path, given: list[Path]) -> Iterator[Path | None]:
    """A folder for what is unpacked, on the dataset's own disk; None where there is no zip. Raises `StorageError`."""
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _tidy(folder)
        made = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=folder)) if any(map(is_zip, given)) else None
    try:
        yield made
    finally:
        if made:
            shutil.rmtree(made, ignore_errors=True)


def _tidy(folder: Path) -> None:
    """Delete what processes that were killed have left behind."""
    for left in (*folder.glob(f"{_SCRATCH}*"), *folder.glob(_HALF), *folder.glob(f"*/{_HALF}")):
        with suppress(OSError):  # one that is being written may be gone by now
            if time.time() - left.stat().st_mtime > _STALE:
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()


def _added(folder: Path, pile: Pile, background: tuple[int, int, int]) -> Iterator[Added | Refused]:
    """Every entry of the pile, as it is in or refused."""
    rest, total, full = deque(pile.entries), len(pile.refused) + len(pile.entries), ""
    for number, refusal in enumerate(pile.refused, start=1):
        yield Refused(refusal.name, refusal.reason, number, total)
    about = About(folder, pile.trigger)
    try:
        with closing(_prepared(pile.entries, background)) as prepared:
            for entry, future in prepared:
                try:
                    taken, problem = future.result()
                    name = placed(folder, entry, taken, with_mask=not problem)
                except PictureError as error:
                    rest.popleft()
                    yield Refused(entry.name, str(error), total - len(rest), total)
                except StorageError as error:
                    full = str(error)
                    break
                else:
                    rest.popleft()
                    about.note(name, entry)
                    renamed = () if Path(name).stem == entry.path.stem else (f"called {entry.name} before",)
                    yield Added(name, (*renamed, *taken.notes, *entry.notes), total - len(rest), total)
                    if problem and entry.mask:
                        yield Refused(named(entry.mask), problem, total - len(rest), total)
    finally:
        problems = about.write()
    for number, entry in enumerate(rest, start=total - len(rest) + 1):
        yield Refused(entry.name, f"{entry.name} was not added. {full}", number, total)
    for problem in problems:
        yield Refused(ABOUT, problem, total, total)


def _prepared(
    entries: Iterable[Entry], background: tuple[int, int, int]
) -> Generator[tuple[Entry, Future[tuple[Intake, str]]]]:
    """Each entry with what becomes of its picture, in order, a few ahead of who asks."""
    waiting: deque[tuple[Entry, Future[tuple[Intake, str]]]] = deque()
    with ThreadPoolExecutor(WORKERS) as workers:
        try:
            for entry in entries:
                waiting.append((entry, workers.submit(_prepare, entry, background)))
                if len(waiting) > AHEAD:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            for _, future in waiting:
                future.cancel()


def _prepare(entry: Entry, background: tuple[int, int, int]) -> tuple[Intake, str]:
    """What becomes of a picture, and why its mask cannot be taken. Raises `PictureError`."""
    taken = intake.normalised(entry.path, background)
    try:
        if entry.mask:
            intake.read_picture(entry.mask)
    except PictureError as error:
        return taken, str(error)
    return taken, ""
