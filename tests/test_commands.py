"""The commands that draw, tell what files are, and import settings: one JSON object each."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.bases.test_source import header_only
from tests.command_line import SHORT, asked_for
from tests.tiny import starter_like
from trainer.home import Home
from trainer.lora.file import Factors, LoraFile, write
from trainer.preview import sheet as preview_sheet

OUTPUT_1 = "lora_unet_output_blocks_1_1_transformer_blocks_{}_attn1_to_{}"


def drawn(impasto: Any, base: Path, out: Path, *more: object) -> bytes:
    """The bytes of a picture."""
    told = impasto("generate", "a house", "--base", base, "--steps", 2, "--seed", 3, "--out", out, "--json", *more)
    assert told.code == 0
    assert told.json["picture"] == str(out)
    return out.read_bytes()


def test_what_a_base_predicts_can_be_overruled(impasto: Any, toy_base: Path, tmp_path: Path) -> None:
    drawn(impasto, toy_base, tmp_path / "a.png")
    drawn(impasto, toy_base, tmp_path / "b.png", "--prediction", "epsilon")
    drawn(impasto, toy_base, tmp_path / "c.png", "--prediction", "v_prediction")
    told, known, other = (Image.open(tmp_path / name).tobytes() for name in ("a.png", "b.png", "c.png"))
    assert known == told
    assert other != told
    assert impasto("generate", "a house", "--prediction", "x", "--out", tmp_path / "d.png").code == 2


def test_bases_are_listed_and_inspected(impasto: Any, toy_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    header_only(folder / "ponyXL.safetensors")
    (folder / "old.ckpt").write_bytes(b"PK\x03\x04" + bytes(100))
    assert "impasto bases --add DIR" in impasto("bases").out
    result = impasto("bases", "--add", folder, "--json").json
    assert [(base["name"], base["family"]) for base in result["bases"]] == [("ponyXL", "pony")]
    assert "is a pickle" in result["others"][0]["reason"]
    assert impasto("bases").out.startswith("ponyXL: pony, predicts epsilon")
    assert impasto("bases", "--remove", folder, "--json").json["bases"] == []
    assert impasto("inspect", folder / "ponyXL.safetensors", "--json").json["family"] == "pony"
    assert impasto("inspect", toy_base, "--json").json["prediction"] == "epsilon"
    assert impasto("inspect", folder / "old.ckpt").code == 1


def test_a_lora_at_weight_zero_draws_the_very_same_file(impasto: Any, toy_base: Path, lora: Path, tmp_path: Path) -> None:
    without = drawn(impasto, toy_base, tmp_path / "a.png")
    assert drawn(impasto, toy_base, tmp_path / "b.png", "--lora", f"{lora}:0") == without
    assert drawn(impasto, toy_base, tmp_path / "c.png", "--lora", f"{lora}:8") != without


def test_size_steps_and_cfg_are_as_asked(impasto: Any, toy_base: Path, tmp_path: Path) -> None:
    drawn(impasto, toy_base, tmp_path / "a.png", "--size", "96x64", "--cfg", 2, "--negative", "dog")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (96, 64)
        assert "Negative prompt: dog\nSteps: 2, Sampler: Euler, CFG scale: 2, Seed: 3" in picture.info["parameters"]


def test_sheet_is_drawn_beside_the_file(
    impasto: Any, lora: Path, tmp_path: Path, toy_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview_sheet, "PROMPTS", {"sdxl": ("a house", "a boat", "a fox", "a tree")})
    monkeypatch.setattr(preview_sheet, "WEIGHTS", (0.0, 1.0))
    copy = Path(shutil.copy(lora, tmp_path / "style.safetensors"))
    told = impasto("sheet", copy, "--base", toy_base, "--json")
    assert told.code == 0
    assert told.json == {"sheet": str(tmp_path / "style-sheet.png"), "remarks": []}
    with Image.open(tmp_path / "style-sheet.png") as sheet:
        assert sheet.width > 4 * 64
        assert sheet.height > 2 * 64


def test_inspect_tells_what_a_file_holds(impasto: Any, lora: Path) -> None:
    told = impasto("inspect", lora, "--json").json
    assert told["base"] == "sdxl_base_v1-0"
    assert told["ranks"] == {"2": sum(told["modules"].values())}
    assert told["alphas"] == {"1": sum(told["modules"].values())}
    assert told["modules"]["te1"] == 8
    assert min(told["change"].values()) > 0
    blocks = {block["block"]: block["size"] for block in told["anatomy"]["blocks"]}
    assert blocks["te1"] == pytest.approx(told["change"]["te1"], abs=1e-6)
    assert told["anatomy"]["layers"].keys() == LoraFile.read(lora).layers.keys()


def test_inspect_says_what_else_a_file_is_and_reads_none_of_its_tensors(
    impasto: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_bytes", None)
    save_file({"encoder.down.0.weight": torch.zeros(2)}, tmp_path / "vae.safetensors")
    assert impasto("inspect", tmp_path / "vae.safetensors").sentence.startswith(
        "vae.safetensors is a VAE, neither a LoRA nor a whole SDXL base"
    )
    draw = ("generate", "a", "--lora", tmp_path / "vae.safetensors", "--base", "nowhere", "--out", tmp_path / "a.png")
    assert "it is a VAE, not a LoRA" in impasto(*draw).sentence


def test_inspect_of_an_embedding_asks_for_no_base(impasto: Any, tmp_path: Path) -> None:
    save_file({"clip_g": torch.zeros(2, 2), "clip_l": torch.zeros(2, 2)}, tmp_path / "mood.safetensors")
    sentence = "mood.safetensors is an embedding (textual inversion), neither a LoRA nor a whole SDXL base in 16 bits or more."
    assert impasto("inspect", tmp_path / "mood.safetensors").sentence == sentence


def test_inspect_of_several_files_is_one_object(impasto: Any, lora: Path) -> None:
    told = impasto("inspect", lora, lora, "--json").json
    assert len(told["files"]) == 2
    assert [pair["verdict"] for pair in told["overlaps"]] == ["alike"]


def test_a_bad_file_does_not_hide_the_good_ones(impasto: Any, lora: Path, tmp_path: Path) -> None:
    told = impasto("inspect", tmp_path / "gone.safetensors", lora)
    assert (told.code, told.err) == (1, "")
    assert told.out.startswith("There is no file ")
    assert "  rank     2 (" in told.out
    as_json = impasto("inspect", tmp_path / "gone.safetensors", lora, "--json")
    assert as_json.code == 1
    bad, good = as_json.json["files"]
    assert (bad["name"], bad["error"]) == ("gone.safetensors", told.out.splitlines()[0])
    assert good["name"] == lora.stem
    assert "error" not in good


def test_inspect_for_a_person(impasto: Any, lora: Path) -> None:
    lines = impasto("inspect", lora).out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("  where "))
    assert f"  rank     2 ({sum(impasto('inspect', lora, '--json').json['modules'].values())} layers)" in lines[:start]
    assert re.fullmatch(r"  where    input 4 +\d+%  down_blocks\.1\.attentions\.0", lines[start])
    assert any(re.fullmatch(r"           output 1 +\d+%  up_blocks\.0\.attentions\.1", line) for line in lines)
    assert any(
        re.match(r"  spectrum rank [12] holds 99% of the change.* \(95%: rank [12], 90%: rank [12]\)$", line) for line in lines
    )
    assert re.fullmatch(r"           99% of each layer alone: rank (1|2|1 to 2)", lines[-1])


def test_inspect_tells_how_small_a_file_would_do(impasto: Any, tmp_path: Path) -> None:
    """The prediction against `impasto resize`, in a file whose second half of ranks holds next to nothing."""
    path, layers = tmp_path / "big.safetensors", {}
    for number, name in enumerate(OUTPUT_1.format(block, side) for block in range(10) for side in "qkv"):
        random = torch.Generator().manual_seed(number)
        down, up = torch.randn(16, 300, generator=random), torch.randn(200, 16, generator=random)
        up[:, 8:] *= 0.001
        layers[name] = Factors(down, up, 16.0)
    write(path, layers, {"modelspec.title": "Big"})
    told = impasto("inspect", path, "--json").json
    (most,) = (held for held in told["anatomy"]["holding"] if held["share"] == 0.99)
    assert most["rank"] == 8
    assert impasto("resize", path, "--rank", 8, "--out", tmp_path / "small.safetensors").code == 0
    assert most["bytes"] == pytest.approx((tmp_path / "small.safetensors").stat().st_size, rel=0.01)
    assert told["size"] == path.stat().st_size
    assert "rank 8 holds 99% of the change: 0.5 MB -> 0.3 MB" in impasto("inspect", path).out
    assert "99% of each layer alone: rank 8\n" in impasto("inspect", path).out


def test_inspect_tells_of_loras_that_fight(impasto: Any, lora: Path, toy_base: Path, tmp_path: Path) -> None:
    """A style against its own opposite fights everywhere; a base among the files is compared with nothing."""
    own, opposite = LoraFile.read(lora), tmp_path / "opposite.safetensors"
    write(opposite, {name: Factors(one.down, -one.up, one.alpha) for name, one in own.factors.items()}, own.metadata)
    told = impasto("inspect", lora, toy_base, opposite, "--json").json
    assert len(told["files"]) == 3
    (pair,) = told["overlaps"]
    assert (pair["files"], pair["verdict"]) == ([lora.stem, "opposite"], "fight")
    assert pair["cosine"] == pytest.approx(-1, rel=1e-5)
    *_, sentence, cosine = impasto("inspect", lora, toy_base, opposite).out.splitlines()
    assert sentence == pair["sentence"]
    assert sentence.endswith(": lower one, or merge with TIES.")
    assert cosine.startswith("  cosine   -1.00, from -1.00 in ")


def test_inspect_leaves_a_dora_out_and_says_so(impasto: Any, lora: Path, tmp_path: Path) -> None:
    tensors = load_file(lora)
    count, name = len(LoraFile.read(lora).layers), next(iter(LoraFile.read(lora).layers))
    tensors[f"{name}.dora_scale"] = torch.ones(tensors[f"{name}.lora_up.weight"].shape[0], 1)
    save_file(tensors, tmp_path / "dora.safetensors")
    told = impasto("inspect", tmp_path / "dora.safetensors")
    assert told.out.splitlines()[-1] == f"  left out 1 of {count} layers: what a DoRA changes depends on the base"
    assert "->" not in told.out
    only = {key: tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}
    save_file(only, tmp_path / "only.safetensors")
    *_, line = told = impasto("inspect", tmp_path / "only.safetensors").out.splitlines()
    assert line.startswith("  left out 1 of 1 layers")
    assert not any(one.startswith("  change") for one in told), "a size of 0 would not be true"


def test_inspect_tells_of_a_lora_that_changes_nothing(impasto: Any, lora: Path, tmp_path: Path) -> None:
    own, empty = LoraFile.read(lora), tmp_path / "empty.safetensors"
    write(empty, {name: Factors(one.down, 0 * one.up, one.alpha) for name, one in own.factors.items()}, own.metadata)
    assert "  spectrum empty: it changes nothing" in impasto("inspect", empty).out
    assert impasto("inspect", lora, empty).out.splitlines()[-1] == "empty changes nothing."


def test_a_lora_for_another_base_is_refused_before_anything_is_drawn(
    impasto: Any, toy_base: Path, full_base: Path, tmp_path: Path, dataset: Path, home: Home
) -> None:
    assert impasto("train", dataset, "--base", full_base, *SHORT, "--out", tmp_path / "other").code == 0
    other = tmp_path / "other" / "other.safetensors"
    told = impasto("generate", "a house", "--base", toy_base, "--lora", other, "--out", tmp_path / "a.png")
    assert told.code == 1
    assert "other does not fit this base" in told.sentence
    assert not (tmp_path / "a.png").exists()


def test_a_lora_on_another_base_is_remarked_upon(lora: Path, toy_base: Path, tmp_path: Path, impasto: Any) -> None:
    other = shutil.copytree(toy_base, tmp_path / "ponyXL")
    weights = other / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor + 0.01 for name, tensor in load_file(weights).items()}, weights)
    draw = ["generate", "a cat", "--lora", lora, "--steps", 1, "--size", "64x64", "--out", tmp_path / "a.png", "--json"]
    assert impasto(*draw, "--base", toy_base).json["remarks"] == []
    silent = [f"{lora}:0" if part == lora else part for part in draw]
    assert impasto(*silent, "--base", other).json["remarks"] == []
    told = impasto(*draw, "--base", other)
    assert [remark["level"] for remark in told.json["remarks"]] == ["warning"]
    sentence = told.json["remarks"][0]["sentence"]
    assert f"{lora.stem} was trained on toy (SDXL) and is drawn on ponyXL (Pony): another family" in sentence
    assert f"Warning: {sentence}\n" in told.err


def test_a_lora_of_the_starters_family_is_named_as_such(impasto: Any, toy_base: Path, dataset: Path, tmp_path: Path) -> None:
    starter = starter_like(toy_base, tmp_path / "starter")
    assert impasto("train", dataset, "--base", starter, *SHORT, "--out", tmp_path / "style").code == 0
    lora = LoraFile.read(tmp_path / "style" / "style.safetensors")
    assert lora.base_version == "impasto_starter"
    assert "  base     impasto_starter" in impasto("inspect", tmp_path / "style" / "style.safetensors").out


def test_a_config_of_kohyas_is_imported_and_trained_with(impasto: Any, toy_base: Path, dataset: Path, tmp_path: Path) -> None:
    config, out = tmp_path / "kohya.toml", tmp_path / "mine.toml"
    config.write_text("network_dim = 3\nunet_lr = 1e-4\nflip_aug = true\nscale_weight_norms = 1\n", encoding="utf-8")
    told = impasto("import", config, "--out", out, "--json").json
    assert set(told) == {"settings", "taken", "changed", "without", "out"}
    assert told["settings"] == tomllib.loads(out.read_text(encoding="utf-8"))["settings"]
    assert asked_for(toy_base, dataset, tmp_path / "run", "balanced", "--settings", str(out))["rank"] == 3
    again = impasto("import", config, "--out", out)
    assert (again.code, again.sentence) == (2, f"{out} is there already: choose another name.")


def test_an_import_tells_a_person_what_became_of_each_entry(impasto: Any, tmp_path: Path) -> None:
    config = tmp_path / "kohya.toml"
    config.write_text("network_dim = 3\nunet_lr = 1e-4\nflip_aug = true\nscale_weight_norms = 1\n", encoding="utf-8")
    lines = impasto("import", config).out.splitlines()
    assert "  network_dim 3 -> rank 3" in lines
    assert "  network_alpha 1 (their default) -> alpha 1.0" in lines
    assert "  flip_aug True -> flip True: every picture is shown both ways, not by chance" in lines
    assert lines[lines.index("Without a counterpart:") + 1] == "  scale_weight_norms 1"
    assert lines[-1].endswith("--out FILE.toml.")
