"""The files beside a LoRA: what other programs find in them, and what stays as a person left it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from trainer.errors import StorageError
from trainer.lora.sidecar import Card, revise, write

CARD = Card(description="Ink: a style.", trigger="glassy", starter=False, notes="Trained on paper.")


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    return tmp_path / "ink.v2.safetensors"


def fields(lora: Path) -> Any:
    return json.loads(lora.with_name("ink.v2.json").read_text(encoding="utf-8"))


def drawn(folder: Path, size: tuple[int, int], colour: str) -> Path:
    """A sample picture with its recipe."""
    info = PngInfo()
    info.add_text("parameters", "glassy, a boat\nSteps: 2")
    path = folder / f"{colour}.png"
    Image.new("RGB", size, colour).save(path, pnginfo=info)
    return path


def test_the_fields_are_those_that_a1111_reads(lora: Path) -> None:
    write(lora, CARD, None)
    assert fields(lora) == {
        "description": "Ink: a style.", "activation text": "glassy", "preferred weight": 1.0, "negative text": "",
        "sd version": "SDXL", "notes": "Trained on paper.",
    }  # fmt: skip
    assert [path.name for path in lora.parent.iterdir()] == ["ink.v2.json"]


def test_what_a_person_wrote_stays(lora: Path) -> None:
    theirs = {"preferred weight": 0.7, "notes": "schön", "rating": 5}
    lora.with_name("ink.v2.json").write_text(json.dumps(theirs, ensure_ascii=False), encoding="utf-8-sig")
    write(lora, CARD, None)
    assert fields(lora).items() >= theirs.items()
    assert fields(lora)["activation text"] == "glassy"


def test_fields_can_be_set_in_a_file_that_is_there(lora: Path) -> None:
    revise(lora, {"preferred weight": 0.7})
    assert not lora.with_name("ink.v2.json").exists()
    write(lora, CARD, None)
    before = fields(lora)
    revise(lora, {"preferred weight": 0.7, "activation text": "inky"})
    assert fields(lora) == {**before, "preferred weight": 0.7, "activation text": "inky"}


@pytest.mark.parametrize("content", ['{"notes": "a slip",}', "[1]", ""])
def test_what_is_no_table_is_left_alone(lora: Path, content: str) -> None:
    path = lora.with_name("ink.v2.json")
    path.write_text(content)
    write(lora, CARD, None)
    assert path.read_text() == content


def test_the_picture_is_small_and_keeps_its_recipe(lora: Path, tmp_path: Path) -> None:
    write(lora, CARD, drawn(tmp_path, (1024, 640), "green"))
    with Image.open(lora.with_name("ink.v2.png")) as picture:
        assert picture.size == (512, 320)
        assert picture.getpixel((100, 100)) == (0, 128, 0)
        assert picture.info["parameters"].startswith("glassy, a boat")


def test_our_picture_is_renewed_and_a_persons_stays(lora: Path, tmp_path: Path) -> None:
    path = lora.with_name("ink.v2.png")
    for colour in ("green", "red"):
        write(lora, CARD, drawn(tmp_path, (64, 64), colour))
    with Image.open(path) as picture:
        assert picture.getpixel((0, 0)) == (255, 0, 0)
    for theirs in (drawn(tmp_path, (64, 64), "blue").read_bytes(), b"a letter"):
        path.write_bytes(theirs)
        write(lora, CARD, drawn(tmp_path, (64, 64), "green"))
        assert path.read_bytes() == theirs


def test_a_picture_that_is_gone_is_not_missed(lora: Path, tmp_path: Path) -> None:
    write(lora, CARD, tmp_path / "gone.png")
    assert [path.name for path in lora.parent.iterdir()] == ["ink.v2.json"]


def test_a_full_disk_is_told_of(lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"ink\.v2\.json: the disk is full"):
        write(lora, CARD, None)
    assert list(lora.parent.iterdir()) == []
