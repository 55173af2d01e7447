"""Whatever is dropped is in the dataset or is told of; nothing is overwritten, nothing of the person's own changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.test_dataset import mask, picture
from trainer import home
from trainer.data import intake
from trainer.data.arrival import adding, archive
from trainer.data.arrival.adding import Added, Refused, add
from trainer.data.dataset import Dataset
from trainer.data.editing.edits import Edits
from trainer.data.intake import read_picture


def add_files(folder: Path, files: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """The pictures that are in now, and the sentences of what is not."""
    told = list(add(folder, files))
    added = [folder / each.name for each in told if isinstance(each, Added)]
    return added, [each.reason for each in told if isinstance(each, Refused)]


def visible(folder: Path) -> dict[str, bytes]:
    """Every file in a folder but the hidden ones, with its content."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


# One by one ------------------------------------------------------------------------------------------------------------------


def test_added_pictures_bring_their_captions(tmp_path: Path) -> None:
    source, text = picture(tmp_path / "from" / "a.png"), tmp_path / "from" / "a.txt"
    text.write_bytes("ein Haus, schön".encode("latin-1"))
    added, refused = add_files(tmp_path / "set", [source, text])
    assert (added, refused) == ([tmp_path / "set" / "a.png"], [])
    assert Dataset.open(tmp_path / "set").pictures[0].caption == "ein Haus, schön"


def test_captions_from_another_folder_are_matched_by_name(tmp_path: Path) -> None:
    source, text = picture(tmp_path / "pictures" / "a.png"), tmp_path / "texts" / "a.txt"
    text.parent.mkdir()
    text.write_text("a house", encoding="utf-8")
    add_files(tmp_path / "set", [text, source])
    assert Dataset.open(tmp_path / "set").pictures[0].caption == "a house"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    first, second = picture(tmp_path / "1" / "a.png", colour="red"), picture(tmp_path / "2" / "a.png", colour="blue")
    add_files(tmp_path / "set", [first])
    before = (tmp_path / "set" / "a.png").read_bytes()
    added, _ = add_files(tmp_path / "set", [second])
    assert (tmp_path / "set" / "a.png").read_bytes() == before
    assert added == [tmp_path / "set" / "a-2.png"]
    assert added[0].read_bytes() == second.read_bytes()


def test_no_picture_adopts_the_caption_of_another(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.txt").write_text("of a picture that was a.jpg", encoding="utf-8")
    added, _ = add_files(tmp_path / "set", [picture(tmp_path / "a.png")])
    assert Dataset.open(tmp_path / "set").pictures[0].caption == ""
    assert added[0].stem != "a"


def test_two_formats_of_one_name_do_not_share_a_caption(tmp_path: Path) -> None:
    text = tmp_path / "1" / "a.txt"
    one, other = picture(tmp_path / "1" / "a.png"), picture(tmp_path / "2" / "a.jpg")
    text.write_text("of the first", encoding="utf-8")
    add_files(tmp_path / "set", [one])
    add_files(tmp_path / "set", [other])
    assert [entry.caption for entry in Dataset.open(tmp_path / "set").pictures] == ["", "of the first"]


def test_the_name_follows_the_content(tmp_path: Path) -> None:
    added, _ = add_files(tmp_path / "set", [picture(tmp_path / "a.jpg", form="PNG")])
    assert added[0].name == "a.png"


def test_names_become_safe(tmp_path: Path) -> None:
    added, _ = add_files(tmp_path / "set", [picture(tmp_path / "CON.png"), picture(tmp_path / "a:b * c.png")])
    assert [path.name for path in added] == ["CON-1.png", "a-b-c.png"]


def test_what_is_no_picture_is_refused_and_the_rest_is_taken(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("a letter", encoding="utf-8")
    added, refused = add_files(tmp_path / "set", [tmp_path / "bad.png", picture(tmp_path / "a.png"), tmp_path / "gone.png"])
    assert [path.name for path in added] == ["a.png"]
    assert [sentence.split()[0] for sentence in refused] == ["bad.png", "gone.png"]
    assert sorted(visible(tmp_path / "set")) == ["a.png"]


def test_a_picture_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    Image.effect_noise((200, 200), 80).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:2000])
    added, refused = add_files(tmp_path / "set", [tmp_path / "a.jpg"])
    assert added == []
    assert "damaged" in refused[0]


