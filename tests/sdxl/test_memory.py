"""Memory by hand, from counts made up for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainer.sdxl.counts import Count, Counts, Subject
from trainer.sdxl.memory import (
    DrawingSizes,
    Needs,
    drawing_sizes,
    reserve,
    step_count,
    training_needs,
    way_to_draw,
    ways_to_draw,
)

STEP = Count(saved=1000, peak=1100, flops=10, traffic=20, launches=30)


class Known(Counts):
    """Counts that need no counting."""

    def __init__(self, tmp_path: Path, side: int = 1024, **figures: dict[str, Any]) -> None:
        super().__init__(Subject(Path("nowhere"), ("unet", "te1"), 16, side, half=True), tmp_path)
        counts = {"guided": 300, "decode 1024": 5000, "decode 512": 400, "decode 256": 40, "encode 512": 200, "encode 256": 20}
        self._kept = {
            **{name: vars(Count(0, peak, 0, 0, 0)) for name, peak in counts.items()},
            "step none": vars(STEP),
            "unpacking int8": vars(Count(0, 7, 1, 2, 3)),
            "weights bf16": {"unet": 600, "te1": 30, "te2": 70, "vae": 8},
            "weights fp16": {"unet": 600, "te1": 30, "te2": 70, "vae": 8},
            "weights int8": {"unet": 300, "te1": 15, "te2": 35, "vae": 8},
            "lora": {"unet": 9, "te1": 1},
            "mixable": {"all": 250},
            **figures,
        }


@pytest.fixture
def known(tmp_path: Path) -> Known:
    return Known(tmp_path)


def test_a_training_by_item(known: Known) -> None:
    needs = training_needs(known, "bf16", "none", share=2)
    assert needs == Needs(
        weights=700, vae=8, lora=4 * 10, optimizer=12 * 10, activations=2000, working=200, pictures=400
    )  # fmt: skip
    assert needs.peak == 700 + 8 + 40 + 120 + 2200
    assert needs.total == needs.peak + reserve(needs.peak)


def test_a_packed_base_is_smaller_and_unpacked_on_the_way(known: Known) -> None:
    needs = training_needs(known, "int8", "none", share=1)
    assert (needs.weights, needs.activations, needs.working) == (350, 1000, 100 + 7)
    assert step_count(known, "int8", "none", share=1) == Count(1000, 1100, 12, 24, 36)
    assert step_count(known, "bf16", "none", share=1) == STEP


def test_samples_decide_where_a_step_is_smaller(known: Known) -> None:
    needs = training_needs(known, "bf16", "none", share=0.1)
    assert needs.peak == 700 + 8 + 40 + 120 + 400


def test_an_update_of_a_large_lora_decides(tmp_path: Path) -> None:
    needs = training_needs(Known(tmp_path, lora={"unet": 1000}), "bf16", "none", share=1)
    assert needs.activations + needs.working == 8 * 1000


def test_small_pictures_need_no_tiles(tmp_path: Path) -> None:
    assert training_needs(Known(tmp_path, side=256), "bf16", "none", share=1).pictures == 300


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
