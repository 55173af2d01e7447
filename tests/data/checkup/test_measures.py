"""What is measured: thresholds hold on made photographs and on flat drawings, and nothing is measured twice."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.data.photographs import blurred, compressed, enlarged, framed, marked, photograph
from trainer.data.checkup import measures
from trainer.data.checkup.findings import findings
from trainer.data.checkup.measures import Measure, Measured, measure
from trainer.data.dataset import Dataset
from trainer.errors import PictureError
from trainer.home import shipped
from trainer.settings_text import validated

SCENES = 10

FAULTS: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "clean": lambda picture, seed: compressed(picture, 92) if seed % 2 else picture,
    "blurred": lambda picture, seed: blurred(picture, 2 + seed % 3),
    "upscaled": lambda picture, seed: enlarged(picture, (2, 2.5, 3, 4)[seed % 4]),
    "blocks": lambda picture, seed: compressed(picture, (15, 20, 25, 30)[seed % 4]),
    "border": lambda picture, seed: framed(picture, ((30, 0, 30, 0), (0, 44, 0, 70), (25, 18, 31, 60))[seed % 3], (9, 9, 9)),
    "watermark": marked,
}


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Measured]:
    """Pictures that are named after what is wrong with them."""
    folder = tmp_path_factory.mktemp("photographs")
    for seed in range(SCENES):
        picture = photograph(seed)
        for fault, spoilt in FAULTS.items():
            spoilt(picture, seed).save(folder / f"{fault} {seed}.png", compress_level=1)
    dataset = Dataset.open(folder)
    measured = Measured(dataset, folder / "cache")
    assert list(measured)[-1] == (SCENES * len(FAULTS),) * 2
    return dataset, measured


@pytest.fixture(scope="module")
def found(spoilt: tuple[Dataset, Measured]) -> dict[str, set[str]]:
    """The names of the pictures of each kind of finding."""
    return {each.kind: set(each.names) for each in findings(spoilt[0], validated({}), spoilt[1])}


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "clean"])
def test_nine_of_ten_are_found_and_nine_of_ten_found_are_so(found: dict[str, set[str]], fault: str) -> None:
    meant = {f"{fault} {seed}.png" for seed in range(SCENES)}
    right = len(meant & found[fault])
    assert right >= 0.9 * len(meant), f"recall: missed {sorted(meant - found[fault])}"
    assert right >= 0.9 * len(found[fault]), f"precision: wrong {sorted(found[fault] - meant)}"


def test_what_training_does_not_see_does_no_harm(spoilt: tuple[Dataset, Measured]) -> None:
    kinds = {each.kind for each in findings(spoilt[0], validated({"resolution": 96}), spoilt[1])}
    assert kinds.isdisjoint({"small", "blurred", "upscaled", "blocks"})


def test_a_corner_that_was_cut_off_is_not_told_of(spoilt: tuple[Dataset, Measured], found: dict[str, set[str]]) -> None:
    dataset, measured = spoilt
    name = min(found["watermark"])
    cut = Dataset(dataset.folder, dataset.pictures, (), {"crops": {name: [0.2, 0.2, 0.8, 0.8]}})
    there = {each.kind: set(each.names) for each in findings(cut, validated({}), measured)}
    assert there["watermark"] == found["watermark"] - {name}


@pytest.mark.parametrize("style", ["blueprint", "risograph", "stained-glass"])
def test_flat_drawings_are_not_taken_for_spoilt_photographs(style: str, tmp_path: Path) -> None:
    dataset = Dataset.open(shipped("assets", "styles", style))
    measured = Measured(dataset, tmp_path)
    assert len(list(measured)) == 18
    for resolution in (128, 512, 1024):
        kinds = {each.kind for each in findings(dataset, validated({"resolution": resolution}), measured)}
        wrong = {"blurred", "upscaled", "blocks", "watermark", "border", "duplicate", "similar"}
        assert kinds.isdisjoint(wrong)


@pytest.mark.parametrize("name", ["a.jpg", "a.bmp"])
def test_a_large_picture_is_measured_in_pixels_of_its_own(tmp_path: Path, name: str) -> None:
    large = photograph(1, (1000, 750)).resize((2400, 1800))
    framed(large, (80, 40, 0, 0), (255, 255, 255)).save(tmp_path / name, quality=92)
    seen = measure(tmp_path / name)
    assert 740 <= seen.detail < 1240
    assert (seen.width, seen.height) == (2480, 1840)
    assert seen.border == pytest.approx((80, 40, 0, 0), abs=2)
    assert seen.upscaled == 1


def test_a_damaged_picture_is_told_of(tmp_path: Path) -> None:
    photograph(0, (300, 200)).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(PictureError, match=r"a\.jpg is damaged"):
        measure(tmp_path / "a.jpg")
    measured = Measured(Dataset.open(tmp_path), tmp_path / "cache")
    assert list(measured) == [(1, 1)]
    assert "is damaged" in measured.damaged["a.jpg"]
    assert (measured.found, measured.left) == ({}, 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        Image.new("RGB", (200, 150), (number, 0, 0)).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pictures that were measured, as they are."""
    names: list[str] = []
    true = measures.measure

    def noting(path: Path) -> Measure:
        names.append(path.name)
        return true(path)

    monkeypatch.setattr(measures, "measure", noting)
    return names


def test_nothing_is_measured_twice(folder: Path, looked_at: list[str]) -> None:
    first = Measured(Dataset.open(folder), folder / "cache")
    assert (first.left, list(first)) == (4, [(1, 4), (2, 4), (3, 4), (4, 4)])
    again = Measured(Dataset.open(folder), folder / "cache")
    assert (again.left, list(again), again.found) == (0, [], first.found)
    assert sorted(looked_at) == ["0.png", "1.png", "2.png", "3.png"]


def test_what_has_changed_is_measured_anew(folder: Path, looked_at: list[str]) -> None:
    list(Measured(Dataset.open(folder), folder / "cache"))
    looked_at.clear()
    Image.new("RGB", (64, 64)).save(folder / "1.png")
    os.utime(folder / "2.png", ns=(time.time_ns(), time.time_ns()))
    measured = Measured(Dataset.open(folder), folder / "cache")
    list(measured)
    assert sorted(looked_at) == ["1.png", "2.png"]
    assert measured.found["1.png"].width == 64


def test_stopping_keeps_what_was_measured(folder: Path, looked_at: list[str]) -> None:
    for number in range(4, 80):
        Image.new("RGB", (200, 150), (number, 0, 0)).save(folder / f"{number}.png")
    steps = iter(Measured(Dataset.open(folder), folder / "cache"))
    assert list(itertools.islice(steps, 2)) == [(1, 80), (2, 80)]
    steps.close()
    kept = len(Measured(Dataset.open(folder), folder / "cache").found)
    assert kept == len(looked_at) < 80


def test_another_version_measures_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list(Measured(Dataset.open(folder), folder / "cache"))
    monkeypatch.setattr(measures, "VERSION", measures.VERSION + 1)
    assert Measured(Dataset.open(folder), folder / "cache").left == 4


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 0}', b'{"version": 1, "pictures": {"0.png": {}}}'])
def test_a_spoilt_cache_is_no_cache(folder: Path, content: bytes) -> None:
    list(Measured(Dataset.open(folder), folder / "cache"))
    for path in (folder / "cache").rglob("*.json"):
        path.write_bytes(content)
    assert Measured(Dataset.open(folder), folder / "cache").left == 4
