"""Doubts about a dataset: what does nothing in it is told once, and what is meant is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from trainer.data.dataset import Dataset
from trainer.data.doubts import doubts
from trainer.data.variety import unclosed
from trainer.settings_text import validated


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (32, 32), "red").save(tmp_path / name)
    return tmp_path


def told(folder: Path, **settings: bool | int) -> list[str]:
    return doubts(Dataset.open(folder), validated(settings))


def test_a_plain_dataset_leaves_no_doubt(folder: Path) -> None:
    assert told(folder) == told(folder, wildcards=True) == []


def test_masked_loss_without_a_mask_does_nothing(folder: Path) -> None:
    assert told(folder, masked_loss=True) == [
        "masked_loss is on, but no picture has a mask or transparency: all of each is learnt."
    ]
    Image.new("RGBA", (32, 32)).save(folder / "c.png")
    assert told(folder, masked_loss=True) == []


@pytest.mark.parametrize("name", ["b-masklabel.png", "b.mask.png", "masks/b.mask.png"])
def test_one_mask_is_enough(folder: Path, name: str) -> None:
    (folder / "masks").mkdir()
    Image.new("L", (32, 32), 255).save(folder / name)
    assert told(folder, masked_loss=True) == []


def test_a_mask_needs_its_picture(folder: Path) -> None:
    (folder / "masks").mkdir()
    for name in ("a-masklabel", "b.mask", "c-masklabel", "d.mask", "masks/b.mask", "masks/e.mask", "masks/f.mask"):
        Image.new("L", (32, 32), 255).save(folder / f"{name}.png")
    assert told(folder) == []
    assert told(folder, masked_loss=True) == [
        "There is a mask without its picture: c-masklabel.png, d.mask.png, e.mask.png and 1 more. It must be named after one."
    ]


@pytest.mark.parametrize(
    ("table", "value"), [("repeats", "2"), ("weights", "0.5"), ("crops", "[0, 0, 0.5, 1]"), ("focus", "[0, 0]")]
)
def test_a_table_must_name_pictures_that_are_there(folder: Path, table: str, value: str) -> None:
    (folder / "dataset.toml").write_text(f'[{table}]\n"a.png" = {value}\n', encoding="utf-8")
    assert told(folder) == []
    (folder / "dataset.toml").write_text(f'[{table}]\n"a.png" = {value}\n"a.jpg" = {value}\n', encoding="utf-8")
    assert told(folder) == [f"[{table}] in dataset.toml names a.jpg: no such file is in {folder}."]


def test_with_several_crops_a_focus_does_nothing(folder: Path) -> None:
    (folder / "dataset.toml").write_text('[focus]\n"a.png" = [0, 0]\n', encoding="utf-8")
    assert told(folder) == []
    assert told(folder, crops=2) == [
        "[focus] in dataset.toml does nothing with crops above 1: each picture is cropped anywhere then."
    ]
    (folder / "dataset.toml").write_text('[crops]\n"a.png" = [0, 0, 0.5, 1]\n', encoding="utf-8")
    assert told(folder, crops=2) == []


def test_a_picture_that_cannot_be_read_is_there_all_the_same(folder: Path) -> None:
    (folder / "c.png").write_text("a letter")
    Image.new("L", (32, 32), 255).save(folder / "c-masklabel.png")
    Image.new("L", (32, 32), 255).save(folder / "a-masklabel.png")
    (folder / "dataset.toml").write_text('[repeats]\n"c.png" = 2\n', encoding="utf-8")
    assert told(folder, masked_loss=True) == []


def test_a_brace_that_is_never_closed_chooses_nothing(folder: Path) -> None:
    (folder / "a.txt").write_text("{red|blue, a house", encoding="utf-8")
    assert told(folder) == []
    assert told(folder, wildcards=True) == ["A brace is never closed in a.txt, so nothing is chosen there: write {red|blue}."]


@pytest.mark.parametrize(
    ("caption", "answer"),
    [("{a|b}", False), ("{a|{b|c}}", False), (":{, a|b", True), (":{, smile", False), ("{a|{b|c}", True), ("a|b}", False)],
)
def test_only_a_brace_before_a_bar_counts(caption: str, answer: bool) -> None:
    assert unclosed(caption) is answer


def test_a_name_that_no_file_can_have_is_named(folder: Path) -> None:
    (folder / "dataset.toml").write_text(f'[repeats]\n"{"x" * 300}.png" = 2', encoding="utf-8")
    (doubt,) = told(folder)
    assert doubt.startswith("[repeats] in dataset.toml names xxx")
