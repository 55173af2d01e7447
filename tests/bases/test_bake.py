"""A checkpoint with a mix in it: the weights of the live mix, and every other byte the base's."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests import checkpoint
from tests.lora.test_mix import a_lora, adapted, weights
from trainer.bases.bake import bake
from trainer.errors import BaseModelError, LoraFileError, StorageError, UsageError
from trainer.lora.delta import Dora, Factors
from trainer.lora.file import LoraFile
from trainer.lora.mix import Canvas
from trainer.lora.weights import Weighted
from trainer.sdxl.base import Base, load_base

pytestmark = pytest.mark.usefixtures("narrow")

QUERY = "lora_te2_text_model_encoder_layers_0_self_attn_q_proj"


def loaded(file: Path) -> Base:
    return load_base(str(file), torch.device("cpu"), torch.float32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return checkpoint.write_file(tmp_path / "base.safetensors", checkpoint.tensors(torch.float32), {"modelspec.title": "Base"})


def a_mix(base: Base) -> list[Weighted]:
    """Two LoRAs of which one leaves most layers alone, and a DoRA."""
    factors = a_lora(base, 3).layers[QUERY]
    assert isinstance(factors, Factors)
    dora = Dora(factors, torch.rand(factors.shape[0]) + 0.5, "out")
    return [
        Weighted(a_lora(base, 1, every=5), 0.07, 0.02),
        Weighted(a_lora(base, 2, rank=5, every=7), -0.03, 0.04, {"up_blocks.0": 0.0}),
        Weighted(LoraFile("dora", {QUERY: dora}, {}), 1.0, 0.5),
    ]


def test_the_file_holds_what_the_live_mix_is(file: Path, tmp_path: Path) -> None:
    base = loaded(file)
    mix, heard = a_mix(base), list[tuple[int, int]]()
    count = bake(file, mix, tmp_path / "out.safetensors", {"impasto.recipe": "{}"}, lambda *done: heard.append(done))
    Canvas(base.parts, base.version).lay(mix)
    live, baked = weights(base), weights(loaded(tmp_path / "out.safetensors"))
    for name, value in live.items():
        torch.testing.assert_close(baked[name], value, rtol=1e-5, atol=1e-6)
    before = load_file(file)
    after = load_file(tmp_path / "out.safetensors")
    assert list(after) == list(before)
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert 100 < len(changed) <= count < len(adapted(base))
    assert heard[-1] == (len(before), len(before))
    with safe_open(tmp_path / "out.safetensors", "pt") as opened:
        assert opened.metadata() == {"modelspec.title": "Base", "impasto.recipe": "{}"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_sums_are_rounded_once(tmp_path: Path, dtype: torch.dtype) -> None:
    file = checkpoint.write_file(tmp_path / "base.safetensors", checkpoint.tensors(dtype))
    key = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q.weight"
    name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    before, random = load_file(file)[key], torch.Generator().manual_seed(1)
    side, mix, wanted = before.shape[0], [], before.double().numpy()
    for weight in (0.3**0.5, -(0.7**0.5)):  # whose products are never half way between two numbers
        down, up = (torch.randn(shape, generator=random).half() * 0.1 for shape in ((4, side), (side, 4)))
        mix.append(Weighted(LoraFile("style", {name: Factors(down, up, 3.0)}, {}), weight, 1.0))
        wanted = wanted + weight * 0.75 * (up.double().numpy() @ down.double().numpy())
    bake(file, mix, tmp_path / "out.safetensors", {}, lambda *_: None)
    after = load_file(tmp_path / "out.safetensors")
    assert torch.equal(after[key], torch.from_numpy(wanted).to(dtype))
    assert all(torch.equal(tensor, after[other]) for other, tensor in load_file(file).items() if other != key)


def test_too_full_a_disk_is_told_before_anything_is_written(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, out = Weighted(a_lora(loaded(file), 1, every=99), 1.0, 1.0), tmp_path / "new" / "out.safetensors"
    room = namedtuple("room", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room(file.stat().st_size - 1))
    with pytest.raises(StorageError, match=r"needs 0\.\d+ GB, of which .* has 0\.\d+ GB free"):
        bake(file, [part], out, {}, lambda *_: None)
    assert os.listdir(tmp_path) == ["base.safetensors"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room(2 * file.stat().st_size))
    bake(file, [part], out, {}, lambda *_: None)
    assert out.exists()


def test_a_base_that_goes_away_is_told_of(file: Path, tmp_path: Path) -> None:
    def cut(done: int, _: int) -> None:
        if done == 1:
            os.truncate(file, file.stat().st_size // 2)

    with pytest.raises(BaseModelError, match=r"base\.safetensors was changed while it was read: bake again\.$"):
        bake(file, [Weighted(a_lora(loaded(file), 1, every=99), 1.0, 1.0)], tmp_path / "out.safetensors", {}, cut)
    assert os.listdir(tmp_path) == ["base.safetensors"]


def test_bfloat16_becomes_float16_where_it_changes(tmp_path: Path) -> None:
    file = checkpoint.write_file(tmp_path / "base.safetensors", checkpoint.tensors(torch.bfloat16))
    base = loaded(file)
    mix = [Weighted(a_lora(base, 1, every=9), 0.01, 0.01)]
    bake(file, mix, tmp_path / "out.safetensors", {}, lambda *_: None)
    before, after = load_file(file), load_file(tmp_path / "out.safetensors")
    types = {name: tensor.dtype for name, tensor in after.items()}
    assert {types[name] for name in after if not torch.equal(after[name].float(), before[name].float())} == {torch.float16}
    assert torch.bfloat16 in types.values()
    pristine = weights(base)
    Canvas(base.parts, base.version).lay(mix)
    live, baked = weights(base), weights(loaded(tmp_path / "out.safetensors"))
    for name in adapted(base).values():
        wanted, found = live[name] - pristine[name], baked[name] - pristine[name]
        assert float((found - wanted).norm()) <= 0.05 * float(wanted.norm()) + 1e-5 * float(pristine[name].norm())


def test_what_does_not_fit_is_refused_before_anything_is_written(file: Path, tmp_path: Path) -> None:
    one = Factors(torch.ones(2, 8), torch.ones(8, 2), 1.0)
    for name in (QUERY, "lora_unet_input_blocks_1_0_nothing"):
        with pytest.raises(
            LoraFileError, match=rf"^odd does not fit base\.safetensors: 1 of its 1 layers .* such as {name}\.$"
        ):
            bake(
                file, [Weighted(LoraFile("odd", {name: one}, {}), 1.0, 1.0)], tmp_path / "out.safetensors", {}, lambda *_: None
            )
    assert os.listdir(tmp_path) == ["base.safetensors"]


def test_weights_of_nothing_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^Every weight is 0"):
        bake(file, [Weighted(a_lora(loaded(file), 1, every=99), 0.0, 0.0)], tmp_path / "out.safetensors", {}, lambda *_: None)


def test_weights_too_large_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    file = checkpoint.write_file(tmp_path / "base.safetensors", checkpoint.tensors(torch.float16))
    large = Weighted(a_lora(loaded(file), 1), 9e5, 0.0)
    with pytest.raises(BaseModelError, match="too large for float16"):
        bake(file, [large], tmp_path / "out.safetensors", {}, lambda *_: None)
    assert os.listdir(tmp_path) == ["base.safetensors"]


def test_eight_bits_are_refused(file: Path, tmp_path: Path) -> None:
    part = Weighted(a_lora(loaded(file), 1, every=99), 1.0, 1.0)
    state = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in checkpoint.tensors(torch.float32).items()}
    coarse = checkpoint.write_file(tmp_path / "coarse.safetensors", state)
    with pytest.raises(BaseModelError, match=r"^coarse\.safetensors keeps its weights in F8_E4M3, too coarse to add to"):
        bake(coarse, [part], tmp_path / "out.safetensors", {}, lambda *_: None)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_full_disk_is_told(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        bake(file, [Weighted(a_lora(loaded(file), 1, every=99), 1.0, 1.0)], tmp_path / "out.safetensors", {}, lambda *_: None)
    assert os.listdir(tmp_path) == ["base.safetensors"]
