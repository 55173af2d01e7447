"""Sequences of steps as they come from cards: those that spill, and those that are slow for other reasons."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from trainer.training.spill import Spill

GIB = 2**30
CARD = 8 * GIB
FULL = int(7.9 * GIB)
ROOMY = 6 * GIB
SQUARE = 1024 * 1024
Step = tuple[float, int, int]
"""Seconds, bytes in use, pixels."""


def told(steps: Iterable[Step], predicted: float = 1.0) -> list[tuple[int, str]]:
    """What is said, with the number of the step from 1."""
    spill = Spill(predicted, SQUARE)
    heard = [spill.watch(seconds, used, CARD, pixels) for seconds, used, pixels in steps]
    return [(number, sentence) for number, sentence in enumerate(heard, start=1) if sentence]


def steps(count: int, seconds: float, used: int = ROOMY, pixels: int = SQUARE) -> list[Step]:
    return [(seconds, used, pixels)] * count


def test_a_card_that_fills_up_and_becomes_slow_is_told_of_once() -> None:
    ((number, sentence),) = told([*steps(20, 1.5), *steps(50, 20.0, FULL)])
    assert number == 23
    assert sentence.startswith("Steps take 20.0 s instead of 1.5 s as before, and 7.9 of the card's 8.0 GiB are in use: ")
    assert "close other programs that use the card, and resume it" in sentence


def test_a_card_that_was_nearly_full_from_the_start_and_then_spills_is_told_of() -> None:
    assert [number for number, _ in told([*steps(10, 1.0, FULL), *steps(10, 3.1, FULL)])] == [13]


def test_a_training_that_spills_from_its_first_step_is_held_against_the_prediction() -> None:
    ((number, sentence),) = told(steps(30, 25.0, FULL), predicted=0.5)
    assert number == 5
    assert "instead of about 500 ms as predicted" in sentence


def test_one_bucket_that_spills_is_found_among_others_that_do_not() -> None:
    """Every other step is on large pictures, for which alone the card is too small from step 21 on."""
    small, large = SQUARE // 2, SQUARE * 3 // 2
    before = [*steps(1, 0.6, FULL, small), *steps(1, 1.6, FULL, large)] * 10
    after = [*steps(1, 0.6, FULL, small), *steps(1, 9.0, FULL, large)] * 10
    assert [number for number, _ in told([*before, *after])] == [26]


def test_a_larger_bucket_that_spills_whenever_it_comes_is_held_against_the_smaller_ones() -> None:
    turn = [*steps(9, 0.5, FULL, SQUARE // 4), *steps(1, 9.0, FULL, SQUARE)]
    assert [number for number, _ in told(turn * 4)] == [30]


@pytest.mark.parametrize(
    "quiet",
    [
        pytest.param([*steps(50, 1.0, FULL), *steps(50, 2.6, FULL)], id="a laptop that grows warm, on a full card"),
        pytest.param([*steps(50, 1.0), *steps(50, 8.0)], id="another program takes the card's time, not its memory"),
        pytest.param([*steps(10, 1.0, FULL), (60.0, FULL, SQUARE)] * 5, id="samples are drawn within every tenth step"),
        pytest.param([*steps(2, 1.0, FULL), (9.0, FULL, SQUARE)] * 20, id="a slow disk writes a checkpoint every third step"),
        pytest.param(
            [*steps(30, 0.2, FULL, 512 * 512), *steps(30, 1.1, FULL, SQUARE)], id="pictures of four times the area follow"
        ),
        pytest.param([*steps(30, 1.0, FULL), *steps(30, 0.9, FULL, SQUARE // 4)], id="small pictures wait for launches"),
        pytest.param([(40.0, FULL, SQUARE), (9.0, FULL, SQUARE), *steps(30, 1.0, FULL)], id="the first steps try kernels"),
        pytest.param(steps(30, 3.5, FULL), id="a prediction that is far off"),
        pytest.param(steps(30, 30.0), id="a slow card with room"),
        pytest.param([*steps(4, 1.0), *steps(3, 9.0, FULL), *steps(30, 1.0, FULL)], id="too early to tell"),
    ],
)
def test_what_is_slow_for_another_reason_is_not_told_of(quiet: list[Step]) -> None:
    assert told(quiet) == []


def test_what_is_usual_grows_with_the_area_and_never_shrinks() -> None:
    spill = Spill(1.0, SQUARE)
    for seconds in (1.0, 2.0, 6.0):
        spill.watch(seconds, ROOMY, CARD, SQUARE)
    assert [spill.usual(pixels) for pixels in (SQUARE // 2, SQUARE, 2 * SQUARE)] == [2.0, 2.0, 4.0]


def test_a_smaller_bucket_alone_is_not_expected_to_be_faster_than_predicted() -> None:
    assert told(steps(10, 3.9, FULL, SQUARE // 4)) == []
    assert told(steps(10, 4.1, FULL, SQUARE // 4)) != []
    assert told(steps(10, 4.1, FULL, SQUARE * 2)) == []
