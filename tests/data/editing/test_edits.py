"""Changes of a dataset: told apart from others' changes, and taken back to the byte."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from trainer.data import captions
from trainer.data.dataset import Dataset
from trainer.data.editing import bulk, edits, journal, turns
from trainer.data.editing.edits import CaptionConflict, Edits, Undone
from trainer.errors import DatasetError, StorageError

NAMES = ("a.png", "b.png", "c.jpg")
ABOUT = '# mine\ntrigger = "vellorn"\n\n[repeats]\n"a.png" = 3 # often\n"b.png" = 2\n'


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here loses power."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def made(folder: Path) -> Path:
    """Three pictures; a caption with a BOM, one in UTF-16 and one in Latin-1 on two lines; masks; `dataset.toml`."""
    folder.mkdir()
    for name in NAMES:
        Image.new("RGB", (16, 24), "red").save(folder / name)
    (folder / "a.txt").write_bytes("\ufeffa house".encode())
    (folder / "b.txt").write_bytes("a boat".encode("utf-16"))
    (folder / "c.txt").write_bytes("caf\xe9\r\nat sea".encode("latin-1"))
    (folder / "masks").mkdir()
    (folder / "masks" / "a.mask.png").write_bytes(b"\x89 a mask")
    (folder / "a-masklabel.png").write_bytes(b"\x89 another mask")
    (folder / "dataset.toml").write_text(ABOUT, encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The same for a test."""
    return made(tmp_path / "set")


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a dataset but those of `Edits` itself."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".impasto"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def seen(folder: Path) -> dict[str, bytes]:
    """What other programs take for the dataset."""
    return {path: held for path, held in content(folder).items() if not path.startswith(("removed/", "originals/"))}


# One caption ------------------------------------------------------------------------------------------------------------


def test_a_caption_is_written_where_it_says_what_was_thought(folder: Path) -> None:
    Edits(folder).caption("a.png", "a house", "a red house")
    assert (folder / "a.txt").read_bytes() == b"a red house\n"


def test_a_caption_that_is_not_there_yet_says_nothing(folder: Path) -> None:
    (folder / "a.txt").unlink()
    Edits(folder).caption("a.png", "", "a house")
    assert (folder / "a.txt").read_bytes() == b"a house\n"
    Edits(folder).undo()
    assert not (folder / "a.txt").exists()


def test_a_caption_that_somebody_else_changed_stays(folder: Path) -> None:
    Edits(folder).caption("a.png", "a house", "a hut")
    with pytest.raises(CaptionConflict, match=r"caption of a\.png was changed meanwhile.*“a hut”") as caught:
        Edits(folder).caption("a.png", "a house", "a tower")
    assert caught.value.current == "a hut" == captions.read(folder / "a.txt")
    assert Edits(folder).version == 1


def test_the_same_text_twice_is_no_conflict_and_one_change(folder: Path) -> None:
    for _ in range(2):
        Edits(folder).caption("a.png", "a house", "a hut")
    assert Edits(folder).version == 1


@pytest.mark.parametrize("text", ["\ufeffa hut", "\0", "a  hut", "two\nlines"])
def test_a_text_that_is_kept_in_its_own_way_is_one_change_too(folder: Path, text: str) -> None:
    for was in ("a house", text):
        Edits(folder).caption("a.png", was, text)
    assert Edits(folder).version == 1


def test_blanks_at_the_ends_are_no_conflict(folder: Path) -> None:
    Edits(folder).caption("a.png", " a house\n", "a house in ")
    Edits(folder).caption("a.png", "a house in ", "a house in snow")
    assert captions.read(folder / "a.txt") == "a house in snow"


def test_the_same_text_in_another_encoding_is_written_anew(folder: Path) -> None:
    Edits(folder).caption("b.png", "a boat", "a boat")
    assert (folder / "b.txt").read_bytes() == b"a boat\n"
    Edits(folder).undo()
    assert (folder / "b.txt").read_bytes() == "a boat".encode("utf-16")


@pytest.mark.parametrize(
    "name", ["gone.png", "../set/a.png", "masks/a.mask.png", "a-masklabel.png", "dataset.toml", ".a.png", ""]
)
def test_what_is_no_picture_of_the_dataset_gets_no_caption(folder: Path, name: str) -> None:
    before = content(folder)
    with pytest.raises(DatasetError, match="is not in the dataset set any more"):
        Edits(folder).caption(name, "", "a house")
    assert content(folder) == before


