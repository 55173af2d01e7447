"""Findings of a whole dataset: what is there is told, with its pictures, and a good dataset has none."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from trainer.data.checkup.finding import KINDS, Finding
from trainer.data.checkup.findings import findings
from trainer.data.checkup.measures import Measured
from trainer.data.dataset import Dataset
from trainer.data.editing.edits import Edits
from trainer.settings_text import validated

SUBJECTS = ("house", "tree", "car", "flower", "boat", "fox", "lamp", "bridge", "clock", "mill", "owl", "train")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures of different things, as a training wants them at a resolution of 128."""
    for number, subject in enumerate(SUBJECTS):
        noise = Image.effect_noise((160, 120) if number % 2 else (120, 160), 90)
        noise.convert("RGB").save(tmp_path / f"{subject}.png")
        (tmp_path / f"{subject}.txt").write_text(f"a red {subject} on the left\n", encoding="utf-8")
    (tmp_path / "dataset.toml").write_text('trigger = "vellorn"\n', encoding="utf-8")
    return tmp_path


def look(folder: Path, **settings: object) -> dict[str, Finding]:
    dataset = Dataset.open(folder)
    measured = Measured(dataset, folder / "cache")
    list(measured)
    there = findings(dataset, validated({"resolution": 128, **settings}), measured)
    order = list(KINDS)
    assert [each.kind for each in there] == sorted((each.kind for each in there), key=order.index)
    return {each.kind: each for each in there}


def test_a_good_dataset_has_none(folder: Path) -> None:
    assert look(folder) == {}


def test_damaged_files_are_named_with_a_reason(folder: Path) -> None:
    (folder / "empty.png").write_bytes(b"")
    content = (folder / "fox.png").read_bytes()
    (folder / "fox.png").write_bytes(content[: len(content) // 2])
    found = look(folder)["damaged"]
    assert found.names == ("empty.png", "fox.png")
    assert found.sentence.startswith("2 files cannot be used, and training leaves them out. empty.png ")
    assert found.mend


def test_a_picture_that_comes_meanwhile_is_not_damaged(folder: Path) -> None:
    dataset = Dataset.open(folder)
    (folder / "late.png").write_bytes((folder / "fox.png").read_bytes())
    there = findings(dataset, validated({"resolution": 128}), Measured(dataset, folder / "cache"))
    assert "damaged" not in {each.kind for each in there}


def test_one_that_comes_meanwhile_is_not_counted_among_damaged_ones(folder: Path) -> None:
    (folder / "empty.png").write_bytes(b"")
    dataset = Dataset.open(folder)
    (folder / "late.png").write_bytes((folder / "fox.png").read_bytes())
    there = findings(dataset, validated({"resolution": 128}), Measured(dataset, folder / "cache"))
    [names] = [each.names for each in there if each.kind == "damaged"]
    assert names == ("empty.png",)


def test_exact_copies(folder: Path) -> None:
    for name in ("copy.png", "fox (2).png"):
        (folder / name).write_bytes((folder / "fox.png").read_bytes())
        (folder / name).with_suffix(".txt").write_text("an animal\n", encoding="utf-8")
    found = look(folder)
    assert found.keys() == {"duplicate"}
    assert found["duplicate"].groups == (("fox.png", "copy.png", "fox (2).png"),)
    assert found["duplicate"].sentence.startswith("2 pictures are exact copies")
    assert "[repeats] in dataset.toml" in found["duplicate"].advice


def test_small_pictures(folder: Path) -> None:
    Image.effect_noise((70, 70), 90).convert("RGB").save(folder / "fox.png")
    found = look(folder)
    assert found["small"].names == ("fox.png",)
    assert "enlarges them up to 1.8 times" in found["small"].sentence
    assert "takes them at a lower one" in look(folder, max_upscale=1)["small"].sentence


def test_nobody_is_offered_to_take_out_every_picture(folder: Path) -> None:
    found = look(folder, resolution=1024)["small"]
    assert len(found.names) == len(SUBJECTS)
    assert not found.mend


def test_what_takes_no_picture_out_is_offered_for_all(folder: Path) -> None:
    for subject in SUBJECTS:
        (folder / f"{subject}.txt").unlink()
    assert look(folder)["bare"].mend


def test_crops_that_leave_out_much(folder: Path) -> None:
    Image.effect_noise((900, 150), 90).convert("RGB").save(folder / "fox.png")
    assert look(folder)["ratio"].names == ("fox.png",)
    Edits(folder).set("focus", {"fox.png": (0.2, 0.5)})
    assert "ratio" not in look(folder)


def test_frames_that_are_not_cut_off(folder: Path) -> None:
    framed = Image.new("RGB", (240, 200), "white")
    framed.paste(Image.open(folder / "fox.png"), (40, 20))
    framed.save(folder / "fox.png")
    assert look(folder)["border"].names == ("fox.png",)
    Edits(folder).set("crops", {"fox.png": (0.25, 0.15, 0.6, 0.6)})
    assert "border" not in look(folder)


def test_captions_and_pictures_that_do_not_pair(folder: Path) -> None:
    Image.effect_noise((150, 150), 90).convert("RGB").save(folder / "fox.jpg")
    (folder / "nobody.txt").write_text("gone\n", encoding="utf-8")
    found = look(folder)
    assert found["shared"].groups == (("fox.jpg", "fox.png"),)
    assert found["lone"].names == ("nobody.txt",)
    assert not found["shared"].mend
    assert not found["lone"].mend


def test_too_few_and_too_many_for_the_plan(folder: Path) -> None:
    assert look(folder, steps=24)["many"].sentence.startswith("Each picture is seen only about 2.0 times")
    assert look(folder, steps=24, batch=4) == {}
    assert look(folder, steps=6000)["few"].sentence.startswith("Each picture is seen about 500 times")
    for subject in SUBJECTS[3:]:
        (folder / f"{subject}.png").unlink()
        (folder / f"{subject}.txt").unlink()
    found = look(folder)
    assert found.keys() == {"few"}
    assert found["few"].sentence.startswith("3 pictures are hardly enough")


def test_pictures_of_one_shape(folder: Path) -> None:
    for subject in SUBJECTS:
        Image.effect_noise((160, 120), 90).convert("RGB").save(folder / f"{subject}.png")
    assert look(folder)["turned"].sentence.startswith("All pictures are wider than tall")


def test_what_does_nothing_is_told_too(folder: Path) -> None:
    (folder / "dataset.toml").write_text('trigger = "vellorn"\n[repeats]\n"gone.png" = 2\n', encoding="utf-8")
    assert "gone.png" in look(folder)["idle"].sentence


def test_what_is_not_measured_yet_is_left_out(folder: Path) -> None:
    (folder / "copy.png").write_bytes((folder / "fox.png").read_bytes())
    dataset = Dataset.open(folder)
    found = findings(dataset, validated({"resolution": 128}), Measured(dataset, folder / "cache"))
    assert [each.kind for each in found] == ["bare"]


def test_an_empty_dataset_has_none(tmp_path: Path) -> None:
    assert look(tmp_path) == {}
