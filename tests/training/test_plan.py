"""Which pictures each step sees: every one in every pass, batches of one bucket, nothing remembered."""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trainer.data.buckets import Placement
from trainer.data.dataset import Dataset, Picture
from trainer.errors import DatasetError, RunError
from trainer.settings_text import validated
from trainer.training.plan import Plan

SIZES = [(512, 512)] * 5 + [(800, 512)] * 3 + [(512, 800)] * 1


def plan(batch: int = 2, seed: int = 1, **more: Any) -> Plan:
    pictures = tuple(Picture(Path(f"{number}.png"), *size) for number, size in enumerate(SIZES))
    return Plan.of(Dataset(Path("set"), pictures, ()), validated({"batch": batch, "seed": seed, "resolution": 512, **more}))


def steps_per_pass(a_plan: Plan) -> int:
    return sum(math.ceil(count / a_plan.batch) for count in a_plan.buckets.values())


def placements(a_plan: Plan, step: int) -> list[Placement]:
    return [a_plan.pictures[index].placement for index in a_plan.indices(step)]


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
    assert [entry.picture.path.name for entry in fewer.pictures] == [f"{number}.png" for number in range(1, 8)]
    assert {index for step in range(7) for index in fewer.indices(step)} == set(range(7))


# Several placements of a picture ------------------------------------------------------------------------------------------


def test_every_picture_is_seen_at_every_resolution_in_every_pass() -> None:
    a_plan = plan(batch=1, resolutions=[256, 384])
    assert len(a_plan.pictures) == 3 * len(SIZES)
    for number in range(len(SIZES)):
        mine = [entry.placement for entry in a_plan.pictures if entry.picture.path.name == f"{number}.png"]
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
    sides = [(entry.picture.path.stem, entry.placement.bucket.width) for entry in placed]
    assert sides == [("small", 480), ("large", 1024), ("large", 480)]


def test_every_picture_is_seen_mirrored_as_often_as_not() -> None:
    a_plan = plan(batch=1, flip=True)
    plain, mirrored = ([entry for entry in a_plan.pictures if entry.placement.mirrored is which] for which in (False, True))
    assert [replace(entry, placement=replace(entry.placement, mirrored=True)) for entry in plain] == mirrored
    assert tuple(plain) == plan(batch=1).pictures
    assert all(one.placement.time_ids == other.placement.time_ids for one, other in zip(plain, mirrored, strict=True))
    length = len(a_plan.pictures)
    assert sorted(index for step in range(length) for [index] in [a_plan.indices(step)]) == list(range(length))


def test_a_pass_shows_a_picture_as_often_as_its_repeats_say(tmp_path: Path) -> None:
    (tmp_path / "dataset.toml").write_text('[repeats]\n"1.png" = 3\n"gone.png" = 9\n')
    pictures = tuple(Picture(tmp_path / f"{number}.png", 512, 512) for number in range(3))
    a_plan = Plan.of(Dataset(tmp_path, pictures, ()), validated({"resolution": 512, "passes": 10, "flip": True}))
    assert (a_plan.steps, a_plan.distinct) == (50, 3)
    seen = Counter(a_plan.pictures[index].picture.path.name for step in range(10) for index in a_plan.indices(step))
    assert seen == {"0.png": 2, "1.png": 6, "2.png": 2}


@pytest.mark.parametrize(("batch", "order"), [(1, "3ffa9e46607adc3f"), (2, "dc4f9ce2d8ea39ff"), (3, "e26fdb3240e18c29")])
def test_the_order_stays_what_it_was_in_earlier_versions(batch: int, order: str) -> None:
    a_plan = plan(batch, flip=True, resolutions=[256])
    seen = repr([a_plan.indices(step) for step in range(200)])
    assert hashlib.sha256(seen.encode()).hexdigest()[:16] == order


