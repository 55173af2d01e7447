"""The commands that draw, tell what files are, and import settings: one JSON object each."""

from __future__ import annotations

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
from trainer.lora.file import LoraFile
from trainer.preview import sheet as preview_sheet


def drawn(impasto: Any, base: Path, out: Path, *more: object) -> bytes:
    """The bytes of a picture."""
    told = impasto("generate", "a house", "--base", base, "--steps", 2, "--seed", 3, "--out", out, "--json", *more)
    assert told.code == 0
    assert told.json["picture"] == str(out)
    return out.read_bytes()


def test_what_a_base_predicts_can_be_overruled(impasto: Any, toy_base: Path, tmp_path: Path) -> None:
    told, known = drawn(impasto, toy_base, tmp_path / "a.png"), ("--prediction", "epsilon")
    assert drawn(impasto, toy_base, tmp_path / "b.png", *known) == told
    assert drawn(impasto, toy_base, tmp_path / "c.png", "--prediction", "v_prediction") != told
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


def test_inspect_says_what_else_a_file_is_and_reads_none_of_its_tensors(
    impasto: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_bytes", None)
    save_file({"encoder.down.0.weight": torch.zeros(2)}, tmp_path / "vae.safetensors")
    assert impasto("inspect", tmp_path / "vae.safetensors").sentence.startswith("vae.safetensors is a VAE, not an SDXL base")
    draw = ("generate", "a", "--lora", tmp_path / "vae.safetensors", "--base", "nowhere", "--out", tmp_path / "a.png")
    assert "it is a VAE, not a LoRA" in impasto(*draw).sentence


def test_inspect_of_several_files_is_one_object(impasto: Any, lora: Path) -> None:
    assert len(impasto("inspect", lora, lora, "--json").json["files"]) == 2


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
    assert "  rank     2 (" in impasto("inspect", lora).out


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
