"""Whatever a person drops: the pictures in it, and what belongs to each."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from pathlib import Path

import pytest

from tests.data.test_dataset import mask, picture
from trainer.data.arrival.pile import Entry, Pile, found


def texts(folder: Path, **of: str) -> None:
    for stem, text in of.items():
        (folder / f"{stem}.txt").write_text(text, encoding="utf-8")


def captions(pile: Pile) -> dict[str, str | None]:
    return {entry.path.parent.name + "/" + entry.name: entry.caption for entry in pile.entries}


def test_a_folder_is_searched_to_its_depths_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b/d.png", "b/c/e.png", "a.png", "F.png", ".hidden/g.png", "__MACOSX/h.png"):
        picture(tmp_path / "given" / name)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "a_1024x1024_sdxl.npz"):
        (tmp_path / "given" / name).write_bytes(b"anything")
    pile = found([tmp_path / "given"])
    assert [entry.name for entry in pile.entries] == ["a.png", "e.png", "d.png", "F.png"]
    assert pile.refused == ()


def test_a_file_that_is_given_twice_is_found_once(tmp_path: Path) -> None:
    only = picture(tmp_path / "given" / "a.png")
    assert found([only, tmp_path / "given", only]) == Pile((Entry(only, "a.png"),), ())


def test_captions_of_either_suffix(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / name)
    texts(tmp_path, a="from txt")
    (tmp_path / "a.caption").write_text("from caption", encoding="utf-8")
    (tmp_path / "b.caption").write_text("from caption", encoding="utf-8")
    pile = found([tmp_path])
    assert [entry.caption for entry in pile.entries] == ["from txt", "from caption", None]
    assert [refusal.name for refusal in pile.refused] == ["a.caption"]


def test_pictures_of_one_name_in_two_folders_keep_their_own_captions(tmp_path: Path) -> None:
    for room in ("1", "2", "3"):
        picture(tmp_path / room / "a.png")
    texts(tmp_path / "1", a="first")
    texts(tmp_path / "2", a="second")
    pile = found([tmp_path])
    assert captions(pile) == {"1/a.png": "first", "2/a.png": "second", "3/a.png": None}
    assert pile.refused == ()


def test_a_caption_that_could_belong_to_several_is_told_of(tmp_path: Path) -> None:
    given = [picture(tmp_path / "p" / "a.png")]
    for room in ("1", "2"):
        (tmp_path / room).mkdir()
        texts(tmp_path / room, a=room)
        given.append(tmp_path / room / "a.txt")
    pile = found(given)
    assert [entry.caption for entry in pile.entries] == [None]
    assert [refusal.reason for refusal in pile.refused] == [
        "a.txt is a caption, but it is not certain of which picture: drop both together."
    ] * 2


def test_a_caption_alone_is_told_of(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    texts(tmp_path, b="of nothing")
    assert [refusal.name for refusal in found([tmp_path]).refused] == ["b.txt"]


def test_what_is_too_long_for_a_caption_is_left_out(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(b"a" * 1_000_001)
    [entry] = found([tmp_path]).entries
    assert (entry.caption, entry.notes) == (None, ("a.txt is too long for a caption and was left out",))


@pytest.mark.parametrize(
    ("folder", "repeats"),
    [
        ("10_cat", 10),
        ("1_cat", 1),
        ("100_cat", 100),
        ("101_cat", 1),
        ("2024_cat", 1),
        ("0_cat", 1),
        ("cat_10", 1),
        ("10cat", 1),
    ],
)
def test_kohyas_folders_say_how_often(tmp_path: Path, folder: str, repeats: int) -> None:
    picture(tmp_path / "img" / folder / "a.png")
    assert [entry.repeats for entry in found([tmp_path / "img"]).entries] == [repeats]
    assert [entry.repeats for entry in found([tmp_path / "img" / folder]).entries] == [repeats]


def test_captions_that_a_list_has_yield_to_a_pictures_own(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / "img" / name)
    texts(tmp_path / "img", a="its own", c="")
    listed = {name: {"caption": f"listed {name}"} for name in ("img/a.png", "img/b.png", "c")}
    (tmp_path / "meta.json").write_text(json.dumps(listed), encoding="utf-8")
    pile = found([tmp_path / "img", tmp_path / "meta.json"])
    assert captions(pile) == {"img/a.png": "its own", "img/b.png": "listed img/b.png", "img/c.png": "listed c"}


def test_each_folder_has_its_own_list(tmp_path: Path) -> None:
    for room in ("one", "two"):
        picture(tmp_path / room / "0001.png")
        line = {"file_name": "0001.png", "text": room}
        (tmp_path / room / "metadata.jsonl").write_text(json.dumps(line), encoding="utf-8")
    assert captions(found([tmp_path])) == {"one/0001.png": "one", "two/0001.png": "two"}


def test_a_list_that_is_damaged_is_told_of(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text("{", encoding="utf-8")
    pile = found([tmp_path])
    assert len(pile.entries) == 1
    assert pile.refused[0].reason.startswith("metadata.jsonl is not valid in line 1")


def test_masks_beside_and_from_afar(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png", "d.png"):
        picture(tmp_path / "img" / name)
    far = mask(tmp_path / "far" / "a-masklabel.png")
    beside, own = mask(tmp_path / "img" / "b.mask.png"), mask(tmp_path / "img" / "masks" / "c.mask.png")
    lone = mask(tmp_path / "far" / "e.mask.png")
    pile = found([tmp_path / "img", far, lone])
    assert [entry.mask for entry in pile.entries] == [far, beside, own, None]
    assert [refusal.name for refusal in pile.refused] == ["e.mask.png"]


def test_a_dataset_of_ours_is_read_as_such(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "originals/a.tif", "originals/lone.png", "removed/c.png"):
        picture(tmp_path / "set" / name)
    (tmp_path / "set" / "dataset.toml").write_text(
        'trigger = "vellorn"\n[repeats]\n"a.png" = 3\n[weights]\n"b.png" = 0.5\n"gone.png" = 2\n', encoding="utf-8"
    )
    pile = found([tmp_path / "set"])
    by_name = {entry.name: entry for entry in pile.entries}
    assert set(by_name) == {"a.png", "b.png", "lone.png"}
    assert (by_name["a.png"].original, by_name["b.png"].original) == (tmp_path / "set" / "originals" / "a.tif", None)
    assert (by_name["a.png"].repeats, by_name["b.png"].about) == (3, {"weights": 0.5})
    assert pile.trigger == "vellorn"
    assert [refusal.name for refusal in pile.refused] == ["removed"]
    assert [entry.name for entry in found([tmp_path / "set" / "removed"]).entries] == ["c.png"]


def test_a_folder_that_is_called_originals_is_a_folder_like_any_other(tmp_path: Path) -> None:
    picture(tmp_path / "originals" / "a.png")
    assert len(found([tmp_path / "originals"]).entries) == len(found([tmp_path]).entries) == 1


@pytest.mark.parametrize("content", ["no toml", "[repeats]\n'a.png' = 0", "weights = 3", "[crops]\n'a.png' = [1, 2]"])
def test_a_dataset_toml_that_no_training_could_read_is_told_of(tmp_path: Path, content: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "dataset.toml").write_text(content, encoding="utf-8")
    pile = found([tmp_path])
    assert (len(pile.entries), [refusal.name for refusal in pile.refused]) == (1, ["dataset.toml"])


def test_a_zip_is_a_folder(tmp_path: Path) -> None:
    picture(tmp_path / "10_cat" / "a.png")
    texts(tmp_path / "10_cat", a="a house")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        for path in (tmp_path / "10_cat").iterdir():
            opened.write(path, f"10_cat/{path.name}")
        opened.writestr("../evil.png", b"evil")
    (tmp_path / "scratch").mkdir()
    pile = found([tmp_path / "a.zip"], tmp_path / "scratch")
    assert [(entry.name, entry.caption, entry.repeats) for entry in pile.entries] == [("a.png", "a house", 10)]
    assert [refusal.name for refusal in pile.refused] == ["evil.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="has neither")
def test_pipes_and_links_in_a_circle_hold_nobody_up(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    (tmp_path / "in" / "circle.png").symlink_to("circle.png")
    pile = found([tmp_path / "in", tmp_path / "in" / "pipe.png"], tmp_path / "scratch")
    assert [entry.name for entry in pile.entries] == ["a.png", "circle.png", "pipe.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
@pytest.mark.parametrize(
    "name", ["a.txt", "a.mask.png", "masks/a.mask.png", "dataset.toml", "metadata.jsonl", "originals/a.bmp"]
)
def test_nothing_that_belongs_to_a_picture_is_read_through_a_link(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    link = tmp_path / "in" / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / "secret")
    pile = found([tmp_path / "in"])
    assert [entry for entry in pile.entries if entry.path.name == "a.png"] == [Entry(tmp_path / "in" / "a.png", "a.png")]
    assert [refusal.reason for refusal in pile.refused] == [
        f"{link.name} is a link to somewhere else and was not followed: drop what it leads to."
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_no_mask_is_taken_from_a_folder_that_is_a_link(tmp_path: Path) -> None:
    mask(tmp_path / "elsewhere" / "a.mask.png")
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "masks").symlink_to(tmp_path / "elsewhere")
    assert found([tmp_path / "in"]).entries == (Entry(tmp_path / "in" / "a.png", "a.png"),)


def test_a_name_as_long_as_a_disk_takes_it(tmp_path: Path) -> None:
    picture(tmp_path / f"{'ü' * 125}a.png")  # 255 bytes; `.caption` would be longer
    assert len(found([tmp_path]).entries) == 1


def test_folders_within_folders_have_an_end(tmp_path: Path) -> None:
    deepest = tmp_path.joinpath(*"x" * 31)
    picture(deepest / "a.png")
    picture(deepest.parent / "b.png")
    pile = found([tmp_path])
    assert [entry.name for entry in pile.entries] == ["b.png"]
    assert [refusal.reason for refusal in pile.refused] == ["The folder x lies more than 30 folders deep: drop it alone."]


def test_a_zip_by_another_name_is_one_by_content(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.png", "w") as opened:
        opened.write(picture(tmp_path / "b.png"), "b.png")
    assert [entry.name for entry in found([tmp_path / "a.png"], tmp_path / "scratch").entries] == ["b.png"]


def test_a_zip_in_a_folder_is_told_of(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr("a.png", b"a")
    assert [refusal.reason for refusal in found([tmp_path], tmp_path / "scratch").refused] == [
        "a.zip is an archive in a folder: drop it alone, or unpack it."
    ]


def test_a_document_in_a_folder_is_no_archive_to_drop_alone(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.procreate", "w") as opened:
        opened.writestr("Document.archive", b"bplist00")
        opened.writestr("QuickLook/Thumbnail.png", b"p")
    (tmp_path / "b.docx").write_bytes(b"PK\3\4 and no more")
    document, damaged = (refusal.reason for refusal in found([tmp_path], tmp_path / "scratch").refused)
    assert document == "a.procreate is not a picture but a Procreate file: export it as PNG or JPEG."
    assert damaged.startswith("b.docx is by its name a Word document, but damaged (")


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini"])
def test_what_systems_put_among_pictures_is_passed_over_alone_too(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    assert found([tmp_path / name]) == Pile((), ())


def test_a_folder_or_zip_without_pictures_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr(".hidden/a.png", b"a")
    pile = found([tmp_path / "empty", tmp_path / "a.zip"], tmp_path / "scratch")
    assert [refusal.reason for refusal in pile.refused] == [
        "There is no picture in empty: drop another folder or zip.",
        "There is no picture in a.zip: drop another folder or zip.",
    ]
