"""Captions that another file lists: kohya's metadata JSON, and `metadata.jsonl`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.data.arrival.listings import Listing
from trainer.errors import DatasetError


def kohya(folder: Path, **of: dict[str, object]) -> Listing:
    path = folder / "meta_cap.json"
    path.write_text(json.dumps({name.replace("_", "/"): about for name, about in of.items()}), encoding="utf-8")
    return Listing(path)


def lines(folder: Path, *said: object) -> Listing:
    path = folder / "metadata.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in said), encoding="utf-8")
    return Listing(path)


def test_kohyas_tags_follow_its_caption(tmp_path: Path) -> None:
    listing = kohya(
        tmp_path, both={"caption": "a cat", "tags": "cat, sitting", "train_resolution": [1, 2]}, tags={"tags": "dog"},
        many={"tags": ["a", "b"]}, none={"train_resolution": [1, 2]},
    )  # fmt: skip
    of = {name: listing.of(Path(f"{name}.png")) for name in ("both", "tags", "many", "none")}
    assert of == {"both": "a cat, cat, sitting", "tags": "dog", "many": "a, b", "none": None}


@pytest.mark.parametrize("noted", ["/home/me/img/a.png", "C:\\img\\a.png", "img/a.png", "a.png", "a", "/home/me/img/a"])
def test_a_picture_is_known_by_whatever_is_left_of_its_path(tmp_path: Path, noted: str) -> None:
    (tmp_path / "meta.json").write_text(json.dumps({noted: {"caption": "a house"}}), encoding="utf-8")
    assert Listing(tmp_path / "meta.json").of(Path("/other/img/a.png")) == "a house"
    assert Listing(tmp_path / "meta.json").of(Path("/other/img/aa.png")) is None


def test_of_two_that_fit_the_one_that_fits_better_counts(tmp_path: Path) -> None:
    listing = lines(tmp_path, {"file_name": "one/a.png", "text": "first"}, {"file_name": "two/a.png", "text": "second"})
    assert listing.of(tmp_path / "two" / "a.png") == "second"
    assert listing.of(tmp_path / "three" / "a.png") is None


@pytest.mark.parametrize("key", ["text", "caption", "prompt"])
def test_lines_of_an_image_folder(tmp_path: Path, key: str) -> None:
    listing = lines(tmp_path, {"file_name": "a.png", key: "a house"}, {"file_name": "b.png", "label": 3})
    assert (listing.of(tmp_path / "a.png"), listing.of(tmp_path / "b.png")) == ("a house", None)


def test_half_characters_become_whole_ones(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text(r'{"file_name": "a.png", "text": "x \ud83c\udfe0 \ud83c y"}', encoding="utf-8")
    assert Listing(tmp_path / "metadata.jsonl").of(Path("a.png")) == "x 🏠 � y"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "schön"}', encoding=encoding)
    assert Listing(tmp_path / "metadata.jsonl").of(Path("a.png")) == "schön"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", "{", "a.json is not valid JSON"),
        ("a.json", "[1, 2]", "a.json lists no captions"),
        ("a.json", '{"width": 3}', "a.json lists no captions"),
        ("a.json", "[" * 100_000, "a.json is not valid JSON"),
        ("a.jsonl", "", "a.jsonl lists no captions"),
        ("a.jsonl", '{"file_name": "a.png", "text": "b"}\n{"file_name": ', "a.jsonl is not valid in line 2"),
        ("a.jsonl", '{"text": "b"}', "a.jsonl names no picture in line 1"),
        ("a.jsonl", "3", "a.jsonl names no picture in line 1"),
    ],
)
def test_what_lists_no_captions_is_told_of(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DatasetError) as caught:
        Listing(tmp_path / name)
    assert str(caught.value).startswith(says)
    assert str(caught.value).endswith(".")


def test_a_path_that_is_right_from_the_files_folder_fits_best(tmp_path: Path) -> None:
    path = tmp_path / "metadata.jsonl"
    path.write_text('{"file_name": "a.png", "text": "one"}\n{"file_name": "b/a.png", "text": "two"}\n', encoding="utf-8")
    told = [Listing(path).of(tmp_path / name) for name in ("a.png", "b/a.png", "c/a.png")]
    assert told == ["one", "two", None]  # of the third it is not certain
