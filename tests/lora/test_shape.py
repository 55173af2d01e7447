"""Which modules a shape takes, and what rank, scale and rate it gives them."""

from __future__ import annotations

import math

import pytest
from lycoris.modules.locon import LoConModule
from torch import nn

from trainer.lora.shape import Shape
from trainer.settings_text import validated

QUERY = "up_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q"
FORWARD = "up_blocks.0.attentions.1.transformer_blocks.0.ff.net.2"
SHORTCUT = "up_blocks.0.resnets.1.conv_shortcut"
TIME = "down_blocks.0.resnets.0.time_emb_proj"
WINDOW = "down_blocks.0.resnets.0.conv1"
DOWN = "down_blocks.1.downsamplers.0.conv"
TEXT = "encoder.layers.1.self_attn.q_proj"
MLP = "encoder.layers.1.mlp.fc1"


def ranks(shape: Shape) -> list[int]:
    """Of the modules above."""
    unet = [shape.rank_of("unet", path) for path in (QUERY, FORWARD, SHORTCUT, TIME, WINDOW, DOWN)]
    return [*unet, shape.rank_of("te1", TEXT), shape.rank_of("te2", MLP)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [16, 0, 0, 0, 0, 0, 16, 0]),
        ({"targets": "transformer"}, [16, 16, 0, 0, 0, 0, 16, 16]),
        ({"targets": "everything"}, [16] * 8),
        ({"targets": "everything", "conv_rank": 4}, [16, 16, 16, 16, 4, 4, 16, 16]),
        ({"targets": "everything", "style_blocks_only": True}, [16, 16, 0, 0, 0, 0, 16, 16]),
        ({"targets": "everything", "block_ranks": "down_blocks=0"}, [16, 16, 16, 0, 0, 0, 16, 16]),
        ({"targets": "everything", "block_ranks": "down_blocks=0", "conv_rank": 4}, [16, 16, 16, 0, 0, 0, 16, 16]),
        ({"targets": "everything", "block_ranks": "down_blocks=8|down_blocks.1=2"}, [16, 16, 16, 8, 8, 2, 16, 16]),
        ({"targets": "everything", "block_ranks": "down_blocks.1=2|down_blocks=8"}, [16, 16, 16, 8, 8, 2, 16, 16]),
        ({"block_ranks": f"up_blocks=0|{QUERY}=3"}, [3, 0, 0, 0, 0, 0, 16, 0]),
        ({"style_blocks_only": True, "block_ranks": "up_blocks.0.attentions.1=64"}, [64, 0, 0, 0, 0, 0, 16, 0]),
        ({"targets": "transformer", "block_rates": "up_blocks.0=0"}, [0, 0, 0, 0, 0, 0, 16, 16]),
    ],
)
def test_the_settings_give_each_module_its_rank(settings: dict[str, object], expected: list[int]) -> None:
    assert ranks(Shape.of(validated(settings))) == expected


def test_a_block_ends_at_a_dot() -> None:
    shape = Shape(16, 16.0, block_ranks={"up_blocks.0.attentions.1.transformer_blocks.1": 2})
    start = "up_blocks.0.attentions.1.transformer_blocks"
    assert [shape.rank_of("unet", f"{start}.{number}.attn1.to_q") for number in (1, 10)] == [2, 16]


def test_rates_are_of_blocks() -> None:
    shape = Shape.of(validated({"block_rates": "up_blocks=0.5|up_blocks.0.attentions.1=2"}))
    others = ("up_blocks.1.attentions.0.proj_in", "mid_block.attentions.0.proj_in")
    assert [shape.rate_of("unet", path) for path in (QUERY, *others)] == [2.0, 0.5, 1.0]
    assert shape.rate_of("te1", TEXT) == 1.0


def test_the_scale_is_alpha_by_the_rank_or_its_root() -> None:
    plain, root = Shape(16, 8.0, block_ranks={"up_blocks": 64}), Shape(16, 8.0, rslora=True)
    assert (plain.scale, plain.file_alpha) == (0.5, 8.0)
    assert (root.scale, root.file_alpha) == (2.0, 32.0)


@pytest.mark.parametrize("rslora", [False, True])
def test_scale_and_alpha_are_lycoris(rslora: bool) -> None:
    shape = Shape(12, 8.0, rslora=rslora)
    peer = LoConModule("", nn.Linear(2, 2), lora_dim=12, alpha=8.0, rs_lora=rslora)
    assert shape.scale == pytest.approx(peer.scale)
    assert shape.file_alpha == pytest.approx(peer.alpha.item())


@pytest.mark.parametrize("rank", [1, 7, 16, 100, 512])
def test_a_readers_scale_is_the_trained_one(rank: int) -> None:
    for shape in (Shape(rank, 3.0), Shape(rank, 3.0, rslora=True)):
        assert math.isclose(shape.file_alpha / rank, shape.scale, rel_tol=1e-12)


def test_shapes_can_be_looked_up_by() -> None:
    one, same, other = (Shape(4, 2.0, block_ranks={"up_blocks": number}) for number in (8, 8, 4))
    assert {one: "found"} == {same: "found"}
    assert one != other