def test_an_added_picture_brings_its_mask(tmp_path: Path) -> None:
    source, beside = picture(tmp_path / "from" / "a.jpg"), picture(tmp_path / "from" / "b.jpg")
    far = mask(tmp_path / "masks" / "a-masklabel.png")
    mask(tmp_path / "from" / "b-masklabel.png")
    added, refused = add_files(tmp_path / "set", [far, source, beside])
    assert ([path.name for path in added], refused) == (["a.jpg", "b.jpg"], [])
    assert (tmp_path / "set" / "masks" / "a.mask.png").read_bytes() == far.read_bytes()
    assert (tmp_path / "set" / "masks" / "b.mask.png").is_file()


def test_a_mask_takes_the_new_name_of_its_picture(tmp_path: Path) -> None:
    first, second = picture(tmp_path / "1" / "a.png"), picture(tmp_path / "2" / "a.png", colour="blue")
    mask(tmp_path / "1" / "a-masklabel.png")
    add_files(tmp_path / "set", [first])
    add_files(tmp_path / "set", [second])
    assert sorted(visible(tmp_path / "set")) == ["a-2.png", "a.png", "masks/a.mask.png"]


def test_no_picture_adopts_the_mask_of_another(tmp_path: Path) -> None:
    mask(tmp_path / "set" / "a-masklabel.png")
    [added], _ = add_files(tmp_path / "set", [picture(tmp_path / "a.png")])
    assert added.stem != "a"


def test_a_mask_alone_or_damaged_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b-masklabel.png").write_text("a letter")
    given = [mask(tmp_path / "a-masklabel.png"), tmp_path / "b-masklabel.png", picture(tmp_path / "b.png")]
    added, refused = add_files(tmp_path / "set", given)
    assert [path.name for path in added] == ["b.png"]
    assert sorted(sentence.split(" is ")[0] for sentence in refused) == ["a-masklabel.png", "b-masklabel.png"]
    assert any("add it together with its picture" in sentence for sentence in refused)
    assert sorted(visible(tmp_path / "set")) == ["b.png"]


def test_a_picture_that_is_there_already_is_not_added_twice(tmp_path: Path) -> None:
    plain, deep = picture(tmp_path / "a.png"), tmp_path / "b.tif"
    Image.fromarray(np.zeros((32, 32), dtype=np.uint16)).save(deep)
    add_files(tmp_path / "set", [plain, deep])
    before = visible(tmp_path / "set")
    added, refused = add_files(tmp_path / "set", [plain, deep])
    assert added == []
    assert [reason.split(" is in the dataset already")[0] for reason in refused] == ["a.png", "b.tif"]
    assert visible(tmp_path / "set") == before
    added, _ = add_files(tmp_path / "set", [picture(tmp_path / "2" / "a.png", colour="blue")])
    assert [path.name for path in added] == ["a-2.png"]


@pytest.mark.parametrize("name", ["a.mask.bmp", "a-masklabel.bmp"])
def test_a_picture_does_not_become_a_mask_by_its_new_name(tmp_path: Path, name: str) -> None:
    add_files(tmp_path / "set", [picture(tmp_path / name)])
    assert len(Dataset.open(tmp_path / "set").pictures) == 1


def test_names_that_differ_in_case_alone_do_not_meet(tmp_path: Path) -> None:
    add_files(tmp_path / "set", [picture(tmp_path / "1" / "a.png")])
    added, _ = add_files(tmp_path / "set", [picture(tmp_path / "2" / "A.jpg")])
    assert [path.name for path in added] == ["A-2.jpg"]


