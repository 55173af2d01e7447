"""`impasto add` and `check`: what is told of a dataset, to a person and as JSON; it is changed only where that is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainer.data.dataset import Dataset
from trainer.data.editing.edits import Edits
from trainer.home import Home


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "style"
    folder.mkdir()
    for number in range(12):
        Image.effect_noise((160, 130), 90).convert("RGB").save(folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text(f"thing{number}\n", encoding="utf-8")
    for number in range(5):
        (folder / f"copy {number}.png").write_bytes((folder / "00.png").read_bytes())
    (folder / "dataset.toml").write_text('trigger = "vellorn"\n', encoding="utf-8")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


AT_128 = ("--set", "resolution=128", "--set", "steps=240")


def test_a_person_is_told_what_where_and_what_to_do(impasto: Any, dataset: Path) -> None:
    before = files(dataset)
    told = impasto("check", dataset, *AT_128)
    assert told.code == 0
    lines = told.out.splitlines()
    at = next(
        at for at, line in enumerate(lines) if line.startswith("Exact copies: 5 pictures are exact copies of another one")
    )
    assert lines[at + 1] == "  00.png, copy 0.png, copy 1.png, copy 2.png and 2 more"
    assert lines[at + 3] == "  Keep one of each: --mend duplicate"
    assert lines[-2].startswith("17 pictures at a resolution of 128: 17 at 128x128. Crops leave out ")
    assert lines[-1] == "240 steps show each picture about 14.1 times."
    assert files(dataset) == before


def test_json_is_one_object(impasto: Any, dataset: Path) -> None:
    told = impasto("check", dataset, *AT_128, "--json").json
    assert told.keys() == {
        "dataset", "pictures", "mended", "findings", "resolution", "buckets", "cropped", "steps", "passes",
    }  # fmt: skip
    assert (told["pictures"], told["buckets"], told["steps"], told["passes"]) == (17, {"128x128": 17}, 240, 14.12)
    there = {finding["kind"]: finding for finding in told["findings"]}
    assert there.keys() == {"duplicate", "bare", "turned"}
    assert there["duplicate"]["groups"] == [["00.png", *(f"copy {number}.png" for number in range(5))]]


def test_mending_is_told_and_can_be_undone(impasto: Any, dataset: Path) -> None:
    before = files(dataset)
    told = impasto("check", dataset, *AT_128, "--mend", "duplicate", "--mend", "blurred", "--json").json
    assert told["mended"] == [
        "5 pictures were moved into the folder removed, and 1 was kept.",
        "Nothing of this is left to mend in style (blurred).",
    ]
    assert [finding["kind"] for finding in told["findings"]] == ["turned"]
    Edits(dataset).undo()
    assert {name: content for name, content in files(dataset).items() if not name.startswith(".impasto")} == before


def test_without_a_base_it_is_for_sdxl(impasto: Any, dataset: Path) -> None:
    assert impasto("check", dataset, "--json").json["resolution"] == 1024
    assert impasto("check", dataset, "--base", "starter", "--json").json["resolution"] == 128


def test_the_second_time_nothing_is_measured(impasto: Any, dataset: Path) -> None:
    assert "measuring pictures" in impasto("check", dataset).err
    assert impasto("check", dataset).err == ""


@pytest.mark.parametrize("what", ["nowhere", "a file", "empty"])
def test_a_bad_folder_is_one_sentence(impasto: Any, tmp_path: Path, what: str) -> None:
    folder = tmp_path / what
    if what == "a file":
        folder.write_text("", encoding="utf-8")
    elif what == "empty":
        folder.mkdir()
    told = impasto("check", folder)
    assert told.code == 1
    assert what in told.sentence


def test_a_folder_of_damaged_pictures_can_be_mended(impasto: Any, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"")
    told = impasto("check", folder)
    assert told.code == 0
    assert told.out.startswith("Damaged pictures: 1 file cannot be used")
    assert impasto("check", folder, "--mend", "damaged").out.startswith("1 picture was moved into the folder removed.")


def test_a_dataset_goes_by_the_name_that_the_page_shows(
    impasto: Any, dataset: Path, toy_base: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kept = home.datasets / "kept"
    shutil.copytree(dataset, kept)
    Image.new("RGB", (32, 32), "red").save(tmp_path / "new.png")
    assert impasto("check", "kept", *AT_128, "--json").json["dataset"] == str(kept)
    assert impasto("check", "kept", *AT_128, "--mend", "duplicate").code == 0
    assert not (kept / "copy 0.png").exists()
    assert impasto("add", "kept", "new.png").out == f"1 picture was added to {kept}.\n"
    assert impasto("caption", "kept", "--json").json["written"] == {"new.png": "new"}
    assert impasto("plan", "kept", "--base", toy_base).code == 0

    (tmp_path / "kept").mkdir()
    assert impasto("add", "kept", "new.png", "--json").json["dataset"] == "kept"
    assert impasto("add", "other", "new.png", "--json").json["dataset"] == "other"
    assert [path.name for path in home.datasets.iterdir()] == ["kept"]


@pytest.mark.parametrize("command", ["check", "caption", "plan"])
def test_a_name_that_is_nowhere_is_told_with_both_places(
    impasto: Any, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    told = impasto(command, "nowhere")
    assert told.code == 1
    assert told.sentence.startswith(
        f"The dataset folder nowhere does not exist, nor is there a dataset of that name in {home.datasets}: give a folder"
    )


@pytest.mark.parametrize("command", ["check", "plan"])
def test_a_folder_of_folders_is_to_be_added(impasto: Any, dataset: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "set").mkdir()
    dataset.rename(tmp_path / "set" / "10_ink")
    told = impasto(command, tmp_path / "set")
    assert told.code == 1
    assert f"`impasto add DATASET {tmp_path / 'set'}`" in told.sentence
    assert "such as 10_ink/" in told.sentence
    (tmp_path / "set" / "10_ink").rename(tmp_path / "set" / "removed")
    assert "There is no picture to train on" in impasto(command, tmp_path / "set").sentence


def test_wrong_usage(impasto: Any, dataset: Path) -> None:
    assert impasto("check", dataset, "--mend", "leak").code == 2
    assert impasto("check", dataset, "--set", "nonsense=1").code == 1


# Adding --------------------------------------------------------------------------------------------------------------------


def test_files_are_added_and_what_is_not_is_told(impasto: Any, tmp_path: Path) -> None:
    given = tmp_path / "10_ink"
    given.mkdir()
    Image.new("RGB", (32, 32), "red").save(given / "a.png")
    Image.new("RGB", (32, 32), "blue").save(given / "b.bmp")
    (given / "a.txt").write_text("a boat", encoding="utf-8")
    (given / "c.jpg").write_bytes(b"")
    told = impasto("add", tmp_path / "style", given)
    assert told.code == 1
    assert told.out.splitlines() == [
        "c.jpg is empty, it has 0 bytes: copy the picture again.",
        f"2 pictures were added to {tmp_path / 'style'}.",
        "  b.png: from BMP to PNG",
    ]
    dataset = Dataset.open(tmp_path / "style")
    assert [(each.path.name, each.caption) for each in dataset.pictures] == [("a.png", "a boat"), ("b.png", "")]
    assert dataset.repeats == {"a.png": 10, "b.png": 10}


def test_what_is_added_is_told_as_json(impasto: Any, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    told = impasto("add", tmp_path / "style", tmp_path / "a.png", "--json")
    assert (told.code, told.json) == (0, {"dataset": str(tmp_path / "style"), "added": {"a.png": []}, "refused": []})
