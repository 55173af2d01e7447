"""A run: one folder that holds everything about one training, and is the only truth about it. Knows no torch.

settings.toml    what was asked: dataset, base, preset, settings
events.jsonl     what happened
checkpoints/     to go on from
samples/         pictures drawn on the way
NAME.safetensors the LoRA
NAME.json, .png  what other programs show it by
heartbeat.json   the process that works on it
stop, pause …    empty files: what that process is asked for (see `Wish`)
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any, Literal, get_args

import psutil
import tomlkit
from tomlkit.exceptions import ParseError

from trainer.errors import ImpastoError, RunError, storing
from trainer.home import safe_name, write_atomically
from trainer.settings import Settings
from trainer.settings_text import validated
from trainer.training.events import Event, Failed, from_line, to_line
from trainer.training.progress import fold

Wish = Literal["stop", "cancel", "pause", "sample", "save"]
"""What the process that works on a run can be asked for, after the step it is at.

stop: end, and write the LoRA as it is; cancel: end, and write none; pause: wait as long as the wish is there;
sample: draw the sample pictures; save: write a checkpoint.
"""


@dataclass(frozen=True)
class Run:
    """A run folder and what was asked of it."""

    folder: Path
    dataset: Path
    base: str
    preset: str
    settings: Settings

    @classmethod
    def create(cls, folder: Path, dataset: Path, base: str, preset: str, settings: Settings) -> Run:
        """Write a new run folder. Raises `RunError` if one is there already, `StorageError`."""
        if (folder / "settings.toml").exists():
            raise RunError(f"{folder} already holds a run: go on with `impasto resume {folder}`, or choose another folder.")
        if folder.is_dir() and any(folder.iterdir()):
            raise RunError(f"{folder} is not empty: choose a new folder for the run.")
        if folder.exists() and not folder.is_dir():
            raise RunError(f"{folder} is a file: choose a new folder for the run.")
        if settings.prior_dataset:
            settings = settings.model_copy(update={"prior_dataset": str(Path(settings.prior_dataset).resolve())})
        run = cls(folder, dataset.resolve(), base, preset, settings)
        document = {
            "dataset": str(run.dataset), "base": base, "preset": preset, "settings": settings.model_dump(mode="json"),
        }  # fmt: skip
        with storing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / "settings.toml", tomlkit.dumps(document).encode("utf-8"))
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Read a run folder. Raises `RunError`, `SettingsError`."""
        path = folder / "settings.toml"
        if not path.is_file():
            raise RunError(f"{folder} is not a run: it has no settings.toml. Give the folder that `--out` named.")
        try:
            asked: dict[str, Any] = tomlkit.parse(path.read_text(encoding="utf-8")).unwrap()
            settings = validated(asked["settings"])
            return cls(folder, Path(asked["dataset"]), asked["base"], asked["preset"], settings)
        except (ParseError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise RunError(f"{path} is damaged ({error}): start a new run.") from None

    def with_steps(self, steps: int) -> Run:
        """The same run, with so many steps in all from now on; its settings.toml says so, and keeps what else is in it.

        Raises `RunError` if it is being trained or has taken more already, `SettingsError`.
        """
        settings = validated({**self.settings.model_dump(), "steps": steps})
        taken = fold(self.events()).step
        if self.alive():
            raise RunError(f"{self.folder} is being trained: stop it before you change its steps.")
        if steps < max(1, taken):
            raise RunError(f"{self.folder} has taken {taken} steps already: ask for {max(1, taken)} or more, not {steps}.")
        path = self.folder / "settings.toml"
        document = tomlkit.parse(path.read_text(encoding="utf-8"))
        document["settings"]["steps"] = steps  # type: ignore[index]
        with storing(path):
            write_atomically(path, tomlkit.dumps(document).encode("utf-8"))
        return replace(self, settings=settings)

    @property
    def name(self) -> str:
        """The LoRA's name."""
        return safe_name(self.folder.resolve().name, "style")

    @property
    def lora(self) -> Path:
        """Where the finished LoRA is written."""
        return self.folder / f"{self.name}.safetensors"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def samples(self) -> Path:
        """Folder of the sample pictures."""
        return self.folder / "samples"

    @property
    def events_path(self) -> Path:
        """The log of events."""
        return self.folder / "events.jsonl"

    def events(self) -> Iterator[Event]:
        """What has happened so far, in order; a line that is cut off is passed over."""
        if self.events_path.is_file():
            with self.events_path.open(encoding="utf-8", errors="replace") as lines:
                yield from (event for event in map(from_line, lines) if event is not None)

    def ask(self, wish: Wish) -> None:
        """Leave word for the process that works on this run; what pauses wakes to end. Raises `RunError`, `StorageError`."""
        if not self.alive():
            raise RunError(f"{self.folder} is not being trained, or has not begun yet: it cannot {wish} now.")
        with storing(self.folder):
            (self.folder / wish).touch()
        if wish in ("stop", "cancel"):
            self.granted("pause")

    def wishes(self, wish: Wish) -> bool:
        """Whether somebody asked for it, and it is not granted yet."""
        return (self.folder / wish).exists()

    def granted(self, wish: Wish) -> None:
        """Take a wish away: it is fulfilled, or no longer wanted. Raises `StorageError`."""
        with storing(self.folder):
            (self.folder / wish).unlink(missing_ok=True)

    def alive(self) -> bool:
        """Whether a living process works on this run: one with the heartbeat's number *and* start time."""
        try:
            beat = json.loads((self.folder / "heartbeat.json").read_text(encoding="utf-8"))
            process = psutil.Process(beat["pid"])
            ended = process.status() == psutil.STATUS_ZOMBIE  # killed, and its parent has not looked yet
            return not ended and bool(abs(process.create_time() - beat["started"]) < 1)
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            return False

    def recorded(self, events: Iterable[Event]) -> Iterator[Event]:
        """Pass `events` on, each written to the log first; a failure becomes the last one and is raised on.

        Raises `RunError` if another process works on this run.
        """
        if self.alive():
            raise RunError(f"{self.folder} is being trained by another process: wait for it, or stop it.")
        for wish in get_args(Wish):
            self.granted(wish)
        self._sweep()
        try:
            with storing(self.folder):
                beat = {"pid": os.getpid(), "started": psutil.Process().create_time()}
                write_atomically(self.folder / "heartbeat.json", json.dumps(beat).encode())
                log = self.events_path.open("a+b", buffering=0)
            with log:
                yield from self._logged(events, log)
        finally:
            with contextlib.suppress(OSError):  # what stays is known for a dead process's, and the next start removes it
                for name in ("heartbeat.json", *get_args(Wish)):
                    (self.folder / name).unlink(missing_ok=True)

    def _logged(self, events: Iterable[Event], log: FileIO) -> Iterator[Event]:
        """`events`, each after it is in the log."""
        try:
            self._end_line(log)
            for event in events:
                with storing(self.events_path):
                    log.write(_bytes(event))
                yield event
        except ImpastoError as error:
            self._note(log, str(error))
            raise
        except Exception as error:
            self._note(log, f"{type(error).__name__}: {error}")
            raise

    def _sweep(self) -> None:
        """Remove what a killed process left half-written."""
        for left in [*self.folder.glob(".*.part"), *self.folder.glob("*/.*.part")]:
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):  # it takes room, and does no other harm
                    left.unlink()

    def _end_line(self, log: FileIO) -> None:
        """End a line that a killed process left unfinished, so that the next event has a line of its own."""
        with storing(self.events_path):
            if log.seek(0, os.SEEK_END):
                log.seek(-1, os.SEEK_END)
                if log.read(1) != b"\n":
                    log.write(b"\n")

    @staticmethod
    def _note(log: FileIO, message: str) -> None:
        with contextlib.suppress(OSError):  # the disk is full: the error that is raised on says so
            log.write(_bytes(Failed(message=message)))


def _bytes(event: Event) -> bytes:
    """The event's line in the log."""
    return (to_line(event) + "\n").encode("utf-8", errors="replace")