# Steps of several micro-batches -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("accumulation", "processes", "steps"), [(1, 1, 45), (3, 1, 15), (1, 2, 23), (4, 2, 6)])
def test_steps_of_several_batches_are_fewer(accumulation: int, processes: int, steps: int) -> None:
    pictures = tuple(Picture(Path(f"{number}.png"), 512, 512) for number in range(9))
    settings = validated({"batch": 2, "passes": 10, "accumulation": accumulation, "resolution": 512})
    assert Plan.of(Dataset(Path("set"), pictures, ()), settings, processes).steps == steps


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ({}, 10), ({"flip": True, "resolutions": [256], "crops": 3}, 10), ({"passes": 0.5}, 6 / 9), ({"steps": 18}, 4),
        ({"batch": 1}, 10), ({"accumulation": 5}, 10),
    ],
)  # fmt: skip
def test_the_passes_are_those_that_the_steps_make(more: dict[str, Any], shown: float) -> None:
    """Nine pictures in batches of two, ten times each unless `more` says otherwise; steps are whole ones."""
    settings = {"batch": 2, "passes": 10, **more}
    a_plan = plan(**settings)
    assert a_plan.passes(settings.get("accumulation", 1)) == pytest.approx(shown)


def test_a_repeated_picture_is_not_counted_for_the_others(tmp_path: Path) -> None:
    about = '[repeats]\n"1.png" = 3\n'
    settings = validated({"resolution": 512, "batch": 1, "passes": 7, "flip": True})
    assert Plan.of(folder(tmp_path, 3, about), settings).passes() == pytest.approx(7)
    both = Plan.of(folder(tmp_path, 3, about), settings, prior=folder(tmp_path / "prior", 2))
    assert both.passes() == pytest.approx(7)


def test_accumulation_changes_no_order() -> None:
    one, other = plan(), plan(accumulation=4)
    assert [one.indices(micro) for micro in range(40)] == [other.indices(micro) for micro in range(40)]


def test_many_pictures_take_no_time() -> None:
    pictures = tuple(Picture(Path(f"{number}.png"), 300 + 7 * number % 2000, 1000) for number in range(10_000))
    a_plan = Plan.of(Dataset(Path("set"), pictures, ()), validated({}))
    began = time.process_time()
    for micro in range(10_000):
        a_plan.indices(micro)
    half = a_plan.skipping(range(0, 10_000, 2))
    for micro in range(10_000):
        half.indices(micro)
    assert (time.process_time() - began) / 20_000 < 1e-3


# Crops --------------------------------------------------------------------------------------------------------------------


def crops_of(a_plan: Plan, name: str) -> list[Placement]:
    return [entry.placement for entry in a_plan.pictures if entry.picture.path.name == name]


def test_a_picture_that_does_not_fill_its_bucket_is_cropped_in_several_ways() -> None:
    crops = crops_of(plan(crops=5), "5.png")
    assert crops[0] == crops_of(plan(), "5.png")[0], "the first crop is not the middle one"
    assert len(set(crops)) == 5
    assert len({(crop.bucket, crop.scaled) for crop in crops}) == 1
    for crop in crops:
        left, top, right, bottom = crop.box
        assert min(left, top) >= 0
        assert (right <= crop.scaled[0], bottom <= crop.scaled[1]) == (True, True)
        assert crop.time_ids == (512, 800, top, left, crop.bucket.height, crop.bucket.width)


def test_a_picture_that_fills_its_bucket_has_one_crop() -> None:
    assert len(crops_of(plan(crops=16), "0.png")) == 1


def test_no_picture_has_more_crops_than_there_are() -> None:
    pictures = (Picture(Path("a.png"), 515, 512),)
    settings = validated({"resolution": 512, "crops": 16})
    crops = crops_of(Plan.of(Dataset(Path("set"), pictures, ()), settings), "a.png")
    assert sorted(crop.left for crop in crops) == [0, 1, 2, 3]


def test_crops_depend_on_seed_and_name_and_stay_when_more_are_asked_for() -> None:
    five = crops_of(plan(crops=5), "5.png")
    assert five == crops_of(plan(crops=5), "5.png")
    assert five == crops_of(plan(crops=9), "5.png")[:5]
    assert five != crops_of(plan(crops=5, seed=2), "5.png")
    assert five != crops_of(plan(crops=5), "6.png")