def test_what_shines_through_is_kept_as_the_mask(tmp_path: Path) -> None:
    cut_out = Image.new("RGBA", (64, 32), (255, 0, 0, 0))
    cut_out.paste((255, 0, 0, 100), (32, 0, 64, 32))
    cut_out.save(tmp_path / "a.png")
    [told] = add(tmp_path / "set", [tmp_path / "a.png"], background=(0, 0, 255))
    assert isinstance(told, Added)
    assert told.notes == ("its transparency laid on #0000ff and kept as its mask",)
    with Image.open(tmp_path / "set" / "a.png") as flat, Image.open(tmp_path / "set" / "masks" / "a.mask.png") as alpha:
        assert (flat.mode, flat.getpixel((5, 5)), flat.getpixel((50, 5))) == ("RGB", (0, 0, 255), (100, 0, 155))
        assert (alpha.mode, alpha.getpixel((5, 5)), alpha.getpixel((50, 5))) == ("L", 0, 100)
    assert (tmp_path / "set" / "originals" / "a.png").read_bytes() == (tmp_path / "a.png").read_bytes()


def test_a_mask_that_was_made_counts_before_transparency(tmp_path: Path) -> None:
    Image.new("RGBA", (256, 256), (255, 0, 0, 100)).save(tmp_path / "a.png")
    made = mask(tmp_path / "a.mask.png")
    add_files(tmp_path / "set", [tmp_path / "a.png"])
    assert (tmp_path / "set" / "masks" / "a.mask.png").read_bytes() == made.read_bytes()


def test_progress_counts_every_file_once(tmp_path: Path) -> None:
    given = [picture(tmp_path / f"{number}.png") for number in range(7)]
    given[3].write_text("no picture")
    told = list(add(tmp_path / "set", [*given, tmp_path / "lone.txt", tmp_path / "gone.png"]))
    assert [(each.done, each.total) for each in told] == [(number, 9) for number in range(1, 10)]


def test_who_stops_listening_keeps_what_is_in(tmp_path: Path) -> None:
    adding_now = add(tmp_path / "set", [picture(tmp_path / f"{number:02}.png") for number in range(20)])
    first = [next(adding_now).name, next(adding_now).name]
    adding_now.close()
    assert first == ["00.png", "01.png"]
    assert set(visible(tmp_path / "set")) == {"00.png", "01.png"}
    assert [path for path in (tmp_path / "set").iterdir() if path.suffix == ".part"] == []


def test_no_more_pictures_are_held_than_are_soon_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []

    def normalised(path: Path, _: object) -> intake.Intake:
        looked.append(path)
        return intake.Intake(None, ".png")

    monkeypatch.setattr(intake, "normalised", normalised)
    adding_now = add(tmp_path / "set", [picture(tmp_path / f"{number:02}.png") for number in range(20)])
    next(adding_now)
    time.sleep(0.1)
    assert 1 <= len(looked) <= 1 + adding.AHEAD
    adding_now.close()


# Folders and zips ------------------------------------------------------------------------------------------------------------


def test_kohyas_repeats_are_kept_with_the_names_that_pictures_get(tmp_path: Path) -> None:
    picture(tmp_path / "img" / "10_boats" / "a.png")
    picture(tmp_path / "img" / "3_trees" / "a.png", colour="green")
    picture(tmp_path / "img" / "2024_trip" / "b.png")
    add_files(tmp_path / "set", [tmp_path / "img"])
    assert Dataset.open(tmp_path / "set").repeats == {"a.png": 10, "a-2.png": 3}


