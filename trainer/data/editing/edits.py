"""Every change of a dataset goes through `Edits`: from the page, from the command line, by whatever mends it.

Each is journalled first, then done, and can be taken back to the byte, also by another process and after a crash: a change that
a kill or a loss of power cut off is done to its end by the next one who opens the dataset's `Edits`. Threads and processes take
turns (`.impasto.lock`). Captions and the trigger word are replaced only where they still say what the writer thought.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from uuid import uuid4

import tomlkit

from trainer.data import captions, intake, masks
from trainer.data.dataset import ABOUT, Dataset
from trainer.data.editing.journal import Change, Journal
from trainer.data.editing.steps import Move, Step, Write, carry_out, clear, relative
from trainer.data.editing.turns import alone
from trainer.errors import DatasetError, storing

JOURNAL = ".impasto-undo.jsonl"
ORIGINALS, REMOVED = "originals", "removed"

Table = Literal["crops", "focus", "repeats", "weights"]
Value = float | Sequence[float] | None

_SINGULAR: dict[Table, str] = {"crops": "crop", "focus": "focus", "repeats": "repeats", "weights": "weight"}


class CaptionConflict(DatasetError):
    """Somebody else changed the text meanwhile; `current` is what it says now."""

    def __init__(self, current: str, what: str = "caption") -> None:
        super().__init__(f"The {what} was changed meanwhile, by another tab or program: it now says “{current}”.")
        self.current = current


@dataclass(frozen=True)
class Undone:
    """What was taken back: `names` are the pictures that are as before."""

    what: str
    names: tuple[str, ...]
    left: tuple[str, ...] = ()
    """What stayed, since somebody else changed it after that: pictures, or `dataset.toml`."""


class Edits:
    """The changes of one dataset."""

    def __init__(self, folder: Path, series: str = "") -> None:
        """Finishes what a crash has cut off. What is changed through this object is taken back as one where `series` names it.

        Raises `StorageError`.
        """
        self.folder = folder
        self._what, self._series = series, f"{series} {uuid4()}" if series else ""
        self._journal = Journal(folder / JOURNAL)
        if self._journal.unfinished:
            with self._alone():
                pass

    @property
    def version(self) -> int:
        """A number that grows with every change, whoever makes it."""
        return self._journal.version

    @property
    def last(self) -> str | None:
        """What `undo` would take back; None if there is nothing."""
        return self._journal.last_what

    def caption(self, name: str, was: str, text: str) -> None:
        """Write a picture's caption, which the writer thinks says `was`.

        Raises `CaptionConflict` if it says neither that nor `text`, `DatasetError` if the picture is gone or the text cannot be
        kept, `StorageError`.
        """
        what = f"caption of {name}"
        with self._alone():
            step, current = self._written(name, was, text)
            if current is not None:
                raise CaptionConflict(current, what)
            self._perform(self._what or what, [name], [step] if step else [])

    def captions(self, changes: Mapping[str, tuple[str, str]], what: str) -> list[str]:
        """Write many captions, `{name: (was, text)}`, as one change.

        Returns the names of those that stay: they said neither `was` nor `text`, or their picture is gone. Raises
        `DatasetError` if a text cannot be kept, and `StorageError`; then none is written.
        """
        steps: dict[str, Write] = {}
        names, conflicts = [], []
        with self._alone():
            for name, (was, text) in changes.items():
                if not self._is_picture(name):
                    conflicts.append(name)
                    continue
                step, current = self._written(name, was, text)
                if current is not None or (step and steps.setdefault(step.path, step).now != step.now):
                    conflicts.append(name)
                elif step:
                    names.append(name)
            self._perform(what, names, list(steps.values()))
        return conflicts

    def remove(self, names: Iterable[str]) -> None:
        """Take pictures out, with caption, mask and what `dataset.toml` says of them, to the folder `removed`.

        Those that are gone already are passed over. Raises `DatasetError`, `StorageError`.
        """
        with self._alone():
            given = [name for name in dict.fromkeys(names) if self._is_picture(name)]
            without = {table: dict.fromkeys(given) for table in _SINGULAR}
            what = f"removal of {given[0] if len(given) == 1 else f'{len(given)} pictures'}" if given else ""
            self._perform(what, given, [*self._removal(given), *self._about(without)])

    def set(self, table: Table, values: Mapping[str, Value]) -> None:
        """Put what `dataset.toml` says of pictures into one of its tables; None takes it out.

        Raises `DatasetError` for a value that the table cannot have, `StorageError`.
        """
        names = list(values)
        what = f"{_SINGULAR[table]} of {names[0] if len(names) == 1 else f'{len(names)} pictures'}" if names else ""
        with self._alone():
            self._perform(what, names, self._about({table: values}))

    def trigger(self, was: str, text: str) -> None:
        """Write the trigger word. Raises `CaptionConflict` if it is neither `was` nor `text`, and as `set` does."""
        was, text = " ".join(was.split()), " ".join(text.split())
        captions.encode(text, "the trigger word")
        with self._alone():
            current = Dataset(self.folder, (), ()).trigger
            if current not in (was, text):
                raise CaptionConflict(current, "trigger word")
            self._perform("trigger word", [], self._about({}, text) if current != text else [])

    def mask(self, name: str, content: bytes | None) -> None:
        """Write a picture's mask, a PNG; None takes every mask of it away. Raises `DatasetError`, `StorageError`."""
        with self._alone():
            picture = self._picture(name)
            paths = masks.places(picture) if content is None else [masks.mask_path(picture)]
            steps = [
                Write(name, path, was, content)
                for path in relative(self.folder, paths)
                if (was := self._content(path)) != content
            ]
            self._perform(f"mask of {name}", [name], steps)

    def undo(self) -> Undone | None:
        """Take back the newest change that is not taken back, whoever made it, and the rest of its series.

        None if there is none. Raises `StorageError`.
        """
        with self._alone():
            change = self._journal.last
            if change is None:
                return None
            undone = self._taken_back(change)
            while change.series and (before := self._journal.last) and before.series == change.series:
                more = self._taken_back(before)
                undone = Undone(change.what, more.names + undone.names, more.left + undone.left)
            return undone

    def _taken_back(self, change: Change) -> Undone:
        back = [step.back() for step in reversed(change.steps)]
        left = self._perform(change.what, change.names, back, change.number)
        none = all(step.name in left for step in change.steps)
        return Undone(change.what, () if none else tuple(name for name in change.names if name not in left), left)

    # How a change is made ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other thread or process changes the dataset meanwhile, and what was cut off is finished."""
        if not self.folder.is_dir():
            raise DatasetError(f"The dataset folder {self.folder} does not exist any more.")
        with alone(self.folder):
            self._finish()
            yield

    def _finish(self) -> None:
        """Do to its end what was begun and not ended. Raises `StorageError`."""
        change = self._journal.unfinished
        if change:
            with storing(self.folder):
                clear(self.folder, change.steps)
                carry_out(self.folder, change.steps)
                self._journal.end(change, "done")

    def _perform(self, what: str, names: Iterable[str], steps: Sequence[Step], undoes: int | None = None) -> tuple[str, ...]:
        """Make one change of these steps, or none. Returns what stays as it is. Raises `StorageError`."""
        if not steps:
            return ()
        change = Change(self._journal.version + 1, what, tuple(names), tuple(steps), undoes, self._series)
        with storing(self.folder):
            self._journal.begin(change)
            try:
                left = carry_out(self.folder, change.steps)
            except OSError as error:
                with suppress(OSError):  # else it stays unfinished, and is done by the next one
                    carry_out(self.folder, [step.back() for step in reversed(change.steps)])
                    self._journal.end(change, "cancelled")
                with storing(Path(error.filename2 or self.folder)):
                    raise
        with suppress(OSError):  # it is done, whether or not that can be noted
            self._journal.end(change, "done")
        return left

    # The steps of a change --------------------------------------------------------------------------------------------------

    def _written(self, name: str, was: str, text: str) -> tuple[Write | None, str | None]:
        """The step that writes a caption, None if it says so already; and what it says, if that is neither `was` nor `text`."""
        path = self._picture(name).with_suffix(".txt")
        now = captions.encode(text, name)
        old = self._content(path.name)
        found = captions.decode(old or b"")
        if found.text not in (captions.one_line(was), captions.one_line(text)):
            return None, found.text
        same = old == now or (found.text == captions.one_line(text) and found.encoding == "utf-8")
        return None if same else Write(name, path.name, old, now), None

    def _removal(self, names: Sequence[str]) -> list[Move]:
        """The steps that take pictures out; a caption or mask stays where another picture of that name needs it."""
        leaving = set(names)
        staying = {path.stem for path in self.folder.iterdir() if path.name not in leaving and self._is_picture(path.name)}
        steps: dict[str, Move] = {}
        taken: set[str] = set()
        for picture in (self.folder / name for name in names):
            beside = [] if picture.stem in staying else [picture.with_suffix(".txt"), *masks.places(picture)]
            there = (source for source in relative(self.folder, [picture, *beside]) if self._exists(source))
            sources = [source for source in there if source not in steps]
            stem, count = picture.stem, 2
            while not taken.isdisjoint(to := _removed(sources, picture.stem, stem)) or any(map(self._exists, to)):
                stem, count = f"{picture.stem}-{count}", count + 1
            taken.update(to)
            steps |= {source: Move(picture.name, source, target) for source, target in zip(sources, to, strict=True)}
        return list(steps.values())

    def _about(self, values: Mapping[Table, Mapping[str, Value]], trigger: str | None = None) -> list[Write]:
        """The step that puts values into tables of `dataset.toml`, and the trigger word; none if it says so already."""
        old = self._content(ABOUT)
        given = Dataset(self.folder, (), (), Dataset(self.folder, (), ()).about)  # which says so if it is none
        about = tomlkit.parse((old or b"").decode("utf-8-sig"))
        for table, entries in values.items():
            if any(value is not None for value in entries.values()):
                getattr(given, table)  # is it a table, and in order?
            _put(about, table, entries)
        if trigger is not None:
            about["trigger"] = trigger
        try:
            now = tomlkit.dumps(about).encode()
        except UnicodeEncodeError:
            raise DatasetError(f"{ABOUT} cannot keep a file name that is not in UTF-8: rename the picture.") from None
        changed = Dataset(self.folder, (), (), tomllib.loads(now.decode()))
        if changed.about == given.about:
            return []
        for table, entries in values.items():
            if any(value is not None for value in entries.values()):
                getattr(changed, table)
        return [Write(ABOUT, ABOUT, old, now)]

    def _picture(self, name: str) -> Path:
        if not self._is_picture(name):
            raise DatasetError(f"{name} is not in the dataset {self.folder.name} any more.")
        return self.folder / name

    def _is_picture(self, name: str) -> bool:
        path = self.folder / name
        usual = path.name == name and not name.startswith(".") and path.suffix.lower() in intake.SUFFIXES
        return usual and not masks.is_mask(path) and os.path.isfile(path)  # False for a name that is too long

    def _exists(self, path: str) -> bool:
        return os.path.exists(self.folder / path)

    def _content(self, path: str) -> bytes | None:
        """What a file of the dataset says; None if there is none. Raises `DatasetError`."""
        whole = self.folder / path
        try:
            return whole.read_bytes() if os.path.isfile(whole) else None
        except OSError as error:
            raise DatasetError(f"{whole} cannot be read ({error.strerror or error}): check the file.") from None


def _removed(sources: Sequence[str], was: str, stem: str) -> list[str]:
    """Where a picture's files go, under another stem if need be; the second mask of one name is numbered."""
    targets: list[str] = []
    for source in sources:
        target = f"{REMOVED}/{stem}{PurePosixPath(source).name.removeprefix(was)}"
        targets.append(f"{target}-2.png" if target in targets else target)
    return targets


def _put(about: tomlkit.TOMLDocument, table: Table, values: Mapping[str, Value]) -> None:
    """Put values into a table; None takes one out, and a table that is left empty goes too."""
    there = about.get(table)
    entries = there if isinstance(there, dict) else tomlkit.table()
    for name, value in values.items():
        if value is None:
            entries.pop(name, None)
        else:
            entries[name] = list(value) if isinstance(value, Sequence) else value
    if entries and not isinstance(there, dict):
        about[table] = entries
    elif isinstance(there, dict) and not entries:
        del about[table]
