"""`impasto mix`, `resize`, `export` and `edit`: files in, one file out, one JSON object or one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import checkpoint
from tests.lora.test_file import CONV, TE1, UNET, factors, windows
from trainer.lora.file import LoraFile, write


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two LoRAs with linear layers, a convolution and a text encoder."""
    for number, (name, family) in enumerate((("glass", "sdxl"), ("ink", "pony"))):
        layers = {UNET: factors(rank=3 + number, seed=number), TE1: factors(rank=2, seed=9 + number), CONV: windows()}
        texts = {"modelspec.trigger_phrase": f"{name}y", "impasto.base_family": family}
        write(tmp_path / f"{name}.safetensors", layers, texts)
    return tmp_path / "glass.safetensors", tmp_path / "ink.safetensors"


def test_mix_writes_the_sum(impasto: Any, pair: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "both.safetensors"
    told = impasto("mix", f"{pair[0]}:0.3", f"{pair[1]}:-1:0.25", "--out", out, "--json")
    assert told.code == 0
    assert told.json["lora"] == str(out)
    assert told.json["ranks"] == [4, 7]
    assert "one of them will be off" in told.json["remarks"][0]
    one, other, both = (LoraFile.read(path) for path in (*pair, out))
    assert both.trigger == "glassy, inky"
    for name, (first, second) in {UNET: (0.3, -1.0), CONV: (0.3, -1.0), TE1: (0.3, 0.25)}.items():
        wanted = first * one.layers[name].change() + second * other.layers[name].change()
        assert float((both.layers[name].change() - wanted).norm() / wanted.norm()) < 1e-6
    assert "float32, for float16 would lose some of it" in told.json["message"]


def test_a_mix_that_float16_holds_is_in_float16(impasto: Any, pair: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "both.safetensors"
    powers = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    for seed, path in enumerate(powers):
        write(path, {UNET: factors(rank=4, alpha=2.0, seed=seed)}, {})
    assert "float32" not in impasto("mix", f"{powers[0]}:0.5", f"{powers[1]}:-2", "--out", out).out
    assert load_file(out)[f"{UNET}.lora_up.weight"].dtype == torch.float16


def test_equal_strength_makes_the_changes_equally_large(impasto: Any, pair: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "both.safetensors"
    assert impasto("mix", *pair, "--equal-strength", "--out", out).code == 0
    one, other, both = (LoraFile.read(path) for path in (*pair, out))
    sizes = [sum(lora.layers[name].size() ** 2 for name in (UNET, CONV)) ** 0.5 for lora in (one, other)]
    mean = (sizes[0] * sizes[1]) ** 0.5
    for name, scale in {UNET: mean, CONV: mean}.items():
        wanted = one.layers[name].change() * scale / sizes[0] + other.layers[name].change() * scale / sizes[1]
        assert float((both.layers[name].change() - wanted).norm() / wanted.norm()) < 1e-6
    assert json.loads(both.metadata["impasto.recipe"])["equal_strength"] is True


def test_blocks_have_weights_of_their_own(impasto: Any, pair: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "both.safetensors"
    assert impasto("mix", f"{pair[0]}@down_blocks.1.attentions=0.5@unet=0", pair[1], "--out", out).code == 0
    one, other, both = (LoraFile.read(path) for path in (*pair, out))
    for name, factor in {UNET: 0.5, CONV: 0.0, TE1: 1.0}.items():
        wanted = factor * one.layers[name].change() + other.layers[name].change()
        assert float((both.layers[name].change() - wanted).norm() / wanted.norm()) < 1e-3
    inputs = json.loads(both.metadata["impasto.recipe"])["inputs"]
    assert inputs[0]["blocks"] == {"down_blocks.1.attentions": 0.5, "unet": 0.0}
    assert "blocks" not in inputs[1]


def test_a_mix_that_cancels_out_says_so(impasto: Any, pair: tuple[Path, Path], tmp_path: Path) -> None:
    for method in (("exact",), ("svd", "--rank", 2)):
        out = tmp_path / f"{method[0]}.safetensors"
        told = impasto("mix", f"{pair[0]}:0.7", f"{pair[0]}:-0.7", "--method", *method, "--out", out)
        assert "cancel each other at these weights: the file changes nothing." in told.err
    inspected = impasto("inspect", tmp_path / "exact.safetensors")
    assert inspected.out.endswith("  spectrum empty: it changes nothing\n")
    assert "where" not in inspected.out
    assert "cancel" not in impasto("mix", pair[0], f"{pair[0]}:-0.99", "--out", tmp_path / "weak.safetensors").err


def test_a_resize_that_removes_nothing_leaves_all_as_it_is(impasto: Any, tmp_path: Path) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        before, after = (tmp_path / f"{name} {dtype}.safetensors" for name in ("before", "after"))
        write(before, {UNET: factors(rank=3), TE1: factors(rank=2, alpha=1.0), CONV: windows()}, {}, dtype)
        told = impasto("resize", before, "--rank", 64, "--out", after)
        assert "layers of rank 2 to 3" in told.out
        assert told.out.endswith("MB: it had no more than rank 64, and is as it was.\n")
        tensors = load_file(after)
        assert tensors.keys() == load_file(before).keys()
        assert all(torch.equal(tensor, tensors[key]) for key, tensor in load_file(before).items())
        assert tensors[f"{UNET}.lora_up.weight"].dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_resize_to_all_of_the_energy_keeps_the_type(impasto: Any, tmp_path: Path, dtype: torch.dtype) -> None:
    before, after = tmp_path / "before.safetensors", tmp_path / "after.safetensors"
    write(before, {UNET: factors(rank=5)}, {}, dtype)
    assert impasto("resize", before, "--energy", 1, "--out", after).code == 0
    assert load_file(after)[f"{UNET}.lora_up.weight"].dtype == dtype


@pytest.mark.parametrize(
    "how",
    [
        ["--method", "svd", "--rank", 2],
        ["--method", "ties", "--rank", 2, "--density", 0.4],
        ["--method", "dare", "--energy", 0.9, "--seed", 3],
    ],
)
def test_each_method_writes_a_file(impasto: Any, pair: tuple[Path, Path], tmp_path: Path, how: list[object]) -> None:
    told = impasto("mix", *pair, *how, "--out", tmp_path / "both.safetensors", "--json").json
    assert told["method"] == how[1]
    assert told["layers"] == len(LoraFile.read(tmp_path / "both.safetensors").layers) == 3
    if "--rank" in how:
        assert told["ranks"] == [2]


def test_bake_writes_a_base(impasto: Any, narrow: None, tmp_path: Path) -> None:
    base, style, out = (tmp_path / f"{name}.safetensors" for name in ("base", "style", "out"))
    checkpoint.write_file(base, checkpoint.tensors(torch.float16))
    name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    side = checkpoint.narrow_shapes()["model.diffusion_model.input_blocks.4.1.proj_in.weight"][0]
    write(style, {name: factors(inward=side, outward=side)}, {"modelspec.prediction_type": "v"})
    told = impasto("bake", base, f"{style}:0.5", "--out", out, "--json")
    assert told.json["changed"] == 1
    assert "predicts v" in told.json["remarks"][0]
    assert impasto("inspect", out, "--json").json["family"] == "sdxl"
    key = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q.weight"
    wanted = load_file(base)[key].float() + 0.5 * LoraFile.read(style).layers[name].change()
    assert torch.equal(load_file(out)[key], wanted.half())


def test_resize_makes_it_smaller(impasto: Any, pair: tuple[Path, Path], tmp_path: Path) -> None:
    told = impasto("resize", pair[1], "--rank", 1, "--out", tmp_path / "small.safetensors")
    assert told.code == 0
    assert "3 layers of rank 1" in told.out
    small = LoraFile.read(tmp_path / "small.safetensors")
    assert {layer.rank for layer in small.layers.values()} == {1}
    assert small.trigger == "inky"


def test_export_and_back(impasto: Any, pair: tuple[Path, Path], tmp_path: Path) -> None:
    there, back = tmp_path / "peft.safetensors", tmp_path / "back.safetensors"
    assert impasto("export", pair[0], "--form", "diffusers", "--only", "unet", "--out", there, "--json").json["layers"] == 2
    assert impasto("export", there, "--form", "kohya", "--out", back).code == 0
    before, after = LoraFile.read(pair[0]).layers, LoraFile.read(back).layers
    assert after.keys() == {UNET, CONV}
    assert all(torch.allclose(layer.change(), before[name].change(), rtol=1e-3, atol=1e-3) for name, layer in after.items())


def test_edit_changes_what_is_told(impasto: Any, pair: tuple[Path, Path]) -> None:
    pair[0].with_suffix(".json").write_text('{"notes": "mine", "preferred weight": 1.0}', encoding="utf-8")
    told = impasto("edit", pair[0], "--title", "Glass", "--trigger", "", "--weight", 0.8, "--json").json
    assert told["changed"] == ["impasto.preferred_weight", "modelspec.title", "modelspec.trigger_phrase"]
    lora = LoraFile.read(pair[0])
    assert lora.metadata["modelspec.title"] == "Glass"
    assert lora.trigger == ""
    told = impasto("inspect", pair[0]).out.splitlines()
    assert told[1:3] == ["  title    Glass", "  best at  0.8"]
    beside = json.loads(pair[0].with_suffix(".json").read_text(encoding="utf-8"))
    assert beside == {"notes": "mine", "preferred weight": 0.8, "activation text": ""}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["mix", "GLASS", "--out", "NEW"], 2, "at least two"),
        (["mix", "GLASS", "INK", "--out", "INK"], 2, "is there already"),
        (["mix", "GLASS", "INK", "--out", "new.ckpt"], 2, "must name a .safetensors file"),
        (["mix", "GLASS", "INK", "--method", "ties", "--out", "NEW"], 2, "Give --rank"),
        (["mix", "GLASS:0,8", "INK", "--out", "NEW"], 2, '"0,8" is no weight'),
        (["mix", "GLASS", "INK", "--rank", "4", "--out", "NEW"], 2, "keeps everything"),
        (["mix", "GLASS:0", "INK:0", "--out", "NEW"], 2, "Every weight is 0"),
        (["mix", "GLASS:99", "INK", "--out", "NEW"], 2, "from -10 to 10"),
        (["mix", "GLASS:1@steps=0.2-0.8", "INK", "--out", "NEW"], 2, "has no steps"),
        (["mix", "GLASS:1@attic=0.5", "INK", "--out", "NEW"], 2, "no block attic"),
        (["mix", "GLASS", "GONE", "--out", "NEW"], 1, "There is no file"),
        (["bake", "GLASS", "INK", "--out", "NEW"], 1, "choose an SDXL base here, and lay the LoRA on it"),
        (["bake", "FOLDER", "INK", "--out", "NEW"], 2, "is a folder"),
        (["bake", "starter", "INK", "--out", "NEW"], 2, "starter is a folder"),
        (["resize", "GLASS", "--out", "NEW"], 2, "How much is to be kept? Give --rank, such as 32, or --energy"),
        (["resize", "GLASS:0.5", "--rank", "4", "--out", "NEW"], 2, "glass.safetensors alone: :0.5 is for commands that draw"),
        (["export", "GLASS:0,5", "--form", "kohya", "--out", "NEW"], 2, "alone: :0,5 is for commands"),
        (["edit", "GLASS:", "--title", "x"], 2, "alone: : is for commands"),
        (["edit", "GLASS", "--titel", "x"], 2, "impasto edit: unrecognized arguments: --titel x. See `impasto edit --help`"),
        (["resize", "GLASS", "--energy", "2", "--out", "NEW"], 2, "at most 1"),
        (["export", "GLASS", "--form", "onnx", "--out", "NEW"], 2, "invalid choice"),
        (["edit", "GLASS"], 2, "Nothing to change"),
        (["edit", "GLASS", "--thumbnail", "INK"], 1, "cannot be read as a picture"),
        (["edit", "GONE", "--title", "x"], 1, "There is no file"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_a_sentence(
    impasto: Any, pair: tuple[Path, Path], tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    names = {
        "FOLDER": str(tmp_path),
        "GLASS": str(pair[0]),
        "INK": str(pair[1]),
        "NEW": str(tmp_path / "new.safetensors"),
        "GONE": str(tmp_path / "no"),
    }
    given = []
    for argument in arguments:
        name, colon, weights = argument.partition(":")
        given.append(names.get(name, name) + colon + weights)
    told = impasto(*given)
    assert told.code == code
    assert words in told.err
    assert told.err.endswith(".\n")
    assert told.out == ""
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