def test_a_dataset_comes_back_from_a_zip_unchanged(tmp_path: Path) -> None:
    cut_out = Image.new("RGBA", (64, 32), (255, 0, 0, 100))
    cut_out.save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("ein Haus, schön 🏠", encoding="utf-8")
    add_files(tmp_path / "set", [tmp_path / "a.png", picture(tmp_path / "b.jpg"), picture(tmp_path / "c.bmp", colour="blue")])
    edits = Edits(tmp_path / "set")
    edits.trigger("", "vellorn")
    edits.set("repeats", {"a.png": 3})
    edits.set("weights", {"b.jpg": 0.5})
    edits.set("crops", {"b.jpg": (0.1, 0.0, 0.9, 1.0)})
    edits.set("focus", {"c.png": (0.3, 0.5)})
    archive.packed(tmp_path / "set", tmp_path / "out.zip")
    added, refused = add_files(tmp_path / "again", [tmp_path / "out.zip"])
    assert ([path.name for path in added], refused) == (["a.png", "b.jpg", "c.png"], [])
    before, after = visible(tmp_path / "set"), visible(tmp_path / "again")
    assert set(after) == set(before) == {
        "a.png", "a.txt", "b.jpg", "c.png", "dataset.toml", "masks/a.mask.png", "originals/a.png", "originals/c.bmp",
    }  # fmt: skip
    assert {name: content for name, content in after.items() if name != "dataset.toml"} == {
        name: content for name, content in before.items() if name != "dataset.toml"
    }
    assert Dataset.open(tmp_path / "again").about == Dataset.open(tmp_path / "set").about


@pytest.mark.parametrize("name", ["x" * 99, "originals", "con.x", f"{'y' * 79} z"])
def test_names_that_pictures_got_once_they_keep(tmp_path: Path, name: str) -> None:
    for number, room in enumerate("123"):
        picture(tmp_path / room / f"{name}.bmp", (32 + number, 32)).with_suffix(".txt").write_text(room)
    add_files(tmp_path / "set", [tmp_path / room for room in "123"])
    archive.packed(tmp_path / "set", tmp_path / "out.zip")
    add_files(tmp_path / "again", [tmp_path / "out.zip"])
    assert len(visible(tmp_path / "set")) == 9
    assert visible(tmp_path / "again") == visible(tmp_path / "set")


def test_nothing_of_a_zip_is_left_lying_about(tmp_path: Path) -> None:
    add_files(tmp_path / "set", [picture(tmp_path / "a.png")])
    archive.packed(tmp_path / "set", tmp_path / "out.zip")
    add_files(tmp_path / "again", [tmp_path / "out.zip"])
    assert [path.name for path in (tmp_path / "again").iterdir() if not path.name.startswith(".impasto")] == ["a.png"]


def test_what_a_killed_process_has_left_is_cleared_after_a_day(tmp_path: Path) -> None:
    old, new = tmp_path / "set" / ".incoming-old", tmp_path / "set" / ".incoming-new"
    part, foreign = home._part(tmp_path / "set" / "a.png"), tmp_path / "set" / ".a film.part"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "a.png").touch()
    part.touch()
    foreign.touch()
    for path in (old, part, foreign):
        os.utime(path, (time.time() - 100_000,) * 2)
    add_files(tmp_path / "set", [])
    assert (old.exists(), part.exists(), new.exists(), foreign.exists()) == (False, False, True, True)


def test_the_trigger_that_is_there_stays(tmp_path: Path) -> None:
    for name, word in (("one", "vellorn"), ("two", "else")):
        picture(tmp_path / name / f"{name}.png")
        (tmp_path / name / "dataset.toml").write_text(f'trigger = "{word}"', encoding="utf-8")
    add_files(tmp_path / "set", [tmp_path / "one"])
    (told,) = add_files(tmp_path / "set", [tmp_path / "two"])[1]
    assert told.startswith("The trigger word “else” of what was added was not taken, for the dataset's own is “vellorn”: ")
    assert Dataset.open(tmp_path / "set").trigger == "vellorn"


