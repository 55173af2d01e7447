"""What the events of a run say about it now."""

from __future__ import annotations

import pytest

from trainer.training.events import (
    Encoded,
    Event,
    Failed,
    Fetched,
    Finished,
    Resumed,
    Sampled,
    Saved,
    Started,
    Stepped,
    Stopped,
    Warned,
)
from trainer.training.progress import Progress, fold

STARTED = Started(steps=10, pictures=3, base="starter", device="cpu", buckets={"64x64": 3})


def stepped(step: int, loss: float = 0.5) -> Stepped:
    return Stepped(
        step=step, steps=10, loss=loss, smoothed=loss, rates={}, gradient=0.1, change={}, speed=2.0, eta=4.5, memory=0
    )


def test_before_anything_happens_a_run_waits() -> None:
    assert fold([]) == Progress()
    assert fold([]).state == "waiting"
    assert fold([]).share == 0


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([Fetched(done=1, total=3)], "waiting"),
        ([Failed(message="No network."), Fetched(done=1, total=3)], "waiting"),
        ([Fetched(done=3, total=3), Encoded(done=1, total=3)], "encoding"),
        ([Encoded(done=1, total=3)], "encoding"),
        ([Encoded(done=3, total=3), STARTED], "training"),
        ([STARTED, stepped(1), Saved(step=1, path="x")], "training"),
        ([STARTED, stepped(1), Stopped(step=1, lora="a.safetensors", seconds=1.0)], "stopped"),
        ([STARTED, stepped(10), Finished(step=10, lora="a.safetensors", seconds=1.0)], "finished"),
        ([STARTED, stepped(1), Failed(message="The disk is full.")], "failed"),
        ([Failed(message="The disk is full."), Encoded(done=1, total=3), STARTED], "training"),
    ],
)
def test_the_state_follows_the_events(events: list[Event], state: str) -> None:
    assert fold(events).state == state


def test_only_an_end_is_an_end() -> None:
    ends = [Stopped(step=1, lora="a", seconds=1.0), Finished(step=1, lora="a", seconds=1.0), Failed(message="x")]
    assert all(fold([end]).over for end in ends)
    assert not fold([STARTED, stepped(1)]).over


def test_steps_are_counted_and_their_losses_kept() -> None:
    last = stepped(2, 0.8)
    progress = fold([STARTED, stepped(1, 0.9), last])
    assert (progress.step, progress.steps, progress.share) == (2, 10, 0.2)
    assert progress.losses == [(1, 0.9, 0.9), (2, 0.8, 0.8)]
    assert progress.last is last


def test_after_a_resume_the_lost_steps_are_forgotten() -> None:
    samples = [Sampled(step=step, prompt="a house", path=f"{step}.png") for step in (2, 3)]
    progress = fold([STARTED, stepped(1), stepped(2), stepped(3), *samples, STARTED, Resumed(step=2)])
    assert progress.step == 2
    assert [row[0] for row in progress.losses] == [1, 2]
    assert [sample.step for sample in progress.samples] == [2]


def test_a_failure_tells_why_until_the_run_goes_on() -> None:
    failed = fold([STARTED, Failed(message="The disk is full.")])
    assert failed.message == "The disk is full."
    assert fold([STARTED, Resumed(step=0)], failed).message == ""


def test_warnings_are_kept() -> None:
    assert fold([Warned(message="one"), Warned(message="two")]).warnings == ["one", "two"]


def test_the_lora_is_known_at_the_end() -> None:
    progress = fold([STARTED, Finished(step=10, lora="a.safetensors", seconds=2.5)])
    assert (progress.lora, progress.step, progress.seconds) == ("a.safetensors", 10, 2.5)


def test_folding_bit_by_bit_is_folding_at_once() -> None:
    events: list[Event] = [
        Encoded(done=3, total=3), STARTED, stepped(1), Saved(step=1, path="x"), STARTED, Resumed(step=1), stepped(2),
        Finished(step=2, lora="a", seconds=1.0),
    ]  # fmt: skip
    progress = Progress()
    for event in events:
        progress = fold([event], progress)
    assert progress == fold(events)


def test_lines_that_were_no_events_are_passed_over() -> None:
    assert fold([None, STARTED, None]).state == "training"
