"""What a LoRA weighs: the smallest block counts, and equal strength is equal."""

from __future__ import annotations

import math

import pytest

from trainer.lora.file import LoraFile
from trainer.lora.weights import Weighted, equalising

NO_LORA = LoraFile("none", {}, {})


@pytest.mark.parametrize(
    ("path", "weight"),
    [
        ("up_blocks.0.attentions.1.proj_in", 0.5 * 3.0),
        ("up_blocks.0.attentions.10.proj_in", 0.5 * 2.0),
        ("up_blocks.0.resnets.0.conv1", 0.5 * 2.0),
        ("mid_block.resnets.0.conv1", 0.5 * 0.1),
    ],
)
def test_the_smallest_block_around_a_module_counts(path: str, weight: float) -> None:
    part = Weighted(NO_LORA, 0.5, -1.0, {"unet": 0.1, "up_blocks.0": 2.0, "up_blocks.0.attentions.1": 3.0})
    assert part.weight_of("unet", path) == weight


def test_blocks_are_the_unets_alone() -> None:
    part = Weighted(NO_LORA, 0.5, -1.0, {"unet": 0.0})
    assert [part.weight_of(component, "encoder.layers.0") for component in ("unet", "te1", "te2")] == [0.0, -1.0, -1.0]


def test_at_equal_strength_all_change_equally_much_and_none_is_the_measure() -> None:
    sizes = [0.02, 5.0, 300.0]
    factors = equalising(sizes)
    assert [size * factor for size, factor in zip(sizes, factors, strict=True)] == pytest.approx([30.0 ** (1 / 3)] * 3)
    assert math.prod(factors) == pytest.approx(1)
    assert equalising(sizes[::-1]) == pytest.approx(factors[::-1])


def test_one_that_leaves_the_unet_alone_keeps_its_weight() -> None:
    assert equalising([0.0, 4.0, 1.0]) == pytest.approx([1.0, 0.5, 2.0])
    assert equalising([0.0]) == [1.0]
    assert equalising([]) == []
