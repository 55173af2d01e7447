"""What happens in a training, in the past tense. Bare data: one line of `events.jsonl` each. Knows no torch.

`time` is seconds since the epoch. A reader ignores types and fields it does not know.
"""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

from trainer.settings import Precision, Recompute


@dataclass(frozen=True, kw_only=True)
class Event:
    """The common part: the type's name in the file, and when it happened."""

    kind: ClassVar[str] = ""
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, kw_only=True)
class Started(Event):
    """The base is loaded and the plan is made."""

    kind: ClassVar[str] = "started"
    steps: int
    pictures: int
    base: str
    device: str
    precision: str = ""
    """How the base is kept, in the words of `Settings.precision`."""
    recompute: str = ""
    """What is computed twice, in the words of `Settings.recompute`."""
    fit: str = ""
    """How memory led to these two, as a sentence."""
    buckets: dict[str, int]
    """Pictures per bucket, by `WIDTHxHEIGHT`."""


@dataclass(frozen=True, kw_only=True)
class Fetched(Event):
    """So many of the base's bytes have come from the Hub."""

    kind: ClassVar[str] = "fetched"
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Encoded(Event):
    """A picture, or a caption, was encoded or found in the cache."""

    kind: ClassVar[str] = "encoded"
    done: int
    total: int
    what: str = "pictures"
    """`pictures` or `captions`."""


@dataclass(frozen=True, kw_only=True)
class Stepped(Event):
    """A training step was taken. `step` counts from 1."""

    kind: ClassVar[str] = "stepped"
    step: int
    steps: int
    loss: float
    smoothed: float
    rates: dict[str, float]
    gradient: float
    """Norm of the gradient before it was cut."""
    gradients: dict[str, float] = field(default_factory=dict)
    """The same of the U-Net and of each text encoder."""
    change: dict[str, float]
    """Size of the change of the U-Net and of each text encoder."""
    speed: float
    """Steps per second, lately."""
    eta: float
    """Seconds to go."""
    memory: int
    """Peak of the device's memory in bytes; 0 where there is no card."""


@dataclass(frozen=True, kw_only=True)
class Sampled(Event):
    """A sample picture was drawn; `path` is relative to the run folder."""

    kind: ClassVar[str] = "sampled"
    step: int
    prompt: str
    path: str
    base: str = ""
    """The picture of the same prompt and seed that the base alone draws; empty if there is none."""
    weight: float = 1.0
    """The LoRA's weight in it."""


@dataclass(frozen=True, kw_only=True)
class Validated(Event):
    """The loss on the pictures held out was measured, with the same noise as ever."""

    kind: ClassVar[str] = "validated"
    step: int
    loss: float
    best: int
    """The step at which it was lowest."""
    message: str = ""
    """What that means, where it means something."""


@dataclass(frozen=True, kw_only=True)
class Saved(Event):
    """A checkpoint is on disk; `path` is relative to the run folder."""

    kind: ClassVar[str] = "saved"
    step: int
    path: str


@dataclass(frozen=True, kw_only=True)
class Warned(Event):
    """Something is not as the person may think; the training goes on."""

    kind: ClassVar[str] = "warned"
    message: str


@dataclass(frozen=True, kw_only=True)
class Lowered(Event):
    """Memory ran out: the training goes on in a way that needs less. `message` tells a person."""

    kind: ClassVar[str] = "lowered"
    precision: Precision
    recompute: Recompute
    message: str


@dataclass(frozen=True, kw_only=True)
class Paused(Event):
    """The training waits: because somebody asked for it, or for the reason that `message` tells."""

    kind: ClassVar[str] = "paused"
    step: int
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Resumed(Event):
    """The training goes on from a checkpoint, or from where it waited."""

    kind: ClassVar[str] = "resumed"
    step: int


@dataclass(frozen=True, kw_only=True)
class Stopped(Event):
    """The training ended early, by a person or its guard; what was learnt is in `lora`, which is empty if it was cancelled."""

    kind: ClassVar[str] = "stopped"
    step: int
    lora: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """All steps are done; the LoRA is in `lora`, relative to the run folder."""

    kind: ClassVar[str] = "finished"
    step: int
    lora: str
    seconds: float
    layers: int = 0
    """Layers that the file was found to hold when it was read back; 0 in older logs, as with what follows."""
    size: int = 0
    """Bytes of the file."""
    share: float = 0.0
    """Trained numbers as a share of the base's weights."""
    change: dict[str, float] = field(default_factory=dict)
    """Size of the change of the U-Net and of each text encoder, as the file holds it."""


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """The training ended with an error, told as a sentence."""

    kind: ClassVar[str] = "failed"
    message: str


KINDS: dict[str, type[Event]] = {
    event.kind: event
    for event in (
        Fetched, Started, Encoded, Stepped, Sampled, Validated, Saved, Warned, Lowered, Paused, Resumed, Stopped, Finished,
        Failed,
    )
}  # fmt: skip


def to_line(event: Event) -> str:
    """One line of JSON."""
    return json.dumps({"event": event.kind, **dataclasses.asdict(event)}, ensure_ascii=False)


def from_line(line: str) -> Event | None:
    """The inverse of `to_line`; None for a line that is cut off or of a kind not known here."""
    try:
        values: dict[str, Any] = json.loads(line)
        kind = KINDS[values.pop("event")]
        known = {each.name for each in dataclasses.fields(kind)}
        return kind(**{name: value for name, value in values.items() if name in known})
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
