"""Which pictures each step sees: every one in every pass, batches of one bucket, nothing remembered."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from pathlib import Path

import pytest

from trainer.data.buckets import Placement
from trainer.data.dataset import Dataset, Picture
from trainer.settings import validated
from trainer.training.plan import Plan, seed_of

SIZES = [(512, 512)] * 5 + [(800, 512)] * 3 + [(512, 800)] * 1


def plan(batch: int = 2, seed: int = 1, **more: float) -> Plan:
    pictures = tuple(Picture(Path(f"{number}.png"), *size) for number, size in enumerate(SIZES))
    return Plan.of(Dataset(Path("set"), pictures, ()), validated({"batch": batch, "seed": seed, "resolution": 512, **more}))


def steps_per_pass(a_plan: Plan) -> int:
    return sum(math.ceil(count / a_plan.batch) for count in a_plan.buckets.values())


def placements(a_plan: Plan, step: int) -> list[Placement]:
    return [a_plan.pictures[index][1] for index in a_plan.indices(step)]


def test_pictures_are_counted_by_bucket() -> None:
    assert sorted(plan().buckets.values()) == [1, 3, 5]
    assert plan().buckets["512x512"] == 5


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_every_pass_shows_every_picture(batch: int) -> None:
    a_plan = plan(batch)
    length = steps_per_pass(a_plan)
    for number in range(4):
        seen = Counter(index for step in range(length) for index in a_plan.indices(number * length + step))
        assert seen.keys() == set(range(len(SIZES)))


def test_with_batch_one_every_pass_shows_each_picture_once() -> None:
    a_plan = plan(batch=1)
    seen = Counter(index for step in range(2 * len(SIZES)) for index in a_plan.indices(step))
    assert set(seen.values()) == {2}


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_a_batch_is_full_and_of_one_bucket(batch: int) -> None:
    a_plan = plan(batch)
    for step in range(3 * steps_per_pass(a_plan)):
        assert len(a_plan.indices(step)) == batch
        assert len({placement.bucket for placement in placements(a_plan, step)}) == 1


def test_steps_are_the_same_in_any_order() -> None:
    forwards, backwards = plan(), plan()
    later = {step: backwards.indices(step) for step in reversed(range(30))}
    assert [forwards.indices(step) for step in range(30)] == [later[step] for step in range(30)]


def test_passes_are_shuffled_anew() -> None:
    a_plan = plan(batch=1)
    first, second = ([a_plan.indices(start + step) for step in range(9)] for start in (0, 9))
    assert first != second


def test_another_seed_shuffles_otherwise() -> None:
    one, other = ([plan(batch=1, seed=seed).indices(step) for step in range(9)] for seed in (1, 2))
    assert one != other


def test_steps_follow_from_the_passes() -> None:
    assert plan(batch=2, passes=10).steps == 45
    assert plan(batch=1, passes=0.5).steps == 5


def test_steps_that_are_given_count() -> None:
    assert plan(batch=2, passes=10, steps=7).steps == 7


def test_without_leaves_pictures_out_and_keeps_the_steps() -> None:
    a_plan = plan(batch=1, passes=10)
    fewer = a_plan.without({0, 8})
    assert fewer.steps == a_plan.steps
    assert [picture.path.name for picture, _ in fewer.pictures] == [f"{number}.png" for number in range(1, 8)]
    assert {index for step in range(7) for index in fewer.indices(step)} == set(range(7))


def test_a_seed_depends_on_every_part_and_their_order() -> None:
    seeds = {seed_of(1, 2, 3), seed_of(3, 2, 1), seed_of(12, 3), seed_of(1, 23), seed_of(1, "2", 4)}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_seed_is_the_same_in_every_process() -> None:
    assert seed_of(1, 2, "pass") == int(hashlib.sha256(b"1/2/pass").hexdigest()[:16], 16) // 2