def test_a_dataset_toml_that_cannot_be_read_is_told_of_and_the_pictures_are_in(tmp_path: Path) -> None:
    picture(tmp_path / "10_a" / "a.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "dataset.toml").write_text("no toml", encoding="utf-8")
    added, [problem] = add_files(tmp_path / "set", [tmp_path / "10_a"])
    assert [path.name for path in added] == ["a.png"]
    assert problem.startswith("What dataset.toml was to say of the pictures could not be kept.")
    assert (tmp_path / "set" / "dataset.toml").read_text(encoding="utf-8") == "no toml"


# Two at once, and none of them whole -----------------------------------------------------------------------------------------


def test_two_at_once_never_take_one_name(tmp_path: Path) -> None:
    for room in ("1", "2"):
        for number in range(15):
            picture(tmp_path / room / f"{number}.png", (32 + int(room), 32)).with_suffix(".txt").write_text(room)
    threads = [threading.Thread(target=add_files, args=(tmp_path / "set", [tmp_path / room])) for room in ("1", "2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pictures = Dataset.open(tmp_path / "set").pictures
    assert len(pictures) == 30
    assert all(each.caption == str(each.width - 32) for each in pictures)


def test_what_was_removed_can_come_back_beside_a_new_picture_of_its_name(tmp_path: Path) -> None:
    folder, change = tmp_path / "set", None
    add_files(folder, [picture(tmp_path / "a.png", colour="red")])
    change = Edits(folder)
    change.set("crops", {"a.png": (0, 0, 0.5, 1)})
    change.remove(["a.png"])
    assert add_files(folder, [picture(tmp_path / "2" / "a.png", colour="blue")])[0] == [folder / "a-2.png"]
    change.undo()
    assert Dataset.open(folder).crops.keys() == {"a.png"}
    assert [each.path.name for each in Dataset.open(folder).pictures] == ["a-2.png", "a.png"]


def test_a_dataset_is_not_added_to_itself(tmp_path: Path) -> None:
    before = picture(tmp_path / "set" / "my cat.png").read_bytes()
    _, refused = add_files(tmp_path / "set", [tmp_path / "set"])
    assert refused == ["my cat.png is in the dataset already: it was not added again."]
    assert visible(tmp_path / "set") == {"my cat.png": before}


def test_a_trigger_of_two_is_told_of(tmp_path: Path) -> None:
    for name in ("one", "two"):
        picture(tmp_path / name / f"{name}.png")
        (tmp_path / name / "dataset.toml").write_text(f'trigger = "{name}"', encoding="utf-8")
    assert add_files(tmp_path / "set", [tmp_path / "one", tmp_path / "two"])[1] == [
        "dataset.toml names another trigger word, “two”: “one” was taken, which came first."
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_killed_in_the_middle_all_that_is_in_is_whole_and_the_rest_can_be_added(tmp_path: Path) -> None:
    for number in range(60):
        noise = Image.effect_noise((200, 200 + number), 80)
        noise.save(tmp_path / f"{number:02}.png")
        (tmp_path / f"{number:02}.txt").write_text(f"picture {number}", encoding="utf-8")
    (tmp_path / "given").mkdir()
    for path in tmp_path.glob("*.*"):
        path.rename(tmp_path / "given" / path.name)
    run = "import sys, pathlib; from trainer.data.arrival.adding import add; [print(x.name, flush=True) for x in add(*[pathlib.Path(sys.argv[1]), [pathlib.Path(sys.argv[2])]])]"  # noqa: E501
    child = subprocess.Popen(
        [sys.executable, "-c", run, str(tmp_path / "set"), str(tmp_path / "given")], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    for _ in range(10):
        assert child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    there = Dataset.open(tmp_path / "set")
    assert 10 <= len(there.pictures) < 60
    assert there.refused == ()
    for each in there.pictures:
        assert each.caption == f"picture {read_picture(each.path).height - 200}"
    add_files(tmp_path / "set", [tmp_path / "given"])
    assert sorted(each.height - 200 for each in Dataset.open(tmp_path / "set").pictures) == list(range(60))
