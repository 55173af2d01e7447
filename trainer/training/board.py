"""What happens in a training as files for TensorBoard, in the run's folder `board`. Knows events alone, no model.

A run that is gone on with gets a further file, which tells TensorBoard from which step on the earlier ones no longer count.
The records are written here, not by a thread of the package's own, so that a full disk is told of and a killed process leaves
all but the last seconds.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

from trainer.errors import RunError, storing
from trainer.training.events import Event, Resumed, Sampled, Stepped, Validated

PATIENCE = 5.0
"""Seconds after which what was written is put on the disk."""

SIDE = 512
"""Longest side of a picture in pixels: the board is for a glance, the pictures themselves are in the run's folder."""


class Board:
    """The board of one run, while one process works on it."""

    def __init__(self, run: Path) -> None:
        """Nothing is written yet. Raises `RunError` if the package for it is missing."""
        self._protocol = _protocol()
        self._run = run
        self._records: Any = None
        self._counts_from: int | None = 0
        """The step from which on nothing written earlier counts, until that is written down."""
        self._kept = time.monotonic()

    def show(self, event: Event) -> None:
        """Write down what is new in `event`, if anything. Raises `StorageError`."""
        match event:
            case Resumed(step=step):
                self._counts_from = step + 1
            case Stepped(step=step):
                self._write(step, event, [self._number(name, value) for name, value in _numbers(event).items()])
            case Validated(step=step, loss=loss):
                self._write(step, event, [self._number("loss/validation", loss)])
            case Sampled(step=step):
                path = self._run / event.path
                if path.is_file():
                    self._write(step, event, [self._picture(f"samples/{event.prompt}", path)])
            case _:
                pass

    def close(self) -> None:
        """Put all on the disk and end. Raises `StorageError`."""
        if self._records is not None:
            with storing(self._run / "board"):
                self._records.flush()
                self._records.close()
            self._records = None

    def _write(self, step: int, event: Event, values: list[Any]) -> None:
        """One record; before the first, what TensorBoard has to know of the file."""
        with storing(self._run / "board"):
            if self._records is None:
                self._records = self._opened()
                self._put(file_version="brain.Event:2")
            if self._counts_from is not None:
                start = self._protocol.SessionLog(status=self._protocol.SessionLog.START)
                self._put(step=self._counts_from, session_log=start)
                self._counts_from = None
            self._put(step=step, wall_time=event.time, summary=self._protocol.Summary(value=values))
            if not isinstance(event, Stepped) or time.monotonic() - self._kept > PATIENCE:
                self._records.flush()
                self._kept = time.monotonic()

    def _opened(self) -> Any:
        """A new file after those that are there; TensorBoard reads them in the order of their names."""
        folder = self._run / "board"
        folder.mkdir(exist_ok=True)
        number = sum(1 for _ in folder.iterdir())
        return self._protocol.RecordWriter(str(folder / f"events.out.tfevents.{number:06d}"))

    def _put(self, **fields: Any) -> None:
        self._records.write(self._protocol.Event(**{"wall_time": time.time(), **fields}).SerializeToString())

    def _number(self, name: str, value: float) -> Any:
        return self._protocol.Summary.Value(tag=name, simple_value=value)

    def _picture(self, name: str, path: Path) -> Any:
        with Image.open(path) as picture:
            small, content = picture.convert("RGB"), io.BytesIO()
        small.thumbnail((SIDE, SIDE))
        small.save(content, "JPEG", quality=90)
        image = self._protocol.Summary.Image(
            width=small.width, height=small.height, colorspace=3, encoded_image_string=content.getvalue()
        )
        return self._protocol.Summary.Value(tag=name, image=image)


def _numbers(event: Stepped) -> Mapping[str, float]:
    """What a step is measured by; what comes before the stroke is drawn side by side."""
    each = {"rate": event.rates, "change": event.change, "gradient": event.gradients}
    return {
        "loss/step": event.loss,
        "loss/smoothed": event.smoothed,
        **{f"{group}/{part}": value for group, values in each.items() for part, value in values.items()},
        "gradient/all": event.gradient,
        "machine/steps per second": event.speed,
        **({"machine/memory in GiB": event.memory / 2**30} if event.memory else {}),
    }


def _protocol() -> SimpleNamespace:
    """What records are made with, all of it from tensorboardX, in one place."""
    try:
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.record_writer import RecordWriter
    except ModuleNotFoundError:
        raise RunError(
            "TensorBoard's files need two further packages: install them with "
            "python -m pip install tensorboard tensorboardx, or set tensorboard to false."
        ) from None
    return SimpleNamespace(Event=Event, SessionLog=SessionLog, Summary=Summary, RecordWriter=RecordWriter)
