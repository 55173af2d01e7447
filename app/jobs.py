"""The processes that the page starts: trainings, which outlive it, and the previewer, which does not. Knows no torch.

A training is found again by the heartbeat in its run folder, whoever started it. The previewer is one warm child that
draws for all; it ends with the page, or when the card is wanted for a training.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from trainer.bases.origin import Remark
from trainer.children import ROOT, launch, no_window
from trainer.errors import ImpastoError, RunError
from trainer.home import Home
from trainer.recipe import Request
from trainer.training.run import Run


class Advance(Protocol):
    """Told how far something is: steps of a drawing, or what else is said to be done first."""

    def __call__(self, done: int, total: int, *, doing: str = "") -> None:
        """`done` of `total`."""


class PreviewError(ImpastoError):
    """The previewer could not draw."""


class CommandError(ImpastoError):
    """A command of the engine said what went wrong."""


def ask(home: Home, arguments: Sequence[str]) -> dict[str, Any]:
    """Run a command of the engine to its end; its result. Raises `CommandError` with the command's own sentence."""
    command = [sys.executable, "-m", "trainer", "--home", str(home.root), *arguments, "--json"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": "utf-8"}, creationflags=no_window(),
        capture_output=True, encoding="utf-8", errors="replace", check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise CommandError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "The command ended without a word.")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


class Trainings:
    """The runs of a home folder, and those of their processes that this page has started."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._children: dict[Path, tuple[subprocess.Popen[bytes], int]] = {}
        """The process that works on a run, and the length of the run's log when it was started."""

    def names(self) -> list[str]:
        """The runs there are, newest first."""
        found = self._home.runs.glob("*/settings.toml") if self._home.runs.is_dir() else ()
        newest_first = sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
        return [path.parent.name for path in newest_first]

    def open(self, name: str) -> Run:
        """The run of that name. Raises `RunError`, `SettingsError`."""
        if name not in self.names():
            raise RunError(f"There is no run {name} any more: choose another one.")
        return Run.open(self._home.runs / name)

    def alive(self, run: Run) -> bool:
        """Whether a process works on `run`, or is about to. One that only has to end is no longer at work."""
        return self.starting(run) or run.alive()

    def starting(self, run: Run) -> bool:
        """Whether this page has started a process for `run` that has not told of anything yet."""
        child = self._children.get(run.folder)
        if child is None or child[0].poll() is not None:  # poll also buries a child that has ended
            return False
        return _length(run.events_path) == child[1]

    def living(self) -> Run | None:
        """The run that is being trained now, if one is."""
        for name in self.names():
            try:
                run = self.open(name)
            except ImpastoError:
                continue  # a damaged run folder is not being trained
            if self.alive(run):
                return run
        return None

    def start(self, run: Run) -> None:
        """Train `run`, from its newest checkpoint if it has one. Raises `RunError` if a training is under way already."""
        with self._lock:
            other = self.living()
            if other is not None:
                raise RunError(f"{other.name} is being trained: wait until it is over, or stop it first.")
            work = ["-m", "trainer", "--home", str(self._home.root), "resume", str(run.folder)]
            length = _length(run.events_path)
            process = launch(work, run.folder / "log.txt", subprocess.DEVNULL, subprocess.DEVNULL)
            self._children[run.folder] = process, length


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


class Previewer:
    """The page's end of the previewer's process: one request at a time, a new process whenever there is none."""

    def __init__(self, home: Home) -> None:
        self.session = secrets.token_hex(8)
        """Differs between openings of the page: what was drawn with a base that has changed since is not shown again."""
        self._cache = home.cache
        self._log = home.cache / "previewer.log"
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def draw(self, base: str, request: Request, out: Path, advance: Advance) -> list[Remark]:
        """Draw one picture to `out`; what there is to say of its LoRAs on this base. Raises `PreviewError`."""
        return self._ask({"do": "draw", "base": base, "request": request.to_json(), "out": str(out)}, advance)

    def sheet(self, base: str, prediction: str, lora: Path, out: Path, advance: Advance) -> list[Remark]:
        """Draw a LoRA's style sheet to `out`; what there is to say of it on this base. Raises `PreviewError`."""
        asked = {"do": "sheet", "base": base, "prediction": prediction, "lora": str(lora), "out": str(out), "seed": 1}
        return self._ask(asked, advance)

    def rest(self) -> None:
        """End the process unless it is drawing: the card's memory is to be measured."""
        if self._turn.acquire(blocking=False):
            try:
                self.unload()
            finally:
                self._turn.release()

    def unload(self) -> None:
        """End the process, and what it is drawing; the next request starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _ask(self, request: dict[str, Any], advance: Advance) -> list[Remark]:
        with self._turn:
            process, answered = self._running(), False
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(json.dumps({**request, "cache": str(self._cache)}).encode() + b"\n")
                process.stdin.flush()
                for line in process.stdout:
                    answer = json.loads(line)
                    answered = answer["is"] in ("done", "error")
                    if answer["is"] == "error":
                        raise PreviewError(answer["message"])
                    if answered:
                        return [Remark(**each) for each in answer["remarks"]]
                    if answer["is"] == "step":
                        advance(answer["done"], answer["total"])
                    else:
                        advance(answer["done"] >> 20, answer["total"] >> 20, doing="Downloading the base model (MiB)")
            except (BrokenPipeError, json.JSONDecodeError):
                pass  # the process has ended: told below
            finally:
                if not answered:  # it must not go on: the next request would be given this one's answers
                    process.kill()
                    process.communicate()
            if self._process is not process:
                raise PreviewError("The drawing was ended, because a training needs the memory. Draw again when it is over.")
            raise PreviewError(f"The previewer ended unexpectedly. {self._log} says why; draw again to start it anew.")

    def _running(self) -> subprocess.Popen[bytes]:
        process = self._process
        if process is None or process.poll() is not None:
            process = launch(["-m", "trainer.preview.worker"], self._log, subprocess.PIPE, subprocess.PIPE)
            self._process = process
        return process