def test_half_a_character_changes_nothing(folder: Path) -> None:
    before = content(folder)
    with pytest.raises(DatasetError, match="half a character"):
        Edits(folder).caption("a.png", "a house", "\udc00")
    with pytest.raises(DatasetError, match="half a character"):
        Edits(folder).captions({"b.png": ("a boat", "a ship"), "a.png": ("a house", "\udc00")}, "two")
    with pytest.raises(DatasetError, match="half a character"):
        Edits(folder).trigger("vellorn", "\udc00")
    assert content(folder) == before


# Several pictures -------------------------------------------------------------------------------------------------------


def test_many_captions_are_one_change_without_those_in_conflict(folder: Path) -> None:
    before = content(folder)
    texts = {
        "a.png": ("a house", "a hut"),
        "b.png": ("a ship", "a raft"),
        "c.jpg": ("café at sea", "a café"),
        "d.png": ("", "x"),
    }
    assert Edits(folder).captions(texts, "three captions") == ["b.png", "d.png"]
    assert [captions.read(folder / f"{stem}.txt") for stem in "abc"] == ["a hut", "a boat", "a café"]
    assert Edits(folder).last == "three captions"
    assert Edits(folder).undo() == Undone("three captions", ("a.png", "c.jpg"))
    assert content(folder) == before


def test_two_pictures_with_one_caption_agree_or_conflict(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder / "a.webp")
    both = {"a.png": ("a house", "a hut"), "a.webp": ("a house", "a hut")}
    assert Edits(folder).captions(both, "both") == []
    assert Edits(folder).captions({"a.png": ("a hut", "one"), "a.webp": ("a hut", "other")}, "both") == ["a.webp"]
    assert captions.read(folder / "a.txt") == "one"
    Edits(folder).undo()
    assert Edits(folder).undo() == Undone("both", ("a.png", "a.webp"))


def test_a_removed_picture_goes_with_all_that_belongs_to_it_and_comes_back(folder: Path) -> None:
    before = content(folder)
    Edits(folder).remove(["a.png", "a.png", "gone.png"])
    assert [picture.path.name for picture in Dataset.open(folder).pictures] == ["b.png", "c.jpg"]
    assert set(content(folder / "removed")) == {"a.png", "a.txt", "a.mask.png", "a-masklabel.png"}
    assert Dataset.open(folder).repeats == {"b.png": 2}
    assert Edits(folder).last == "removal of a.png"
    assert Edits(folder).undo() == Undone("removal of a.png", ("a.png",))
    assert content(folder) == before


def test_a_caption_stays_with_the_other_picture_of_its_name(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder / "a.webp")
    Edits(folder).remove(["a.webp"])
    assert captions.read(folder / "a.txt") == "a house"
    Edits(folder).undo()
    Edits(folder).remove(["a.webp", "a.png"])
    assert not (folder / "a.txt").exists()
    assert captions.read(folder / "removed" / "a.txt") == "a house"


def test_pictures_of_one_name_are_removed_one_after_the_other(folder: Path) -> None:
    Edits(folder).remove(["a.png"])
    Image.new("RGB", (8, 8), "blue").save(folder / "a.png")
    (folder / "a.txt").write_text("a sky", encoding="utf-8")
    before = content(folder)
    Edits(folder).remove(["a.png"])
    assert captions.read(folder / "removed" / "a.txt") == "a house"
    assert captions.read(folder / "removed" / "a-2.txt") == "a sky"
    Edits(folder).undo()
    assert content(folder) == before


def test_a_picture_does_not_come_back_over_a_new_one_and_lends_it_no_caption(folder: Path) -> None:
    Edits(folder).remove(["a.png", "b.png"])
    Image.new("RGB", (8, 8), "blue").save(folder / "a.png")
    before = (folder / "a.png").read_bytes()
    assert Edits(folder).undo() == Undone("removal of 2 pictures", ("b.png",), ("a.png",))
    assert (folder / "a.png").read_bytes() == before
    assert not (folder / "a.txt").exists()
    assert captions.read(folder / "b.txt") == "a boat"


def test_names_as_long_as_a_disk_takes_them_can_be_changed_and_longer_ones_are_no_pictures(folder: Path) -> None:
    name = f"{'ü' * 125}a.png"  # 255 bytes
    (folder / "a.png").rename(folder / name)
    change = Edits(folder)
    change.caption(name, "", "a tower")
    change.remove([name])
    assert not (folder / name).exists()
    assert change.undo() == Undone(f"removal of {name}", (name,))
    assert captions.read((folder / name).with_suffix(".txt")) == "a tower"
    with pytest.raises(DatasetError, match="is not in the dataset"):
        change.caption(f"{'a' * 300}.png", "", "a tower")


