"""A training in float64, as one process or one of several: `python -m tests.training.several RUN HOME`. Not a test itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from trainer.home import Home
from trainer.lora.adapter import Adapter
from trainer.training.loop import train
from trainer.training.processes import Processes
from trainer.training.run import Run


@contextmanager
def in_float64() -> Iterator[None]:
    """While it lasts, bases are loaded and LoRAs are made in float64."""
    inject = Adapter.inject

    def doubled(*given: Any, **named: Any) -> Adapter:
        adapter = inject(*given, **named)
        for _, layer in adapter.named():
            layer.to(layer.weight.dtype)  # which memory is counted of stay as they are
        return adapter

    with (
        patch.object(Adapter, "inject", doubled),
        patch("trainer.training.prepare.training_dtype", lambda *_: torch.float64),
    ):
        yield


def main(run: Run, home: Home) -> None:
    """Train a run; only the first process records it."""
    processes = Processes.found()
    events = train(run, home)
    for _ in run.recorded(events) if processes.first else events:
        pass
    processes.leave()


if __name__ == "__main__":
    with in_float64():
        main(Run.open(Path(sys.argv[1])), Home(Path(sys.argv[2])))
