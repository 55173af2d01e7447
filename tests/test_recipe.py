"""LoRAs with weights as text, requests and their bounds, and the recipe in the picture."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainer.errors import StorageError, UsageError
from trainer.recipe import LoraChoice, Request, infotext, write_png


@pytest.mark.parametrize(
    ("given", "path", "unet", "text"),
    [
        ("a.safetensors", "a.safetensors", 1.0, 1.0),
        ("a.safetensors:0.8", "a.safetensors", 0.8, 0.8),
        ("a.safetensors:0.8:0.5", "a.safetensors", 0.8, 0.5),
        ("a.safetensors:0:1", "a.safetensors", 0.0, 1.0),
        ("a.safetensors:-1", "a.safetensors", -1.0, -1.0),
        ("C:\\loras\\a.safetensors", "C:\\loras\\a.safetensors", 1.0, 1.0),
        ("C:\\loras\\a.safetensors:0.8", "C:\\loras\\a.safetensors", 0.8, 0.8),
        ("C:\\loras\\a.safetensors:0.8:0.5", "C:\\loras\\a.safetensors", 0.8, 0.5),
        ("C:/loras/a.safetensors:1e-1", "C:/loras/a.safetensors", 0.1, 0.1),
        ("my:odd:name.safetensors:0.5", "my:odd:name.safetensors", 0.5, 0.5),
    ],
)
def test_weights_are_split_from_the_right(given: str, path: str, unet: float, text: float) -> None:
    assert LoraChoice.parse(given) == LoraChoice(Path(path), unet, text)


@pytest.mark.parametrize("given", ["a.safetensors:11", "a.safetensors:nan", "a.safetensors:inf", "a.safetensors:1:-99"])
def test_weights_beyond_all_sense_are_refused(given: str) -> None:
    with pytest.raises(UsageError, match="must be numbers from -10 to 10"):
        LoraChoice.parse(given)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0}, {"steps": 201}, {"cfg": 0.5}, {"cfg": float("nan")}, {"width": 100}, {"height": 32}, {"width": 8192},
        {"seed": -1},
    ],
)  # fmt: skip
def test_what_no_base_can_draw_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Request(prompt="a house", **wrong)


def test_a_request_goes_through_json_and_back() -> None:
    asked = Request("ein Häuschen", "dog", 7, 12, 4.5, 512, 768, (LoraChoice(Path("a.safetensors"), 0.8, 0.5),))
    assert Request.from_json(json.loads(json.dumps(asked.to_json()))) == asked


def test_the_recipe_is_in_the_fields_words() -> None:
    asked = Request("a house", "dog", 7, 12, 4.5, 512, 768, (LoraChoice(Path("x/glass.safetensors"), 0.8, 0.5),))
    assert infotext(asked, "stabilityai/stable-diffusion-xl-base-1.0") == (
        "a house <lora:glass:0.8>\n"
        "Negative prompt: dog\n"
        "Steps: 12, Sampler: Euler, CFG scale: 4.5, Seed: 7, Size: 512x768, Model: stable-diffusion-xl-base-1.0"
    )


def test_a_lora_at_weight_zero_is_no_part_of_the_recipe() -> None:
    asked = Request("a house", loras=(LoraChoice(Path("glass.safetensors"), 0.0, 0.0),))
    assert infotext(asked, "starter") == infotext(Request("a house"), "starter")


def test_the_picture_carries_its_recipe(tmp_path: Path) -> None:
    write_png(tmp_path / "new" / "a.png", Image.new("RGB", (4, 4), "red"), "ein Häuschen, 東京")
    with Image.open(tmp_path / "new" / "a.png") as picture:
        assert picture.info["parameters"] == "ein Häuschen, 東京"
        assert picture.getpixel((0, 0)) == (255, 0, 0)


def test_a_full_disk_leaves_the_older_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "a.png"
    write_png(path, Image.new("RGB", (4, 4), "red"), "")
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"Could not write .*a\.png: the disk is full"):
        write_png(path, Image.new("RGB", (4, 4), "blue"), "")
    assert path.read_bytes() == before