def test_what_the_person_has_emptied_does_not_come_back(folder: Path) -> None:
    Edits(folder).remove(["b.png"])
    for path in (folder / "removed").iterdir():
        path.unlink()
    assert Edits(folder).undo() == Undone("removal of b.png", (), ("b.png",))
    assert Edits(folder).undo() is None


# What dataset.toml says -------------------------------------------------------------------------------------------------


def test_tables_and_trigger_are_set_beside_what_else_is_said(folder: Path) -> None:
    change = Edits(folder)
    change.set("crops", {"a.png": (0.1, 0, 0.9, 1)})
    change.set("focus", {"b.png": [0.3, 0.5]})
    change.set("repeats", {"a.png": None, "c.jpg": 4})
    change.set("weights", {"c.jpg": 0.5})
    change.trigger("vellorn", " old  style ")
    dataset = Dataset.open(folder)
    assert (dataset.crops, dataset.focus) == ({"a.png": (0.1, 0, 0.9, 1)}, {"b.png": (0.3, 0.5)})
    assert (dataset.repeats, dataset.weights, dataset.trigger) == ({"b.png": 2, "c.jpg": 4}, {"c.jpg": 0.5}, "old style")
    assert (folder / "dataset.toml").read_text(encoding="utf-8").startswith("# mine\n")
    assert [change.undo().what for _ in range(5)] == [  # type: ignore[union-attr]
        "trigger word", "weight of c.jpg", "repeats of 2 pictures", "focus of b.png", "crop of a.png"
    ]  # fmt: skip
    assert (folder / "dataset.toml").read_text(encoding="utf-8") == ABOUT


@pytest.mark.parametrize("trigger", ["glassy", 'with "quotes"', "back\\slash", "größe 東京"])
@pytest.mark.parametrize("before", ["", 'trigger = "old"\n', "\ufeff# mine\n", "\r\n[repeats]\r\n'01.png' = 3\r\n"])
def test_a_trigger_is_kept_as_it_is_meant(folder: Path, trigger: str, before: str) -> None:
    (folder / "dataset.toml").write_bytes(before.encode())
    Edits(folder).trigger(Dataset.open(folder).trigger, trigger)
    assert Dataset.open(folder).trigger == trigger
    assert ("# mine" in before) == ("# mine" in (folder / "dataset.toml").read_text(encoding="utf-8"))
    Edits(folder).undo()
    assert (folder / "dataset.toml").read_bytes() == before.encode()


def test_a_dataset_toml_is_made_and_taken_away_again(folder: Path) -> None:
    (folder / "dataset.toml").unlink()
    Edits(folder).set("weights", {"a.png": None})
    assert Edits(folder).version == 0
    Edits(folder).trigger("", "vellorn")
    assert Dataset.open(folder).trigger == "vellorn"
    Edits(folder).undo()
    assert not (folder / "dataset.toml").exists()


def test_a_value_that_cannot_be_is_refused_and_nothing_written(folder: Path) -> None:
    before = content(folder)
    refused: list[tuple[edits.Table, edits.Value]] = [
        ("repeats", 0),
        ("weights", 11),
        ("crops", (0.5, 0, 0.1, 1)),
        ("focus", (2, 0)),
    ]
    for table, value in refused:
        with pytest.raises(DatasetError, match=r"of a\.png must be"):
            Edits(folder).set(table, {"a.png": value})
    assert content(folder) == before
    assert Edits(folder).last is None


def test_a_trigger_that_somebody_else_changed_stays(folder: Path) -> None:
    with pytest.raises(CaptionConflict, match="trigger word was changed meanwhile") as caught:
        Edits(folder).trigger("old", "new")
    assert caught.value.current == "vellorn"


def test_a_dataset_toml_that_is_none_is_told_of(folder: Path) -> None:
    (folder / "dataset.toml").write_text("trigger =", encoding="utf-8")
    with pytest.raises(DatasetError, match="is not valid TOML"):
        Edits(folder).trigger("", "x")
    (folder / "dataset.toml").write_text("repeats = 3", encoding="utf-8")
    with pytest.raises(DatasetError, match="repeats must be a table"):
        Edits(folder).set("repeats", {"a.png": 2})


# Masks -----------------------------------------------------------------------------------------------------


