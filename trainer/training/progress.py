"""`fold(events)`: what a run's events say about it now. The one truth that page, command line and tests show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from trainer.training.events import (
    Encoded,
    Event,
    Failed,
    Fetched,
    Finished,
    Lowered,
    Paused,
    Resumed,
    Sampled,
    Saved,
    Started,
    Stepped,
    Stopped,
    Validated,
    Warned,
)

State = Literal["waiting", "encoding", "training", "paused", "stopped", "finished", "failed"]


@dataclass
class Progress:
    """A run at a glance."""

    state: State = "waiting"
    step: int = 0
    steps: int = 0
    fetched: tuple[int, int] = (0, 0)
    """Bytes of the base that have come from the Hub, and that there are; (0, 0) if it was here already."""
    encoded: tuple[int, int] = (0, 0)
    last: Stepped | None = None
    losses: list[tuple[int, float, float]] = field(default_factory=list)
    """(step, loss, smoothed loss)."""
    validated: list[Validated] = field(default_factory=list)
    """Measurements on the pictures held out."""
    samples: list[Sampled] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    lora: str = ""
    finished: Finished | None = None
    """What was found in the LoRA when all steps were done."""
    seconds: float = 0.0
    """How long the training took, over all resumptions."""
    message: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.state in ("stopped", "finished", "failed")

    @property
    def share(self) -> float:
        """How much of the steps is done, 0 … 1."""
        return self.step / self.steps if self.steps else 0.0


def fold(events: Iterable[Event | None], into: Progress | None = None) -> Progress:
    """The state after `events`, begun anew or continued from `into`."""
    progress = into or Progress()
    for event in events:
        match event:
            case Started(steps=steps):
                progress.state, progress.steps, progress.message = "training", steps, ""
            case Fetched(done=done, total=total):
                progress.state, progress.fetched, progress.message = "waiting", (done, total), ""
            case Encoded(done=done, total=total):
                progress.state, progress.encoded = "encoding", (done, total)
            case Stepped():
                progress.state, progress.step, progress.steps, progress.last = "training", event.step, event.steps, event
                progress.losses.append((event.step, event.loss, event.smoothed))
            case Resumed(step=step):  # what came after the checkpoint is done again
                progress.state, progress.step, progress.message = "training", step, ""
                progress.losses = [row for row in progress.losses if row[0] <= step]
                progress.samples = [sample for sample in progress.samples if sample.step <= step and step]
                progress.validated = [measured for measured in progress.validated if measured.step <= step and step]
                progress.last = None if progress.last and progress.last.step > step else progress.last
            case Sampled():
                progress.samples.append(event)
            case Validated(message=message):
                progress.validated.append(event)
                progress.warnings += [message] if message else []
            case Saved() | None:
                pass
            case Warned(message=message) | Lowered(message=message):
                progress.warnings.append(message)
            case Paused(step=step, message=message):
                progress.state, progress.step, progress.message = "paused", step, message
            case Stopped() | Finished():
                progress.finished = event if isinstance(event, Finished) else None
                progress.state = "finished" if progress.finished else "stopped"
                progress.step, progress.lora, progress.seconds = event.step, event.lora, event.seconds
            case Failed(message=message):
                progress.state, progress.message = "failed", message
    return progress
