"""What is counted with nothing allocated, against torch's own counters and against published figures of SDXL."""

from __future__ import annotations

import re
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode

from tests.tiny import FULL, unet_config
from trainer.errors import BaseModelError
from trainer.home import shipped
from trainer.lora.keys import Component
from trainer.lora.shape import Shape
from trainer.sdxl import counting
from trainer.sdxl.counting import (
    Meter,
    Skeleton,
    count_decode,
    count_encode,
    count_matrices,
    count_mixable,
    count_reading,
    count_step,
    count_unet,
    count_weights,
)
from trainer.sdxl.counts import Subject
from trainer.sdxl.recompute import recompute
from trainer.settings import Recompute

SDXL = shipped("assets", "sdxl")
UNET_ONLY = Subject(SDXL, ("unet",), Shape(16, 1.0), side=1024, half=True)
ALL = Subject(SDXL, ("unet", "te1", "te2"), Shape(16, 1.0), side=1024, half=True)
GIB, TERA = 2**30, 1e12


def saved_by_hooks(subject: Subject, how: Recompute) -> tuple[int, int]:
    """Bytes of the tensors saved for the U-Net's backward pass, each storage once, without weights; by autograd's own hooks.

    Within a block that is computed twice nothing passes the hooks: what goes in is what is kept. Also the bytes of matrices.
    """
    with counting._adapted(subject) as (skeleton, adapter):
        recompute(skeleton.parts, how)
        with torch.no_grad():
            context, pooled = skeleton.read(1)
        known = {tensor.untyped_storage()._cdata for tensor in skeleton.tensors()}
        kept: dict[int, torch.Tensor] = {}

        def see(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with counting._attention(subject), torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
            skeleton.answer(subject.side, context, pooled)
        recompute(skeleton.parts, "none")
        matrices = sum(matrix.numel() for matrix in adapter.parameters("unet"))
    return sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in known), matrices


@pytest.mark.parametrize(("how", "published"), [("none", 5.22), ("full", 0.45)])
def test_saved_bytes_are_autograds_and_the_published_ones(how: Recompute, published: float) -> None:
    counted = count_step(UNET_ONLY, how).saved
    measured, _ = saved_by_hooks(UNET_ONLY, how)
    assert counted == pytest.approx(measured, rel=0.05)
    assert counted == pytest.approx(published * GIB, rel=0.05)


def test_beyond_stock_the_layer_keeps_no_more_than_its_matrices_in_16_bits() -> None:
    measured, matrices = saved_by_hooks(UNET_ONLY, "none")
    assert measured - 2 * matrices == pytest.approx(5.22 * GIB, rel=0.005)


def test_selective_recompute_is_cheaper_than_full_and_saves_most_of_it() -> None:
    none, selective, full = (count_step(UNET_ONLY, how) for how in ("none", "selective", "full"))
    assert none.saved - selective.saved > 0.8 * (none.saved - full.saved)
    assert selective.flops - none.flops < 0.7 * (full.flops - none.flops)


def test_flops_are_the_published_ones() -> None:
    assert count_unet(UNET_ONLY, batch=1).flops == pytest.approx(6.761 * TERA, rel=0.01)
    assert count_step(UNET_ONLY, "none").flops == pytest.approx(14.6 * TERA, rel=0.01)
    assert count_step(ALL, "none").flops == pytest.approx(15.02 * TERA, rel=0.01)
    assert count_reading(ALL).flops == pytest.approx((0.0133 + 0.0979) * TERA, rel=0.01)


def test_full_recompute_takes_less_than_the_whole_forward_pass_again() -> None:
    """21.4 TFLOP is the step and every operation of the forward pass once more. Ours stops in each block where nothing more
    is asked for, and leaves alone what is not in a block, or before the first LoRA.
    """
    whole = count_step(UNET_ONLY, "none").flops + count_unet(UNET_ONLY, batch=1).flops
    assert whole == pytest.approx(21.4 * TERA, rel=0.01)
    full = count_step(UNET_ONLY, "full").flops
    assert full == pytest.approx(19.7 * TERA, rel=0.01)
    with set_checkpoint_early_stop(False):
        assert full < count_step(UNET_ONLY, "full").flops < whole


def test_the_vae_takes_the_published_operations() -> None:
    assert count_encode(ALL, 1024).flops == pytest.approx(4.88 * TERA, rel=0.01)
    assert count_decode(ALL, 1024).flops == pytest.approx(10.47 * TERA, rel=0.01)


def sizes(subject: Subject) -> dict[Component, int]:
    """Trained numbers of each part."""
    return {part: sum(prod(shape) * number for shape, number, _ in found) for part, found in count_matrices(subject).items()}


