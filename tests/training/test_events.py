"""Events as lines of JSON and back; readers pass over what they do not know."""

from __future__ import annotations

import json

import pytest

from trainer.training.events import (
    KINDS,
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
    from_line,
    to_line,
)

EVERY: list[Event] = [
    Started(steps=10, pictures=3, base="starter", device="cpu", buckets={"64x64": 3}),
    Fetched(done=2**20, total=2**30),
    Encoded(done=1, total=3),
    Stepped(step=1, steps=10, loss=0.5, smoothed=0.5, rates={"unet": 1e-4}, gradient=0.1, change={"unet": 0.2}, speed=2.0,
            eta=4.5, memory=0),
    Sampled(step=1, prompt="ein schönes Haus", path="samples/000001-0.png"),
    Saved(step=1, path="checkpoints/000001"),
    Validated(step=1, loss=0.4, best=1, message="It was best at step 1."),
    Warned(message="two\nlines"),
    Lowered(precision="bf16", recompute="full", message="Memory ran out."),
    Paused(step=1, message="The disk is full."),
    Resumed(step=1),
    Stopped(step=2, lora="style.safetensors", seconds=1.0),
    Finished(step=10, lora="style.safetensors", seconds=1.5),
    Failed(message="The disk is full."),
]  # fmt: skip


@pytest.mark.parametrize("event", EVERY, ids=lambda event: event.kind)
def test_an_event_is_one_line_and_comes_back(event: Event) -> None:
    line = to_line(event)
    assert "\n" not in line
    assert json.loads(line)["event"] == event.kind
    assert from_line(line) == event


def test_every_kind_was_tried() -> None:
    assert {event.kind for event in EVERY} == KINDS.keys()


@pytest.mark.parametrize(
    "line",
    [
        "", "\n", '{"event": "stepped", "st', '{"event": "of the future"}', '{"no": "event"}', '{"event": "saved"}', "null",
        "[1]", "7", '"x"',
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_passed_over(line: str) -> None:
    assert from_line(line) is None


def test_fields_that_are_not_known_are_passed_over() -> None:
    line = json.dumps({**json.loads(to_line(EVERY[5])), "colour": "red"})
    assert from_line(line) == EVERY[5]


def test_an_event_knows_when_it_happened() -> None:
    assert Resumed(step=1).time > 1.7e9
