"""`impasto generate`: samplers, several pictures, and a picture from another's recipe."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from trainer.home import Home
from trainer.recipe import write_png


def drawn(impasto: Any, base: Path, out: Path, *more: object) -> dict[str, Any]:
    """What is told of a picture of two steps."""
    told = impasto("generate", "a house", "--base", base, "--steps", 2, "--seed", 3, "--out", out, "--json", *more)
    assert told.code == 0, told.err
    result: dict[str, Any] = told.json
    return result


def recipe(path: Path) -> str:
    with Image.open(path) as picture:
        return str(picture.info["parameters"])


def test_the_usual_sampler_is_euler(impasto: Any, toy_base: Path, tmp_path: Path) -> None:
    usual, named, other = (tmp_path / name for name in ("a.png", "b.png", "c.png"))
    assert drawn(impasto, toy_base, usual)["sampler"] == "Euler"
    drawn(impasto, toy_base, named, "--sampler", "Euler")
    assert named.read_bytes() == usual.read_bytes()
    assert drawn(impasto, toy_base, other, "--sampler", "DPM++ 2M Karras")["sampler"] == "DPM++ 2M Karras"
    assert "Sampler: DPM++ 2M Karras, CFG scale:" in recipe(other)
    with Image.open(usual) as one, Image.open(other) as two:
        assert one.tobytes() != two.tobytes()


@pytest.mark.parametrize("sampler", ["Euler", "Euler a"])
def test_several_pictures_are_those_drawn_one_by_one(impasto: Any, toy_base: Path, tmp_path: Path, sampler: str) -> None:
    told = drawn(impasto, toy_base, tmp_path / "many.png", "--count", 3, "--sampler", sampler)
    paths = [tmp_path / f"many-{number}.png" for number in (1, 2, 3)]
    assert told["pictures"] == [str(path) for path in paths]
    assert (told["picture"], told["seed"]) == (str(paths[0]), 3)
    assert not (tmp_path / "many.png").exists()
    drawn(impasto, toy_base, tmp_path / "one.png", "--seed", 5, "--sampler", sampler)
    assert (tmp_path / "one.png").read_bytes() == paths[2].read_bytes()
    assert len({path.read_bytes() for path in paths}) == 3


def test_several_pictures_for_a_person(impasto: Any, toy_base: Path, tmp_path: Path) -> None:
    told = impasto("generate", "a", "--base", toy_base, "--steps", 1, "--count", 2, "--out", tmp_path / "a.png")
    assert told.out.splitlines() == [str(tmp_path / "a-1.png"), str(tmp_path / "a-2.png")]


def test_a_picture_is_drawn_again_from_its_recipe(impasto: Any, toy_base: Path, lora: Path, tmp_path: Path, home: Home) -> None:
    first, again = tmp_path / "a.png", tmp_path / "b.png"
    home.loras.mkdir(parents=True)
    kept = Path(shutil.copy(lora, home.loras / lora.name))
    parts = ("--lora", f"{kept}:0.8:0.5", "--negative", "a dog", "--size", "96x64", "--cfg", 3.5, "--sampler", "Euler a")
    drawn(impasto, toy_base, first, *parts)
    told = impasto("generate", "--from", first, "--base", toy_base, "--out", again, "--json")
    assert told.code == 0, told.err
    assert again.read_bytes() == first.read_bytes()
    changed = impasto("generate", "--from", first, "--base", toy_base, "--out", again, "--json", "--seed", 4, "--cfg", 2).json
    assert (changed["seed"], changed["cfg"], changed["negative"], changed["sampler"]) == (4, 2, "a dog", "Euler a")


def test_the_base_of_a_recipe_is_found_among_the_bases(impasto: Any, toy_base: Path, tmp_path: Path, home: Home) -> None:
    shutil.copytree(toy_base, home.bases / "oil")
    drawn(impasto, home.bases / "oil", tmp_path / "a.png")
    assert impasto("generate", "--from", tmp_path / "a.png", "--out", tmp_path / "b.png", "--json").code == 0
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.png").read_bytes()
    shutil.rmtree(home.bases / "oil")
    told = impasto("generate", "--from", tmp_path / "a.png", "--out", tmp_path / "c.png")
    assert (told.code, "drawn on oil, which is not among your bases" in told.sentence) == (2, True)


def test_a_lora_of_a_recipe_that_is_not_here_is_named(
    impasto: Any, toy_base: Path, lora: Path, tmp_path: Path, home: Home
) -> None:
    text = "a fox <lora:gone:0.8>\nSteps: 1, Sampler: Euler, CFG scale: 5, Seed: 8, Size: 64x64"
    write_png(tmp_path / "theirs.png", Image.new("RGB", (64, 64)), text)
    draw = ("generate", "--from", tmp_path / "theirs.png", "--base", toy_base, "--out", tmp_path / "a.png")
    told = impasto(*draw)
    assert told.code == 2
    assert (
        f"with gone.safetensors, which is not beside it, not in this folder, and not in {home.loras}: put it" in told.sentence
    )
    assert impasto(*draw, "--lora", lora).code == 0


def test_what_of_a_lora_is_not_drawn_with_is_told(impasto: Any, toy_base: Path, lora: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd.safetensors"
    save_file({**load_file(lora), "colour.of.night": torch.zeros(2)}, odd)
    told = impasto("generate", "a", "--base", toy_base, "--steps", 1, "--lora", odd, "--out", tmp_path / "a.png", "--json")
    sentence = "odd is drawn without 1 of its tensors: 1 (unknown, such as colour.of.night)."
    assert {"level": "note", "sentence": sentence} in told.json["remarks"]
    assert f"Note: {sentence}" in told.err.splitlines()


def test_a_picture_of_a1111s_is_drawn_from(impasto: Any, toy_base: Path, tmp_path: Path) -> None:
    text = (
        "a fox, (red:1.2)\nNegative prompt: dog\n"
        "Steps: 2, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5, Seed: 8, Size: 64x96, Model hash: 31e35c80fc, "
        "Model: sd_xl_base_1.0, Version: v1.10.1"
    )
    write_png(tmp_path / "theirs.png", Image.new("RGB", (64, 96)), text)
    told = impasto("generate", "--from", tmp_path / "theirs.png", "--base", toy_base, "--out", tmp_path / "a.png", "--json")
    wanted = {
        "prompt": "a fox, (red:1.2)",
        "negative": "dog",
        "steps": 2,
        "sampler": "DPM++ 2M Karras",
        "seed": 8,
        "height": 96,
    }
    assert told.json | wanted == told.json


def test_what_is_not_known_here_can_be_said_otherwise(impasto: Any, toy_base: Path, tmp_path: Path) -> None:
    text = "a fox\nSteps: 2, Sampler: DPM++ 3M SDE, CFG scale: 5, Seed: 8, Size: 72x72"
    write_png(tmp_path / "theirs.png", Image.new("RGB", (72, 72)), text)
    draw = ("generate", "--from", tmp_path / "theirs.png", "--base", toy_base, "--out", tmp_path / "a.png")
    assert "There is no sampler DPM++ 3M SDE. Choose one of: Euler, Euler a" in impasto(*draw).sentence
    assert impasto(*draw, "--sampler", "DDIM", "--size", "64x64").code == 0


def test_a_picture_that_was_not_drawn_here_stays(impasto: Any, toy_base: Path, tmp_path: Path) -> None:
    mine, theirs, run = tmp_path / "mine.png", tmp_path / "theirs.png", ("generate", "a", "--base", toy_base, "--steps", 1)
    drawn(impasto, toy_base, mine, "--size", "64×64")
    for out in ("theirs.png", "theirs-2.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / out)
    before = {path: path.read_bytes() for path in tmp_path.glob("*.png")}
    assert "theirs.png is there already, and not drawn by Impasto" in impasto(*run, "--out", theirs).sentence
    assert "theirs-2.png is there already" in impasto(*run, "--count", 2, "--out", theirs).sentence
    again = impasto("generate", "--from", mine, "--seed", 5, "--base", toy_base, "--out", tmp_path / "." / "mine.png")
    assert (again.code, "mine.png, which is drawn from" in again.sentence) == (2, True)
    assert {path: path.read_bytes() for path in tmp_path.glob("*.png")} == before
    assert impasto(*run, "--out", mine).code == 0
    assert mine.read_bytes() != before[mine]


@pytest.mark.parametrize(
    ("wrong", "code", "sentence"),
    [
        (("--steps", 0), 2, "steps must be from 1 to 200"),
        (("--cfg", "nan"), 2, "cfg must be from 1 to 30"),
        (("--size", "100x100"), 2, "multiples of 32"),
        (("--seed", -1), 2, "seed must be from 0"),
        (("--lora", "LORA@attic=0.5"), 2, "The U-Net has no block attic"),
        (("--out", "FILE/a.png"), 1, "Could not write"),
    ],
)
def test_what_is_wrong_is_told_of_before_a_base_is_loaded(
    impasto: Any, lora: Path, tmp_path: Path, wrong: tuple[str, object], code: int, sentence: str
) -> None:
    (tmp_path / "file").touch()
    value = str(wrong[1]).replace("LORA", str(lora)).replace("FILE", str(tmp_path / "file"))
    told = impasto("generate", "a", "--base", "nowhere", "--out", tmp_path / "a.png", wrong[0], value)
    assert (told.code, sentence in told.sentence) == (code, True), told.err
    assert "nowhere" in impasto("generate", "a", "--base", "nowhere", "--out", tmp_path / "a.png").sentence


def test_the_names_of_samplers_are_known_in_any_case(impasto: Any, toy_base: Path, tmp_path: Path) -> None:
    assert drawn(impasto, toy_base, tmp_path / "a.png", "--sampler", "euler A")["sampler"] == "Euler a"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ((), "Say what to draw"),
        (("a house", "--count", 0), "--count must be from 1 to 100, not 0"),
        (("a house", "--sampler", "Eular"), "invalid choice: 'Eular'"),
        (("--from", "GONE"), "There is no file"),
        (("--from", "BARE"), "carries no recipe"),
    ],
)
def test_what_cannot_be_drawn_is_told_of_in_a_sentence(impasto: Any, tmp_path: Path, more: Any, sentence: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "bare.png")
    places = {"GONE": tmp_path / "gone.png", "BARE": tmp_path / "bare.png"}
    told = impasto("generate", *(places.get(part, part) for part in more), "--out", tmp_path / "a.png")
    assert (told.code, sentence in told.sentence) == (2, True), told.err
