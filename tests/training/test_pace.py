"""The clock of a training."""

from __future__ import annotations

import time

import pytest

from trainer.training.pace import Pace


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "monotonic", found)
    return found


def step(pace: Pace, clock: Clock, seconds: float, after: float = 0.0) -> float:
    pace.start()
    clock.now += seconds
    speed = pace.tick()
    clock.now += after
    return speed


def test_speed_is_of_the_last_thirty_steps(clock: Clock) -> None:
    pace = Pace()
    assert step(pace, clock, 4.0) == pytest.approx(0.25)
    for _ in range(40):
        speed = step(pace, clock, 0.5)
    assert speed == pytest.approx(2.0)


def test_what_lies_between_steps_is_in_the_speed_and_not_in_the_step(clock: Clock) -> None:
    pace = Pace()
    speeds = [step(pace, clock, 1.0, after=1.0) for _ in range(5)]
    assert speeds[-1] == pytest.approx(0.5)
    assert pace.last == 1.0


def test_waiting_does_not_count(clock: Clock) -> None:
    pace = Pace(earlier=7.0)
    step(pace, clock, 1.0)
    clock.now += 500
    pace.waited(500)
    assert step(pace, clock, 1.0) == pytest.approx(1.0)
    assert pace.seconds == pytest.approx(9.0)
