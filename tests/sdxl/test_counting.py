"""What is counted with nothing allocated, against torch's own counters and against published figures of SDXL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode

from tests.tiny import FULL, unet_config
from trainer.errors import BaseModelError
from trainer.home import shipped
from trainer.sdxl import counting
from trainer.sdxl.counting import (
    Meter,
    Skeleton,
    count_decode,
    count_encode,
    count_lora,
    count_mixable,
    count_step,
    count_unet,
    count_weights,
)
from trainer.sdxl.counts import Subject
from trainer.sdxl.recompute import recompute
from trainer.settings import Recompute

SDXL = shipped("assets", "sdxl")
UNET_ONLY = Subject(SDXL, ("unet",), rank=16, side=1024, half=True)
ALL = Subject(SDXL, ("unet", "te1", "te2"), rank=16, side=1024, half=True)
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

        with counting._fused_attention(), torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
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
    forward = count_unet(UNET_ONLY, batch=1)
    text = text_flops()
    assert forward.flops == pytest.approx(6.761 * TERA, rel=0.01)
    assert count_step(UNET_ONLY, "none").flops - text == pytest.approx(14.6 * TERA, rel=0.01)
    assert count_step(ALL, "none").flops == pytest.approx(15.02 * TERA, rel=0.01)


def test_full_recompute_takes_less_than_the_whole_forward_pass_again() -> None:
    """21.4 TFLOP is the step and every operation of the forward pass once more. Ours stops in each block where nothing more
    is asked for, and leaves alone what is not in a block, or before the first LoRA.
    """
    step, text = count_step(UNET_ONLY, "none").flops, text_flops()
    whole = step - text + count_unet(UNET_ONLY, batch=1).flops
    assert whole == pytest.approx(21.4 * TERA, rel=0.01)
    full = count_step(UNET_ONLY, "full").flops - text
    assert full == pytest.approx(19.7 * TERA, rel=0.01)
    with set_checkpoint_early_stop(False):
        assert full < count_step(UNET_ONLY, "full").flops - text < whole


def text_flops() -> float:
    """The published operations of both text encoders on one caption."""
    return (0.0133 + 0.0979) * TERA


def test_the_vae_takes_the_published_operations() -> None:
    assert count_encode(ALL, 1024).flops == pytest.approx(4.88 * TERA, rel=0.01)
    assert count_decode(ALL, 1024).flops == pytest.approx(10.47 * TERA, rel=0.01)


def test_lora_sizes_are_exact() -> None:
    assert count_lora(ALL) == {"unet": 23_224_320, "te1": 1_081_344, "te2": 5_242_880}
    assert count_lora(ALL)["te1"] == 1_179_648 * 11 // 12  # the twelfth layer of encoder 1 is never read


def test_all_linear_layers_can_be_mixed_into() -> None:
    """What is left of the U-Net and the text encoders are convolutions, norms, biases and embeddings."""
    rest = sum(count_weights(ALL, "bf16")[part] for part in ALL.trained) - count_mixable(ALL)
    assert 0 < rest < 0.2 * count_mixable(ALL)
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
    counted = count_step(Subject(SDXL, ALL.trained, 16, side, half=True), "none")
    assert scaled.saved == pytest.approx(counted.saved, rel=0.01)
    assert scaled.peak == pytest.approx(counted.peak, rel=0.01)
    assert scaled.flops == pytest.approx(counted.flops, rel=0.02)


def test_counting_leaves_the_skeleton_as_it_was() -> None:
    first = count_step(UNET_ONLY, "selective")
    count_lora(UNET_ONLY)
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
    subject = Subject(full_base, ("unet",), rank=2, side=64, half=False)
    assert count_weights(subject, "fp32")["unet"] < count_weights(ALL, "fp32")["unet"] * (max(widths) / 1280)
