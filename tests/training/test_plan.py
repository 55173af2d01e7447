"""Which pictures each step sees: every one in every pass, batches of one bucket, nothing remembered."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trainer.data.buckets import Placement
from trainer.data.dataset import Dataset, Picture
from trainer.settings import validated
from trainer.training.plan import Plan, seed_of

SIZES = [(512, 512)] * 5 + [(800, 512)] * 3 + [(512, 800)] * 1


def plan(batch: int = 2, seed: int = 1, **more: Any) -> Plan:
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


# Several placements of a picture ------------------------------------------------------------------------------------------


def test_every_picture_is_seen_at_every_resolution_in_every_pass() -> None:
    a_plan = plan(batch=1, resolutions=[256, 384])
    assert len(a_plan.pictures) == 3 * len(SIZES)
    for number in range(len(SIZES)):
        mine = [placement for picture, placement in a_plan.pictures if picture.path.name == f"{number}.png"]
        areas = [placement.bucket.width * placement.bucket.height for placement in mine]
        assert areas == pytest.approx([512**2, 256**2, 384**2], rel=0.125)
    length = len(a_plan.pictures)
    assert sorted(index for step in range(length) for [index] in [a_plan.indices(step)]) == list(range(length))


def test_more_resolutions_and_mirroring_take_no_more_steps() -> None:
    assert plan(passes=10).steps == plan(passes=10, resolutions=[256], flip=True).steps
    assert plan(resolutions=[256], flip=True).distinct == len(SIZES)


def test_a_small_picture_is_not_doubled_by_two_resolutions() -> None:
    pictures = (Picture(Path("small.png"), 480, 480), Picture(Path("large.png"), 1200, 1200))
    settings = validated({"resolution": 1024, "resolutions": [480], "max_upscale": 1.0})
    placed = Plan.of(Dataset(Path("set"), pictures, ()), settings).pictures
    sides = [(picture.path.stem, placement.bucket.width) for picture, placement in placed]
    assert sides == [("small", 480), ("large", 1024), ("large", 480)]


def test_every_picture_is_seen_mirrored_as_often_as_not() -> None:
    a_plan = plan(batch=1, flip=True)
    plain, mirrored = ([entry for entry in a_plan.pictures if entry[1].mirrored is which] for which in (False, True))
    assert [(picture, replace(placement, mirrored=True)) for picture, placement in plain] == mirrored
    assert tuple(plain) == plan(batch=1).pictures
    assert all(placement.time_ids == other.time_ids for (_, placement), (_, other) in zip(plain, mirrored, strict=True))
    length = len(a_plan.pictures)
    assert sorted(index for step in range(length) for [index] in [a_plan.indices(step)]) == list(range(length))


def test_a_pass_shows_a_picture_as_often_as_its_repeats_say(tmp_path: Path) -> None:
    (tmp_path / "dataset.toml").write_text('[repeats]\n"1.png" = 3\n"gone.png" = 9\n')
    pictures = tuple(Picture(tmp_path / f"{number}.png", 512, 512) for number in range(3))
    a_plan = Plan.of(Dataset(tmp_path, pictures, ()), validated({"resolution": 512, "passes": 10, "flip": True}))
    assert (a_plan.steps, a_plan.distinct) == (50, 3)
    seen = Counter(a_plan.pictures[index][0].path.name for step in range(10) for index in a_plan.indices(step))
    assert seen == {"0.png": 2, "1.png": 6, "2.png": 2}
