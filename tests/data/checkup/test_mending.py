"""Mends: each is one change, does what its button says to the pictures it is for, and is undone to the byte."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.data.photographs import blurred, compressed, enlarged, framed, photograph
from trainer.data import captions
from trainer.data.checkup import mending
from trainer.data.checkup.finding import KINDS, Finding
from trainer.data.checkup.findings import findings
from trainer.data.checkup.measures import Measured
from trainer.data.checkup.mending import MENDABLE, mend
from trainer.data.dataset import Dataset
from trainer.data.editing.edits import JOURNAL, Edits
from trainer.errors import DatasetError, UsageError
from trainer.settings_text import validated

SETTINGS = validated({"resolution": 384})


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spoilt") / "style"
    folder.mkdir()
    pictures = [photograph(seed, (448, 384)) for seed in range(7)]
    files = {
        "good.png": pictures[0], "good too.png": pictures[1], "similar.png": compressed(pictures[1], 95),
        "small.png": pictures[2].crop((0, 0, 200, 200)), "upscaled.png": enlarged(pictures[3], 3),
        "blurred.png": blurred(pictures[4], 3), "blocks.png": compressed(pictures[5], 12),
        "border.png": framed(pictures[6], (40, 20, 0, 0), (0, 0, 0)),
    }  # fmt: skip
    for name, picture in files.items():
        picture.save(folder / name, compress_level=1)
        (folder / name).with_suffix(".txt").write_text(f"a {name[:-4]} thing\n", encoding="utf-8")
    for name in ("duplicate.png", "red house.png"):
        (folder / name).write_bytes((folder / "good.png").read_bytes())
    (folder / "red house.png").write_bytes(b"")
    Image.effect_noise((500, 600), 80).save(folder / "a red fox 2.png")
    (folder / "good too.txt").write_text("an oil painting of a lake\n", encoding="utf-8")
    (folder / "good.txt").write_bytes("a café".encode("latin-1"))
    (folder / "duplicate.txt").write_bytes("a café".encode("utf-16"))
    return folder


@pytest.fixture
def folder(spoilt: Path, tmp_path: Path) -> Path:
    """A dataset in which something of every kind can be mended, in the picture of that name."""
    return Path(shutil.copytree(spoilt, tmp_path / "style"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a dataset but the journal."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".impasto"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def kinds(folder: Path) -> dict[str, tuple[str, ...]]:
    dataset = Dataset.open(folder)
    measured = Measured(dataset, folder.parent / "cache")
    list(measured)
    return {each.kind: each.names for each in findings(dataset, SETTINGS, measured)}


def mended(folder: Path, kind: str, names: list[str] | None = None) -> str:
    return mend(kind, names, Edits(folder), SETTINGS, folder.parent / "cache")


GONE = {
    "damaged": {"red house.png"}, "duplicate": {"duplicate.png", "duplicate.txt"}, "similar": {"similar.png", "similar.txt"},
    **{kind: {f"{kind}.png", f"{kind}.txt"} for kind in ("small", "upscaled", "blurred", "blocks")},
}  # fmt: skip
"""What of the dataset a mend takes out."""


@pytest.mark.parametrize("kind", MENDABLE)
def test_a_mend_is_one_change_and_is_undone_to_the_byte(folder: Path, kind: str) -> None:
    before = contents(folder)
    assert kind in kinds(folder)
    said = mended(folder, kind)
    after = contents(folder)
    assert said.endswith(".")
    assert after != before
    assert kind not in kinds(folder)
    for name in GONE.get(kind, set()):
        assert after[f"removed/{name}"] == before[name]
    stays = before.keys() - GONE.get(kind, set())
    assert {name for name in after if "/" not in name} - {"dataset.toml", "a red fox 2.txt"} == stays
    Edits(folder).undo()
    assert contents(folder) == before
    assert Edits(folder).last is None


def test_a_frame_is_cut_off_by_a_crop(folder: Path) -> None:
    mended(folder, "border")
    left, top, right, bottom = Dataset.open(folder).crops["border.png"]
    assert (left * 488, top * 404) == pytest.approx((42, 22))
    assert (right, bottom) == (1, 1)


def test_captions_are_rewritten_as_they_were_read(folder: Path) -> None:
    assert mended(folder, "encoding") == "2 captions were rewritten as UTF-8."
    for name in ("good.txt", "duplicate.txt"):
        assert (folder / name).read_bytes() == "a café\n".encode()


def test_words_of_a_style_are_left_out(folder: Path) -> None:
    assert mended(folder, "style") == "1 caption was left without the words of a style."
    assert (folder / "good too.txt").read_text(encoding="utf-8") == "a lake\n"


def test_captions_come_from_names_that_are_words(folder: Path) -> None:
    (folder / "0815.png").write_bytes((folder / "small.png").read_bytes())
    assert mended(folder, "bare") == "1 caption was taken from the file's name."
    assert captions.read(folder / "a red fox 2.txt") == "a red fox"
    assert not (folder / "0815.txt").exists()


def test_only_the_pictures_that_are_named(folder: Path) -> None:
    for number in range(3):
        (folder / f"copy {number}.png").write_bytes((folder / "good too.png").read_bytes())
    mended(folder, "duplicate", ["copy 0.png", "copy 2.png", "good.png", "blurred.png"])
    assert {"copy 0.png", "copy 1.png", "good.png", "duplicate.png", "blurred.png"} <= contents(folder).keys()
    assert "copy 2.png" not in contents(folder)


def test_one_of_a_group_alone_is_left(folder: Path) -> None:
    with pytest.raises(DatasetError, match="Nothing of this"):
        mended(folder, "duplicate", ["duplicate.png"])


def test_no_dataset_is_emptied(folder: Path) -> None:
    with pytest.raises(DatasetError, match="Nothing of this"):
        mend("small", None, Edits(folder), validated({"resolution": 2048}), folder.parent / "cache")


def test_what_is_no_finding_any_more_is_left_alone(folder: Path) -> None:
    (folder / "blurred.png").write_bytes((folder / "small.png").read_bytes())
    with pytest.raises(DatasetError, match=r"Nothing of this is left to mend in style \(blurred\)\."):
        mended(folder, "blurred", ["blurred.png"])
    with pytest.raises(DatasetError, match="Nothing of this"):
        mended(folder, "upscaled", ["good.png"])
    assert not (folder / JOURNAL).exists()


def test_a_good_picture_that_took_a_damaged_ones_place_is_not_moved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = (folder / "good.png").read_bytes()
    for name in ("similar.png", "small.png"):
        (folder / name).write_bytes(good[: len(good) // 2])

    def found_and_then_replaced(*given: Any) -> list[Finding]:
        there = findings(*given)
        for name in ("red house.png", "small.png"):
            (folder / name).write_bytes(good)
        return there

    monkeypatch.setattr(mending, "findings", found_and_then_replaced)
    assert mended(folder, "damaged") == "1 picture was moved into the folder removed."
    assert (folder / "red house.png").read_bytes() == (folder / "small.png").read_bytes() == good
    assert (folder / "removed" / "similar.png").exists()
    (folder / "red house.png").write_bytes(b"")
    with pytest.raises(DatasetError, match="Nothing of this is left to mend"):
        mended(folder, "damaged")


def test_other_kinds_are_for_a_person(folder: Path) -> None:
    for kind in (*KINDS.keys() - set(MENDABLE), "nonsense"):
        with pytest.raises(UsageError, match="cannot be mended by itself"):
            mended(folder, kind)
