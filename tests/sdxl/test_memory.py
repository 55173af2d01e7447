"""Memory by hand, from counts made up for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainer.lora.keys import Component
from trainer.lora.shape import Shape
from trainer.sdxl.counts import Count, Counts, Subject
from trainer.sdxl.memory import (
    DrawingSizes,
    Keeping,
    Needs,
    drawing_sizes,
    reserve,
    step_count,
    training_needs,
    way_to_draw,
    ways_to_draw,
)

STEP = Count(saved=1000, peak=1100, flops=10, traffic=20, launches=30)
READING = Count(saved=0, peak=5, flops=1000, traffic=2000, launches=3000)
ADAMW = Keeping(moments=80)


class Known(Counts):
    """Counts that need no counting."""

    def __init__(
        self,
        tmp_path: Path,
        side: int = 1024,
        trained: tuple[Component, ...] = ("unet", "te1"),
        weights: dict[str, int] | None = None,
        **figures: dict[str, Any],
    ) -> None:
        super().__init__(Subject(Path("nowhere"), trained, Shape(16, 1.0), side, half=True), tmp_path)
        counts = {"guided": 300, "decode 1024": 5000, "decode 512": 400, "decode 256": 40, "encode 512": 200, "encode 256": 20}
        self._kept = {
            **{name: vars(Count(0, peak, 0, 0, 0)) for name, peak in counts.items()},
            "step none": vars(STEP),
            "reading": vars(READING),
            "unpacking int8": vars(Count(0, 7, 1, 2, 3)),
            "weights bf16": weights or {"unet": 600, "te1": 30, "te2": 70, "vae": 8},
            "weights fp16": {"unet": 600, "te1": 30, "te2": 70, "vae": 8},
            "weights int8": {"unet": 300, "te1": 15, "te2": 35, "vae": 8},
            "matrices": {"unet": [[[2, 2], 2, False], [[1, 1], 1, True]], "te1": [[[1, 1], 1, False]]},
            "mixable": {"all": 250},
            **figures,
        }


@pytest.fixture
def known(tmp_path: Path) -> Known:
    return Known(tmp_path)


def test_a_training_by_item(known: Known) -> None:
    needs = training_needs(known, "bf16", "none", 2, ADAMW)
    assert needs == Needs(
        weights=700, vae=8, lora=4 * 10, optimizer=12 * 10, activations=2000, working=200, pictures=400, start=708
    )  # fmt: skip
    assert needs.peak == 700 + 8 + 40 + 120 + 2200
    assert needs.total == needs.peak + reserve(needs.peak)


def test_a_packed_base_is_smaller_and_unpacked_on_the_way(known: Known) -> None:
    needs = training_needs(known, "int8", "none", 1, ADAMW)
    assert (needs.weights, needs.activations, needs.working) == (350, 1000, 100 + 7)
    assert step_count(known, "int8", "none", share=1) == Count(1000, 1100, 12, 24, 36)
    assert step_count(known, "bf16", "none", share=1) == STEP


def test_samples_decide_where_a_step_is_smaller(known: Known) -> None:
    needs = training_needs(known, "bf16", "none", 0.1, ADAMW)
    assert needs.peak == 700 + 8 + 40 + 120 + 400


def test_an_update_of_a_large_lora_decides(tmp_path: Path) -> None:
    large = Known(tmp_path, matrices={"unet": [[[100, 10], 1, False]]})
    needs = training_needs(large, "bf16", "none", 1, ADAMW)
    assert needs.activations + needs.working == 8 * 1000


def test_small_pictures_need_no_tiles(tmp_path: Path) -> None:
    assert training_needs(Known(tmp_path, side=256), "bf16", "none", 1, ADAMW).pictures == 300


def test_a_running_average_is_a_third_copy_and_makes_room_for_itself_when_samples_are_drawn(known: Known) -> None:
    plain, averaged, swapped = (
        training_needs(known, "bf16", "none", 0.1, each)
        for each in (ADAMW, Keeping(80, average=True), Keeping(80, swapped=True))
    )
    assert (plain.average, averaged.average, swapped.average) == (0, 40, 0)
    assert (averaged.pictures, swapped.pictures) == (plain.pictures + 40, plain.pictures + 40)
    assert (averaged.peak, swapped.peak) == (plain.peak + 80, plain.peak + 40)


def test_text_encoders_that_are_away_are_there_only_at_the_start(tmp_path: Path) -> None:
    known = Known(tmp_path, trained=("unet",))
    needs = training_needs(known, "bf16", "none", 1, Keeping(80, text_once=True, text_away=True))
    assert (needs.weights, needs.start) == (600, 708 + READING.peak)
    assert needs.pictures == 400
    assert needs.peak == 600 + 8 + 40 + 120 + 1100


def test_the_start_decides_where_everything_after_it_is_smaller(known: Known) -> None:
    needs = training_needs(known, "int8", "none", 0.01, Keeping(0, loading=50_000))
    assert needs.peak == needs.start == 50_000


def test_reading_is_a_part_of_a_step_where_the_text_encoders_are_frozen_and_text_is_not_kept(tmp_path: Path) -> None:
    trained, frozen = Known(tmp_path), Known(tmp_path, trained=("unet",))
    read = Count(1000, 1100, 10 + 1000, 20 + 2000, 30 + 3000)
    assert step_count(trained, "bf16", "none", 1) == STEP
    assert step_count(frozen, "bf16", "none", 1) == read
    assert step_count(frozen, "bf16", "none", 1, text_once=True) == STEP


def test_ways_to_draw_from_the_largest_to_the_smallest(known: Known) -> None:
    sizes = drawing_sizes(known, "fp16")
    assert sizes == DrawingSizes(unet=600, text=100, vae=8, mixable=250, guided=300, whole=5000, tile=400)
    peaks = [708 + 250 + 5000, 708 + 250 + 400, 708 + 400, 600 + 8 + 400]
    assert [way.peak for way in ways_to_draw(sizes, card=True)] == peaks
    assert [way.peak for way in ways_to_draw(sizes, card=False)] == peaks[:2]


def test_the_fastest_way_to_draw_that_fits_is_taken_else_the_smallest(known: Known) -> None:
    sizes = drawing_sizes(known, "fp16")
    ways = list(ways_to_draw(sizes, card=True))
    for way in ways:
        assert way_to_draw(sizes, way.total, card=True) == (way, True)
    assert way_to_draw(sizes, ways[1].total - 1, card=True) == (ways[2], True)
    assert way_to_draw(sizes, 0, card=True) == (ways[-1], False)


def test_there_is_a_reserve_for_what_no_tensor_shows() -> None:
    assert reserve(0) == 256 * 2**20
    assert reserve(20 * 2**30) == 2**30 + 256 * 2**20
