"""The queue: runs that wait for their turn, in `queue.toml` of the home folder, and the one that works it off.

A run leaves the queue when it is finished, or stopped by a person. One that fails, or that is cut off with the machine,
keeps its place and is gone on with by the next who works the queue off. What a run is and how far it has come, its folder
alone tells. Several processes may change the queue at once. Knows no torch.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import tomlkit
from filelock import FileLock, Timeout
from tomlkit.exceptions import TOMLKitError

from trainer.children import launch
from trainer.errors import ImpastoError, RunError, storing
from trainer.home import Home, write_atomically
from trainer.training.progress import Progress, fold
from trainer.training.run import Run

TICK = 1.0
"""Seconds between two looks at a training."""


@dataclass(frozen=True)
class Entry:
    """A run in the queue. `state` is one of its progress, or: at work, interrupted, unreadable."""

    run: str
    state: str
    step: int = 0
    steps: int = 0
    message: str = ""


@dataclass(frozen=True)
class Turn:
    """What the queue is doing: waiting for a training that is not its own, training a run, or done with one for now."""

    folder: Path
    state: str
    """waiting, training; or how it ended: finished, stopped, failed."""
    progress: Progress

    @property
    def over(self) -> bool:
        """Whether the next run has its turn."""
        return self.state in ("finished", "stopped", "failed")

    @property
    def sentence(self) -> str:
        """The same for a person."""
        name = self.folder.name
        return {
            "waiting": f"Waiting until the training of {name} is over.",
            "training": f"Training {name}. Ctrl+C stops it after its step; `impasto queue run` then goes on with it.",
            "finished": f"{name} is finished: {self.folder / self.progress.lora}",
            "stopped": f"{name} was stopped, and has left the queue: {self.folder / self.progress.lora}",
            "failed": f"{name} failed: {self.progress.message}",
        }[self.state]


class Queue:
    """The queue of a home folder."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._kept = home.root / "queue.toml"

    @property
    def folders(self) -> list[Path]:
        """The runs in their order. Raises `RunError` if the queue's file is damaged, `StorageError`."""
        if not self._kept.is_file():
            return []
        with self._locked():
            return self._read()

    def entries(self) -> list[Entry]:
        """The runs in their order, and how each of them is."""
        return [_entry(folder) for folder in self.folders]

    def add(self, folder: Path) -> None:
        """Put a run at the end. Raises `RunError` if it is in the queue already."""
        folder = _resolved(folder)
        with self._changing() as folders:
            if folder in folders:
                raise RunError(f"{folder} is in the queue already: see `impasto queue`.")
            folders.append(folder)

    def remove(self, folder: Path) -> None:
        """Take a run out; its folder stays as it is. Raises `RunError` if it is not there, or is being trained."""
        with self._changing() as folders:
            place = _place(folders, folder)
            if _alive(folders[place]):
                raise RunError(f"{folders[place]} is being trained: end it with `impasto stop`, and it leaves the queue.")
            del folders[place]

    def move(self, folder: Path, by: int) -> None:
        """Let a run wait `by` places longer, or less long; the first and the last place are the ends.

        Raises `RunError` if it is not there, or is being trained, or would go before one that is.
        """
        with self._changing() as folders:
            place = _place(folders, folder)
            new = min(max(place + by, 0), len(folders) - 1)
            for passed in folders[min(place, new) : max(place, new) + 1]:
                if new != place and _alive(passed):
                    raise RunError(f"{passed} is being trained, and keeps its place until it is over.")
            folders.insert(new, folders.pop(place))

    def work(self) -> Generator[Turn]:
        """Train the runs in their order, each in a process of its own, and tell of it about once a second.

        A run that fails is passed over until the queue is worked off anew. Closing the generator stops the training after
        its step and leaves it in the queue. Raises `RunError` if another process works the queue off.
        """
        with self._alone():
            passed: set[Path] = set()
            while folder := next((each for each in self.folders if each not in passed), None):
                other = self._other(folder)
                if other is not None:
                    yield Turn(other.folder, "waiting", Progress())
                    time.sleep(TICK)
                    continue
                turn = yield from self._turn(folder)
                if turn.state == "failed":
                    passed.add(folder)
                else:
                    self._drop(folder)
                yield turn

    def _turn(self, folder: Path) -> Generator[Turn, None, Turn]:
        """One run's turn: start it unless it is at work already, see it to its end."""
        try:
            run = Run.open(folder)
        except ImpastoError as error:
            return Turn(folder, "failed", Progress(message=str(error)))
        told, process = _length(run), None
        if not run.alive():
            command = ["-m", "trainer", "--home", str(self._home.root), "resume", str(folder)]
            process = launch(command, folder / "log.txt", subprocess.DEVNULL, subprocess.DEVNULL)
        try:
            while _at_work(run, process):
                yield Turn(folder, "training", fold(run.events()))
                time.sleep(TICK)
        finally:
            _rest(run, process)
        progress = fold(run.events())
        if progress.over and (process is None or _length(run) > told):
            return Turn(folder, progress.state, progress)
        return Turn(folder, "failed", Progress(message=f"It ended unexpectedly; {folder / 'log.txt'} may say why."))

    def _other(self, folder: Path) -> Run | None:
        """A run that is being trained, and is not that in `folder`: of the queue, or of the home's runs."""
        known = self._home.runs.glob("*/settings.toml") if self._home.runs.is_dir() else ()
        for each in [*self.folders, *(_resolved(path.parent) for path in known)]:
            run = None if each == folder else _alive(each)
            if run is not None:
                return run
        return None

    def _drop(self, folder: Path) -> None:
        """Take out a run that is over, unless somebody has done so already."""
        with self._changing() as folders:
            folders[:] = [each for each in folders if each != folder]

    def _read(self) -> list[Path]:
        try:
            if not self._kept.is_file():
                return []
            return [Path(each) for each in tomlkit.parse(self._kept.read_text(encoding="utf-8")).unwrap()["runs"]]
        except (OSError, UnicodeDecodeError, TOMLKitError, KeyError, TypeError):
            raise RunError(f"{self._kept} is damaged: delete it, and add your runs to the queue again.") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone with the queue's file, for a moment: on Windows a file that is being read cannot be replaced."""
        with storing(self._kept):
            self._home.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._home.root / ".queue.lock")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _changing(self) -> Iterator[list[Path]]:
        """The runs, to be changed in place; what other processes change meanwhile waits, so that nothing is lost."""
        with self._locked():
            folders = self._read()
            yield folders
            with storing(self._kept):
                write_atomically(self._kept, tomlkit.dumps({"runs": [str(each) for each in folders]}).encode())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The only one who works the queue off. The system gives the lock back when the process ends, however it does."""
        with storing(self._kept):
            self._home.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._home.root / ".queue-run.lock", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                raise RunError("Another `impasto queue run` works this queue off: leave it to that one, or end it.") from None
        try:
            yield
        finally:
            lock.release()


def told_queue(result: dict[str, list[dict[str, str | int]]]) -> list[str]:
    """The queue as lines."""
    lines = []
    for place, each in enumerate(result["runs"], 1):
        step = f", step {each['step']} of {each['steps']}" if each["steps"] else ""
        message = f": {each['message']}" if each["message"] else ""
        lines.append(f"{place}. {each['run']}   {each['state']}{step}{message}")
    return lines or ["The queue is empty. Put a training into it: impasto queue add DATASET --out RUN"]


def told_turns(result: dict[str, list[dict[str, str]]]) -> list[str]:
    """What became of the runs that had their turn, as lines."""
    return [turn["message"] for turn in result["ended"]] or ["The queue is empty."]


def any_failed(result: dict[str, list[dict[str, str]]]) -> bool:
    """Whether one of them failed."""
    return any(turn["state"] == "failed" for turn in result["ended"])


def _entry(folder: Path) -> Entry:
    try:
        run = Run.open(folder)
    except ImpastoError as error:
        return Entry(str(folder), "unreadable", message=str(error))
    progress = fold(run.events())
    state: str = progress.state
    if run.alive():
        state = "paused" if state == "paused" else "at work"
    elif state in ("encoding", "training", "paused"):
        state = "interrupted"
    return Entry(str(folder), state, progress.step, progress.steps, progress.message)


def _alive(folder: Path) -> Run | None:
    """The run in `folder`, if a process works on it."""
    try:
        run = Run.open(folder)
    except ImpastoError:
        return None  # a damaged run folder is not being trained
    return run if run.alive() else None


def _at_work(run: Run, process: subprocess.Popen[bytes] | None) -> bool:
    """Whether the process that was started for `run`, or another one, works on it."""
    return (process is not None and process.poll() is None) or run.alive()


def _rest(run: Run, process: subprocess.Popen[bytes] | None) -> None:
    """Have a training end so that it can be gone on with: after its step, or at once if it has not begun to tell.

    Does nothing to one that is over. Whoever loses patience meanwhile (Ctrl+C again) ends the process at once; the run
    then goes on from its last checkpoint.
    """
    try:
        if run.alive():
            with suppress(RunError):  # it has ended this moment
                run.ask("stop")
            while _at_work(run, process):
                time.sleep(TICK / 10)
    finally:
        if process is not None:
            process.kill()
            process.wait()


def _place(folders: list[Path], folder: Path) -> int:
    if _resolved(folder) not in folders:
        raise RunError(f"{folder} is not in the queue: `impasto queue` lists what is.")
    return folders.index(_resolved(folder))


def _resolved(folder: Path) -> Path:
    return Path(os.path.realpath(os.path.expanduser(folder)))


def _length(run: Run) -> int:
    """Bytes of the run's log."""
    return run.events_path.stat().st_size if run.events_path.is_file() else 0