def test_lora_sizes_are_exact() -> None:
    assert sizes(ALL) == {"unet": 23_224_320, "te1": 1_081_344, "te2": 5_242_880}
    assert sizes(ALL)["te1"] == 1_179_648 * 11 // 12  # the twelfth layer of encoder 1 is never read


def test_half_of_the_matrices_begin_as_zeros() -> None:
    for found in count_matrices(ALL).values():
        begun = {zero: sum(number for _, number, each in found if each == zero) for zero in (True, False)}
        assert begun[True] == begun[False] > 0
        assert {shape[1] for shape, _, zero in found if zero} == {16} == {shape[0] for shape, _, zero in found if not zero}


def by_hand(rank: int, conv_rank: int, wanted: str) -> int:
    """Numbers of a LoRA on the stock U-Net's layers whose class or path is wanted: rank times what goes in and comes out."""
    total = 0
    for path, layer in Skeleton(SDXL, torch.bfloat16).unet.named_modules():
        if not isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) or not re.search(wanted, f"{path}|{type(layer).__name__}"):
            continue
        out, inward, *window = layer.weight.shape
        total += (conv_rank if window[:1] == [3] else rank) * (inward * prod(window) + out)
    return total


ATTENTION = r"attn[12]\.to_(q|k|v|out\.0)\|"
SHAPES: dict[str, tuple[Shape, tuple[int, int, str]]] = {
    "attention": (Shape(16, 1.0), (16, 16, ATTENTION)),
    "transformer": (Shape(16, 1.0, targets="transformer"), (16, 16, r"attentions\..*\|(Linear|Conv2d)$")),
    "one block": (Shape(8, 1.0, style_blocks_only=True), (8, 8, r"^up_blocks\.0\.attentions\.1\..*" + ATTENTION)),
    "without a block": (Shape(8, 1.0, block_ranks={"mid_block": 0}), (8, 8, r"^(?!mid_block).*" + ATTENTION)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_other_shapes_of_a_lora_are_counted_by_their_layers(name: str) -> None:
    shape, expected = SHAPES[name]
    assert sizes(replace(UNET_ONLY, shape=shape))["unet"] == by_hand(*expected)


def test_convolutions_are_counted_with_their_own_rank() -> None:
    """Every other kernel of 3 x 3 numbers costs its rank nine times over on the way in."""
    without, eight, four = (
        sizes(replace(UNET_ONLY, shape=shape))["unet"]
        for shape in (
            Shape(8, 1.0, targets="transformer"),
            Shape(8, 1.0, targets="everything"),
            Shape(8, 1.0, targets="everything", conv_rank=4),
        )
    )
    three = by_hand(0, 1, r"block.*\|Conv2d")
    left = eight - without - 8 * three  # layers of 1 x 1, and the linear ones of time and size, if they are adapted
    assert four == without + 4 * three + left
    assert 0 <= left < 8 * three


def test_what_more_layers_keep_is_autograds() -> None:
    subject = replace(UNET_ONLY, shape=Shape(16, 1.0, targets="everything"))
    measured, _ = saved_by_hooks(subject, "none")
    assert count_step(subject, "none").saved == pytest.approx(measured, rel=0.05)
    assert count_step(subject, "none").saved > count_step(UNET_ONLY, "none").saved


def test_one_block_keeps_far_less() -> None:
    """Nothing before the first LoRA is kept."""
    subject = replace(UNET_ONLY, shape=Shape(16, 1.0, style_blocks_only=True))
    assert count_step(subject, "none").saved < 0.6 * count_step(UNET_ONLY, "none").saved


def scores(subject: Subject) -> int:
    """Bytes of the scores of all attention of the U-Net and both text encoders, by hand: heads x queries x keys each.

    At a side of s pixels the transformers see (s / 16)^2 and (s / 32)^2 places, 10 and 20 heads of 64 numbers each; the
    second attention of each block sees the 77 tokens.
    """
    unet = Skeleton(subject.configs, torch.float32).unet
    total = 0
    for path, layer in unet.named_modules():
        if re.search(r"attn[12]$", path):
            places = (subject.side // (16 if layer.heads == 10 else 32)) ** 2
            total += layer.heads * places * (places if path.endswith("attn1") else 77)
    return total * (2 if subject.half else 4)


def test_attention_that_spells_its_scores_out_keeps_them() -> None:
    """As on Apple's MPS, whose attention does so where a gradient is wanted. What is kept in place of them is far less."""
    fused = replace(UNET_ONLY, half=False, side=512)
    spelt = replace(fused, fused=False)
    more = count_step(spelt, "none").saved - count_step(fused, "none").saved
    assert more == pytest.approx(scores(fused), rel=0.1)
    assert count_step(spelt, "full").saved == pytest.approx(count_step(fused, "full").saved, rel=0.01)
    assert count_step(spelt, "full").peak > count_step(fused, "full").peak
    assert count_unet(spelt, batch=2).peak > count_unet(fused, batch=2).peak


def test_scores_are_those_that_autograd_keeps() -> None:
    """Against the math kernel under autograd's own hooks, its results counted one by one."""
    subject = replace(UNET_ONLY, half=False, side=512, fused=False)
    measured, _ = saved_by_hooks(subject, "none")
    assert count_step(subject, "none").saved == pytest.approx(measured, rel=0.02)


def test_all_linear_layers_and_convolutions_can_be_mixed_into() -> None:
    """By shapes: norms and biases are vectors; of what is left, words and places in a prompt are looked up."""
    weights = (each for part in counting._skeleton(ALL).parts.values() for each in part.named_parameters())
    matrices = [weight for name, weight in weights if weight.dim() > 1 and not re.search("(token|position)_embedding", name)]
    assert count_mixable(ALL) == sum(2 * weight.numel() for weight in matrices)
    assert count_mixable(ALL) == count_mixable(UNET_ONLY)


def test_weights_are_those_of_the_checkpoint() -> None:
    parameters = {"unet": 2_567_463_684, "te1": 123_060_480, "te2": 694_659_840, "vae": 83_653_863}
    assert count_weights(ALL, "fp32") == {part: 4 * number for part, number in parameters.items()}
    assert count_weights(ALL, "bf16") == {part: (4 if part == "vae" else 2) * number for part, number in parameters.items()}


def test_packed_weights_are_as_small_as_promised() -> None:
    bf16, int8, nf4 = (count_weights(ALL, precision)["unet"] for precision in ("bf16", "int8", "nf4"))
    assert int8 == pytest.approx(2.75 * GIB, rel=0.02)
    assert nf4 == pytest.approx(1.86 * GIB, rel=0.02)
    assert bf16 == pytest.approx(4.78 * GIB, rel=0.01)


@pytest.mark.parametrize("how", ["none", "full"])
def test_a_batch_takes_what_its_pictures_take(how: Recompute) -> None:
    one, three = count_step(ALL, how), count_step(ALL, how, batch=3)
    grown = one.times(3)
    assert grown.saved == pytest.approx(three.saved, rel=0.02)
    assert grown.peak == pytest.approx(three.peak, rel=0.02)
    assert grown.flops == pytest.approx(three.flops, rel=1e-3)


@pytest.mark.parametrize("side", [960, 1088])
def test_other_buckets_take_by_their_area(side: int) -> None:
    """As far from 1024 px as buckets go: areas differ by less than an eighth."""
    scaled = count_step(ALL, "none").times((side / 1024) ** 2)
    counted = count_step(replace(ALL, side=side), "none")
    assert scaled.saved == pytest.approx(counted.saved, rel=0.01)
    assert scaled.peak == pytest.approx(counted.peak, rel=0.01)
    assert scaled.flops == pytest.approx(counted.flops, rel=0.02)


def test_counting_leaves_the_skeleton_as_it_was() -> None:
    first = count_step(UNET_ONLY, "selective")
    count_matrices(UNET_ONLY)
    assert count_step(UNET_ONLY, "selective") == first


def test_operations_on_known_shapes_are_counted_as_if_they_were_run(full_base: Path) -> None:
    """Against torch's counter, which runs each of them."""
    skeleton = Skeleton(full_base, torch.float32)
    context, pooled = skeleton.read(1)
    with torch.no_grad(), counting._fused_attention():
        with FlopCounterMode(display=False) as theirs:
            skeleton.answer(64, context, pooled)
        with Meter(skeleton.tensors()) as ours:
            skeleton.answer(64, context, pooled)
    assert ours.flops == theirs.get_total_flops() > 0


def test_bytes_alive_by_hand() -> None:
    """Four MiB each: `a`, its double, and for a moment the double's square beside both."""
    with torch.device("meta"), Meter([]) as meter:
        a = torch.empty(2**20)
        b = a * 2
        c = (b * b).sum()
        del b
    assert (meter.peak, meter.live) == (12 * 2**20 + c.nbytes, 4 * 2**20 + c.nbytes)


def test_what_is_changed_in_place_is_no_new_memory() -> None:
    with torch.device("meta"), Meter([]) as meter:
        a = torch.empty(2**20)
        for _ in range(3):
            a.mul_(2).view(2, -1).add_(1)
    assert meter.peak == 4 * 2**20
    assert meter.launches == 7


def test_configs_that_are_missing_are_told_of(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="could not be read"):
        Skeleton(tmp_path, torch.float32)


def test_the_small_bases_of_the_tests_are_counted_too(full_base: Path) -> None:
    widths: Any = unet_config(FULL)["block_out_channels"]
    subject = Subject(full_base, ("unet",), Shape(2, 1.0), side=64, half=False)
    assert count_weights(subject, "fp32")["unet"] < count_weights(ALL, "fp32")["unet"] * (max(widths) / 1280)