def test_a_mask_is_written_and_taken_away(folder: Path) -> None:
    before, change = content(folder), Edits(folder)
    change.mask("a.png", b"\xff a third mask")
    assert (folder / "masks" / "a.mask.png").read_bytes() == b"\xff a third mask"
    change.mask("a.png", None)
    assert not (folder / "masks" / "a.mask.png").exists()
    assert not (folder / "a-masklabel.png").exists()
    change.mask("b.png", b"mask")
    assert (folder / "masks" / "b.mask.png").read_bytes() == b"mask"
    assert [change.undo().names for _ in range(3)] == [("b.png",), ("a.png",), ("a.png",)]  # type: ignore[union-attr]
    assert content(folder) == before


# Undo -------------------------------------------------------------------------------------------------------------------


def test_undo_takes_back_the_newest_first_whoever_asks(folder: Path) -> None:
    Edits(folder).caption("a.png", "a house", "one")
    Edits(folder).caption("a.png", "one", "two")
    Edits(folder).caption("b.png", "a boat", "three")
    versions = [Edits(folder).version]
    while Edits(folder).undo():
        versions.append(Edits(folder).version)
    assert versions == [3, 4, 5, 6]
    assert (folder / "a.txt").read_bytes() == "\ufeffa house".encode()


def test_a_change_after_an_undo_is_taken_back_first(folder: Path) -> None:
    change = Edits(folder)
    change.caption("a.png", "a house", "one")
    change.caption("a.png", "one", "two")
    change.undo()
    change.caption("a.png", "one", "three")
    assert [undone and captions.read(folder / "a.txt") for undone in iter(change.undo, None)] == ["one", "a house"]


def test_a_series_is_taken_back_as_one_and_no_other_with_it(folder: Path) -> None:
    Edits(folder, "automatic").caption("a.png", "a house", "zero")
    series = Edits(folder, "automatic")
    series.caption("a.png", "zero", "one")
    series.caption("b.png", "a boat", "two")
    assert Edits(folder).undo() == Undone("automatic", ("a.png", "b.png"))
    assert [captions.read(folder / name) for name in ("a.txt", "b.txt")] == ["zero", "a boat"]
    assert Edits(folder).undo() == Undone("automatic", ("a.png",))
    assert captions.read(folder / "a.txt") == "a house"


def test_a_change_by_hand_parts_a_series(folder: Path) -> None:
    series = Edits(folder, "automatic")
    series.caption("a.png", "a house", "one")
    Edits(folder).caption("a.png", "one", "by hand")
    series.caption("b.png", "a boat", "two")
    assert [undone.names for undone in iter(Edits(folder).undo, None)] == [("b.png",), ("a.png",), ("a.png",)]


def test_what_another_program_changed_meanwhile_is_not_taken_back(folder: Path) -> None:
    Edits(folder).captions({"a.png": ("a house", "one"), "b.png": ("a boat", "two")}, "both")
    (folder / "a.txt").write_text("by hand", encoding="utf-8")
    assert Edits(folder).undo() == Undone("both", ("b.png",), ("a.png",))
    assert captions.read(folder / "a.txt") == "by hand"
    assert (folder / "b.txt").read_bytes() == "a boat".encode("utf-16")


operations = st.one_of(
    st.tuples(st.just("caption"), st.sampled_from(NAMES), st.text(st.characters(exclude_categories=["Cs"]), max_size=12)),
    st.tuples(
        st.just("bulk"),
        st.sampled_from(
            [bulk.Before("red"), bulk.RemoveTag("red"), bulk.Replace("a", "\u2028e"), bulk.SortTags(), bulk.After("é")]
        ),
    ),
    st.tuples(st.just("remove"), st.sets(st.sampled_from(NAMES), min_size=1)),
    st.tuples(st.just("trigger"), st.sampled_from(["vellorn", "", "é"])),
    st.tuples(st.just("weights"), st.sampled_from(NAMES), st.sampled_from([None, 0.5, 2])),
    st.tuples(st.just("mask"), st.sampled_from(NAMES), st.sampled_from([None, b"\x89 mask"])),
)


def perform(folder: Path, kind: str, *given: Any) -> None:
    """One operation on the pictures that are there."""
    change = Edits(folder)
    there = [name for name in NAMES if (folder / name).is_file()]
    if kind == "remove":
        change.remove(given[0])
    elif kind == "trigger":
        change.trigger(Dataset(folder, (), ()).trigger, given[0])
    elif kind == "bulk":
        texts = {name: captions.read((folder / name).with_suffix(".txt")) for name in there}
        assert change.captions(bulk.changes(texts, given[0]), "all") == []
    elif kind == "weights":
        change.set("weights", {given[0]: given[1]})
    elif given[0] not in there:
        return
    elif kind == "caption":
        path = (folder / given[0]).with_suffix(".txt")
        change.caption(given[0], captions.read(path), given[1])
        assert captions.read(path) == captions.one_line(given[1])
    else:
        change.mask(*given)