def test_crops_take_no_more_steps_and_are_mirrored_too() -> None:
    both = plan(crops=3, flip=True, passes=10)
    assert both.steps == plan(passes=10).steps
    crops = crops_of(both, "5.png")
    assert [crop.mirrored for crop in crops] == [False, True] * 3
    assert [replace(crop, mirrored=False) for crop in crops[1::2]] == crops[::2]


# Weights and prior pictures -----------------------------------------------------------------------------------------------


def folder(path: Path, count: int, about: str = "", sizes: tuple[tuple[int, int], ...] = ((512, 512),)) -> Dataset:
    """A dataset of so many pictures, of these sizes in turn."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "dataset.toml").write_text(about)
    return Dataset(path, tuple(Picture(path / f"{n}.png", *sizes[n % len(sizes)]) for n in range(count)), ())


def test_each_picture_has_its_weight(tmp_path: Path) -> None:
    dataset = folder(tmp_path, 3, '[weights]\n"1.png" = 0.5\n[repeats]\n"1.png" = 2\n')
    a_plan = Plan.of(dataset, validated({"resolution": 512}))
    assert [(entry.picture.path.stem, entry.weight) for entry in a_plan.pictures] == [
        ("0", 1.0), ("1", 0.5), ("1", 0.5), ("2", 1.0),
    ]  # fmt: skip


MIXED = ((512, 512), (800, 512), (512, 800))


@pytest.mark.parametrize(("own", "prior"), [(5, 3), (5, 40), (3, 5)])
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_as_many_prior_pictures_as_others_are_shown(tmp_path: Path, own: int, prior: int, batch: int) -> None:
    settings = validated({"resolution": 512, "batch": batch, "prior_weight": 0.25, "passes": 10})
    others = folder(tmp_path / "prior", prior, sizes=MIXED)
    a_plan = Plan.of(folder(tmp_path / "own", own, sizes=MIXED), settings, prior=others)
    assert a_plan.distinct == own
    assert [(entry.prior, entry.weight) for entry in a_plan.pictures] == [(False, 1.0)] * own + [(True, 0.25)] * prior
    shown: list[bool] = []
    for micro in range(400):
        entries = [a_plan.pictures[index] for index in a_plan.indices(micro)]
        assert len({entry.placement.bucket for entry in entries}) == 1
        shown += [entry.prior for entry in entries]
    assert sum(shown) * 2 == len(shown) == 400 * batch


def test_prior_pictures_change_no_order_and_are_each_shown_equally_often(tmp_path: Path) -> None:
    settings = validated({"resolution": 512, "batch": 2, "passes": 10})
    own, others = folder(tmp_path / "own", 6, sizes=MIXED), folder(tmp_path / "prior", 12, sizes=MIXED)
    alone, both = Plan.of(own, settings), Plan.of(own, settings, prior=others)
    assert both.steps == 2 * alone.steps, "each picture of the style is seen less often than asked"
    assert [both.indices(2 * micro) for micro in range(60)] == [alone.indices(micro) for micro in range(60)]
    seen = Counter(both.pictures[index].picture.path for micro in range(1, 12 * 5, 2) for index in both.indices(micro))
    assert seen == {picture.path: 5 for picture in others.pictures}


def test_prior_pictures_have_their_own_weights_and_repeats(tmp_path: Path) -> None:
    others = folder(tmp_path / "prior", 2, '[weights]\n"0.png" = 4\n[repeats]\n"1.png" = 2\n')
    a_plan = Plan.of(folder(tmp_path / "own", 2), validated({"resolution": 512, "prior_weight": 0.5}), prior=others)
    assert [entry.weight for entry in a_plan.pictures if entry.prior] == [2.0, 0.5, 0.5]


# Held out -----------------------------------------------------------------------------------------------------------------


def held_out(path: Path, count: int, share: float, **more: Any) -> Plan:
    return Plan.of(folder(path, count), validated({"resolution": 512, "validation_share": share, **more}))


@pytest.mark.parametrize(
    ("count", "share", "held"), [(4, 0.01, 1), (4, 0.5, 2), (5, 0.5, 2), (7, 0.5, 3), (20, 0.1, 2), (20, 0.5, 10), (20, 0, 0)]
)
def test_what_is_held_out_is_never_trained(tmp_path: Path, count: int, share: float, held: int) -> None:
    a_plan = held_out(tmp_path, count, share, flip=True)
    aside, trained = ({entry.picture.path for entry in entries} for entries in (a_plan.held_out, a_plan.pictures))
    assert len(a_plan.held_out) == len(aside) == held
    assert aside.isdisjoint(trained)
    assert len(aside | trained) == count
    assert a_plan.distinct == count - held
    assert not any(entry.placement.mirrored for entry in a_plan.held_out)


def test_steps_are_of_the_pictures_that_are_trained(tmp_path: Path) -> None:
    assert held_out(tmp_path, 20, 0.1, passes=10).steps == 180


def test_a_further_picture_displaces_at_most_one(tmp_path: Path) -> None:
    before = {entry.picture.path.name for entry in held_out(tmp_path, 20, 0.3).held_out}
    for count in range(21, 40):
        after = {entry.picture.path.name for entry in held_out(tmp_path, count, 0.3).held_out}
        assert len(before - after) <= 1
        before = after


def test_another_seed_holds_others_out(tmp_path: Path) -> None:
    chosen = {tuple(entry.picture.path.name for entry in held_out(tmp_path, 20, 0.2, seed=seed).held_out) for seed in range(5)}
    assert len(chosen) > 1


@pytest.mark.parametrize("count", [1, 3])
def test_of_few_pictures_none_can_be_held_out(tmp_path: Path, count: int) -> None:
    told = rf"has too few pictures to hold one out \({count}\): set validation_share to 0, or add pictures until there are 4\.$"
    with pytest.raises(DatasetError, match=told):
        held_out(tmp_path, count, 0.1)


# Pictures that are gone ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_others_of_the_bucket_take_the_place_of_a_picture_that_is_gone(batch: int) -> None:
    whole = plan(batch, flip=True)
    gone = {0, 1, 12}
    left = whole.skipping(gone)
    assert (left.steps, left.pictures) == (whole.steps, whole.pictures)
    changed = 0
    for step in range(100):
        before, after = whole.indices(step), left.indices(step)
        assert gone.isdisjoint(after)
        assert [one for one in before if one not in gone] == [
            two for one, two in zip(before, after, strict=True) if one not in gone
        ]
        assert {entry.bucket for entry in placements(whole, step)} == {entry.bucket for entry in placements(left, step)}
        changed += before != after
    assert changed
    assert [left.indices(step) for step in range(100)] == [whole.skipping(gone).indices(step) for step in range(100)]


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_where_a_whole_bucket_is_gone_other_buckets_take_its_place(batch: int) -> None:
    whole = plan(batch)
    left = whole.skipping({5, 6, 7})
    stands_in: set[int] = set()
    for step in range(200):
        before, after = whole.indices(step), left.indices(step)
        assert len(after) == batch
        assert len({entry.bucket for entry in placements(left, step)}) == 1
        assert before == after or {5, 6, 7} & set(before)
        stands_in |= set(after) if before != after else set()
    assert stands_in == {0, 1, 2, 3, 4, 8}, "not all others stand in"


def test_more_pictures_go_one_after_the_other() -> None:
    whole = plan(batch=1)
    assert whole.skipping({1}).skipping({1, 2}).indices(3) == whole.skipping({1, 2}).indices(3)
    assert whole.skipping({1}).skipping(()).gone == frozenset()


def test_nothing_that_is_left_is_told_of(tmp_path: Path) -> None:
    settings = validated({"resolution": 512})
    a_plan = Plan.of(folder(tmp_path / "own", 2), settings, prior=folder(tmp_path / "prior", 2))
    for gone in ({0, 1}, {2, 3}):
        with pytest.raises(RunError, match="None of the pictures is there any more: put them back and resume"):
            a_plan.skipping(gone)
    assert {index for micro in range(20) for index in a_plan.skipping({0, 3}).indices(micro)} == {1, 2}
