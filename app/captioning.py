"""The child process that writes captions for the page: one at a time, followed by a thread, whoever looks at the page.

Captions are on the disk one by one, so that ending the child loses nothing. Knows nothing of how captions are made; no torch.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from trainer.children import launch
from trainer.errors import RunError
from trainer.home import Home

State = Literal["running", "done", "failed", "cancelled"]

MOST_REMARKS = 20
"""So many of the sentences that the child says beside its captions are kept."""


@dataclass(frozen=True)
class Told:
    """How far it is. `fetched`: bytes of the model that are here, and that there will be; `name`, `text`: the last caption;
    `message`: what went wrong; `remarks`: what else there is to know, such as which pictures were passed over and why.
    """

    dataset: str
    state: State = "running"
    fetched: tuple[int, int] = (0, 0)
    done: int = 0
    total: int = 0
    written: int = 0
    name: str = ""
    text: str = ""
    message: str = ""
    remarks: tuple[str, ...] = ()


class Captioning:
    """The page's end of that process."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._log = home.cache / "captioning.log"
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._told: Told | None = None

    @property
    def told(self) -> Told | None:
        """How far the last captioning is; None if there was none since the program was started."""
        return self._told

    @property
    def busy(self) -> bool:
        """Whether captions are being written."""
        return self._told is not None and self._told.state == "running"

    def start(self, dataset: str, options: Sequence[str]) -> None:
        """Write captions for a dataset. Raises `RunError` if that is under way already, `StorageError`."""
        with self._lock:
            if self.busy:
                raise RunError("Captions are being written already: wait until that is over, or cancel it.")
            folder = self._home.datasets / dataset
            command = ["-m", "trainer", "--home", str(self._home.root), "caption", str(folder), *options, "--events"]
            process = launch(command, self._log, subprocess.DEVNULL, subprocess.PIPE)
            self._process, self._told = process, Told(dataset)
        threading.Thread(target=self._follow, args=(process,), name="captioning", daemon=True).start()

    def stop(self) -> None:
        """End the process; what is written stays."""
        with self._lock:
            process, told = self._process, self._told
            if process is None or told is None or told.state != "running":
                return
            self._told = replace(told, state="cancelled")
        process.kill()
        process.wait()

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                try:
                    self._hear(process, json.loads(line))
                except json.JSONDecodeError:
                    continue  # cut off as the process was ended
        process.wait()
        why = f"The captioning ended unexpectedly. {self._log} says why; start it again to go on."
        self._hear(process, {"is": "error", "message": why})

    def _hear(self, process: subprocess.Popen[bytes], event: dict[str, Any]) -> None:
        """Note what a process says, unless it is over or another one was begun."""
        with self._lock:
            told = self._told
            if process is not self._process or told is None or told.state != "running":
                return
            match event.get("is"):
                case "fetch":
                    told = replace(told, fetched=(event["done"], event["total"]))
                case "caption":
                    said = {key: event[key] for key in ("done", "total", "name", "text")}
                    told = replace(told, **said, written=told.written + 1)
                case "passed":
                    remarks = (*told.remarks, event["message"])[-MOST_REMARKS:]
                    told = replace(told, done=event["done"], total=event["total"], remarks=remarks)
                case "done":
                    told = replace(told, state="done")
                case "error":
                    told = replace(told, state="failed", message=event["message"])
                case "remark":
                    told = replace(told, remarks=(*told.remarks, event["message"])[-MOST_REMARKS:])
            self._told = told
