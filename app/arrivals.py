"""What was dropped on the page, on its way into a dataset: a parcel of files as they arrive, then a thread that adds them.

The thread belongs to no page: it goes on when the page is closed, and tells whoever asks later what became of the files. Knows
no web server; the parcels lie in the cache until they are added, and nowhere after that.
"""

from __future__ import annotations

import re
import secrets
import shutil
import threading
import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from trainer.data.arrival.adding import Added, add
from trainer.data.arrival.archive import portable
from trainer.data.intake import WHITE
from trainer.errors import DatasetError, ImpastoError, storing
from trainer.home import free_name

STALE = 86_400.0
"""Seconds after which a parcel was certainly left over by a page or a program that was closed."""

Colour = tuple[int, int, int]


@dataclass
class Adding:
    """How the adding to one dataset goes, or went. `refused` and `changed` are sentences."""

    done: int = 0
    total: int = 0
    added: int = 0
    refused: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    busy: bool = True
    stopped: bool = False


class Arrivals:
    """The parcels of a home folder, and the addings to its datasets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._addings: dict[Path, Adding] = {}
        self._waiting: dict[Path, deque[tuple[Path, Colour]]] = {}

    def begin(self) -> str:
        """A new, empty parcel. Raises `StorageError`."""
        with storing(self.folder):
            self._tidy()
            parcel = self.folder / secrets.token_hex(8)
            parcel.mkdir(parents=True)
        return parcel.name

    def place(self, parcel: str, path: str) -> Path:
        """Where a file of a parcel is to be written, an empty file for now; `path` is that within the dropped folder.

        Raises `DatasetError`, `StorageError`.
        """
        parts = [portable(part) for part in PurePosixPath(path.replace("\\", "/")).parts]
        folder = self._open(parcel).joinpath(*parts[:-1])
        with self._lock, storing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            file = free_name(folder, parts[-1] if parts else "unnamed")
            file.touch(exist_ok=False)
        return file

    def drop(self, parcel: str) -> None:
        """Forget a parcel. Raises `DatasetError` if there is no such one."""
        shutil.rmtree(self._open(parcel), ignore_errors=True)

    def add(self, parcel: str, dataset: Path, background: Colour = WHITE) -> None:
        """Begin to add a parcel to a dataset, after those that are being added to it already. Raises `DatasetError`."""
        folder = self._open(parcel)
        with self._lock:
            adding = self._addings.get(dataset)
            waiting = self._waiting.setdefault(dataset, deque())
            waiting.append((folder, background))
            if adding is None or not adding.busy:
                adding = self._addings[dataset] = Adding()
                threading.Thread(target=self._work, args=(dataset, adding), name="adding", daemon=True).start()

    def of(self, dataset: Path) -> Adding | None:
        """How the last adding to a dataset goes or went; None if there was none, or it was seen."""
        return self._addings.get(dataset)

    def stop(self, dataset: Path) -> None:
        """Add no more to a dataset; what is in stays."""
        adding = self._addings.get(dataset)
        if adding:
            adding.stopped = True

    def seen(self, dataset: Path) -> None:
        """Forget how the last adding went, if it is over."""
        with self._lock:
            adding = self._addings.get(dataset)
            if adding and not adding.busy:
                del self._addings[dataset]

    def _open(self, parcel: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{16}", parcel) or not (self.folder / parcel).is_dir():
            raise DatasetError("What was dropped is not there any more: drop it again.")
        return self.folder / parcel

    def _work(self, dataset: Path, adding: Adding) -> None:
        """Add parcels as long as there are any."""
        waiting = self._waiting[dataset]
        try:
            while True:
                with self._lock:
                    if not waiting:
                        adding.busy = False
                        return
                    parcel, background = waiting.popleft()
                try:
                    if not adding.stopped:
                        _add(dataset, parcel, background, adding)
                finally:
                    shutil.rmtree(parcel, ignore_errors=True)
        finally:
            adding.busy = False

    def _tidy(self) -> None:
        """Delete parcels that nobody will add any more, and packed datasets that nobody fetched. Raises `OSError`."""
        for parcel in self.folder.glob("*"):
            if time.time() - parcel.stat().st_mtime > STALE:
                shutil.rmtree(parcel, ignore_errors=True) if parcel.is_dir() else parcel.unlink()


def _add(dataset: Path, parcel: Path, background: Colour, adding: Adding) -> None:
    """Add what is in one parcel, and note what becomes of it."""
    before = adding.total
    try:
        with closing(add(dataset, sorted(parcel.iterdir()), background)) as results:
            for each in results:
                adding.done, adding.total = before + each.done, before + each.total
                if isinstance(each, Added):
                    adding.added += 1
                    adding.changed += [f"{each.name}: {', '.join(each.notes)}."] if each.notes else []
                else:
                    adding.refused.append(each.reason)
                if adding.stopped:
                    break
    except ImpastoError as error:
        adding.refused.append(str(error))