@given(st.lists(operations, max_size=8))
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_was_done_is_taken_back_step_by_step(tmp_path_factory: pytest.TempPathFactory, wanted: list[Any]) -> None:
    folder = made(tmp_path_factory.mktemp("undo") / "set")
    stages = [(0, seen(folder))]
    for operation in wanted:
        perform(folder, *operation)
        if Edits(folder).version != stages[-1][0]:
            stages.append((Edits(folder).version, seen(folder)))
    for _, stage in reversed(stages[:-1]):
        undone = Edits(folder).undo()
        assert undone
        assert undone.left == ()
        assert seen(folder) == stage
    assert Edits(folder).undo() is None


# When something is in the way -------------------------------------------------------------------------------------------


def test_who_waits_too_long_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.05)
    with FileLock(folder / turns.LOCK), pytest.raises(StorageError, match="Another program has been changing"):
        Edits(folder).caption("a.png", "a house", "one")
    assert captions.read(folder / "a.txt") == "a house"


def test_a_dataset_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist any more"):
        Edits(tmp_path / "gone").trigger("", "x")
    assert not (tmp_path / "gone").exists()


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let some of the calls of `os.replace` fail from now on, each counted from 1."""

    def fail(*which: int) -> None:
        counted, replace = itertools.count(1), os.replace

        def tried(source: Any, target: Any) -> None:
            if next(counted) in which:
                raise OSError(5, "input/output error", str(source), None, str(target))
            replace(source, target)

        monkeypatch.setattr(os, "replace", tried)

    return fail


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_change_that_fails_half_way_is_taken_back_at_once(folder: Path, failing: Callable[..., None], at: int) -> None:
    before = content(folder)
    failing(at)
    texts = {"a.png": ("a house", "one"), "b.png": ("a boat", "two"), "c.jpg": ("café at sea", "three")}
    with pytest.raises(StorageError, match=rf"Could not write .*{'abc'[at - 1]}\.txt: input/output error"):
        Edits(folder).captions(texts, "all")
    assert content(folder) == before
    assert Edits(folder).last is None
    Edits(folder).captions(texts, "all")
    assert Edits(folder).last == "all"


def test_what_cannot_even_be_taken_back_is_finished_by_the_next_one(folder: Path, failing: Callable[..., None]) -> None:
    failing(2, 3)
    texts = {"a.png": ("a house", "one"), "b.png": ("a boat", "two")}
    with pytest.raises(StorageError, match="Could not write"):
        Edits(folder).captions(texts, "all")
    assert Edits(folder).last == "all"
    assert [captions.read(folder / f"{stem}.txt") for stem in "ab"] == ["one", "two"]


def test_a_folder_that_cannot_be_written_is_named_and_can_still_be_looked_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    Edits(folder).caption("a.png", "a house", "one")
    monkeypatch.setattr(FileLock, "acquire", read_only)
    with pytest.raises(StorageError, match=r"Could not write .*set: the disk is read-only"):
        Edits(folder).caption("a.png", "one", "two")
    assert (Edits(folder).last, Edits(folder).version) == ("caption of a.png", 1)


def test_a_full_disk_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    before = content(folder)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        Edits(folder).caption("a.png", "a house", "one")
    monkeypatch.setattr(os, "fsync", lambda _: None)
    assert content(folder) == before
    assert Edits(folder).last is None


# What is kept -----------------------------------------------------------------------------------------------------------


def test_only_the_newest_changes_can_be_taken_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "KEPT", 5)
    texts = ["a house", *map(str, range(23))]
    for was, text in itertools.pairwise(texts):
        Edits(folder).caption("a.png", was, text)
    assert Edits(folder).version == 23
    back = [captions.read(folder / "a.txt") for undone in iter(Edits(folder).undo, None) if undone]
    assert 5 <= len(back) <= 9, "five, and those since the journal was last shortened"
    assert back == texts[-2 : -2 - len(back) : -1]


def test_the_journal_does_not_outgrow_its_bounds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MOST_BYTES", 20_000)
    was = "a house"
    for number in range(30):
        text = f"{number} " * 500
        Edits(folder).caption("a.png", was, text)
        was = text
        assert (folder / edits.JOURNAL).stat().st_size <= 20_000
    assert Edits(folder).version == 30
    assert Edits(folder).undo() == Undone("caption of a.png", ("a.png",))
    assert captions.read(folder / "a.txt") == ("28 " * 500).strip()
