"""What is told while captions are written. `as_json` is how a line of `impasto caption --events` says it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Fetched:
    """So many bytes of the model are here, of so many; several times a second at most."""

    kind: ClassVar = "fetch"
    done: int
    total: int


@dataclass(frozen=True)
class Loading:
    """The model is being loaded, which takes seconds and cannot be measured."""

    kind: ClassVar = "loading"
    model: str


@dataclass(frozen=True)
class Captioned:
    """A caption was written; `done` pictures are through, of `total`."""

    kind: ClassVar = "caption"
    name: str
    text: str
    done: int
    total: int


@dataclass(frozen=True)
class Passed:
    """A picture was left as it is; `message` is a sentence that says why."""

    kind: ClassVar = "passed"
    name: str
    message: str
    done: int
    total: int


@dataclass(frozen=True)
class Remark:
    """Something that a person should know."""

    kind: ClassVar = "remark"
    message: str


@dataclass(frozen=True)
class Done:
    """All are through: how many captions were written, and how many pictures were passed over."""

    kind: ClassVar = "done"
    written: int
    passed: int
    total: int


Event = Fetched | Loading | Captioned | Passed | Remark | Done


def as_json(event: Event) -> dict[str, Any]:
    """`{"is": "caption", "name": …}`: the event's kind and its fields."""
    return {"is": event.kind, **asdict(event)}
