"""What a run was trained on: kept whole, compared sentence by sentence, and the same plan from it whatever was edited since."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainer.data.dataset import Dataset
from trainer.errors import RunError, StorageError
from trainer.settings_text import validated
from trainer.training.plan import Plan
from trainer.training.record import Record

SETTINGS = validated({"resolution": 64, "batch": 2, "passes": 10})


def picture(path: Path, colour: int = 0, size: tuple[int, int] = (64, 64)) -> Path:
    Image.new("L", size, colour).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures of two sizes, with captions."""
    made = tmp_path / "set"
    made.mkdir()
    for number in range(6):
        picture(made / f"{number}.png", number, (64, 64) if number % 2 else (96, 64))
        (made / f"{number}.txt").write_text(f"a house, number {number}")
    return made


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder whose record is written."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def begun(folder: Path, run: Path, prior: Path | None = None) -> Record:
    """A record as it was written and is read again."""
    record = Record.of(Dataset.open(folder), Dataset.open(prior) if prior else None)
    record.write(run)
    found = Record.read(run)
    assert found == record
    return record


def told(run: Path) -> list[str]:
    """What a run that goes on says of its pictures."""
    record = Record.read(run)
    assert record is not None
    return record.differences()


def seen(plan: Plan) -> list[Any]:
    """All that a training sees of its plan."""
    return [plan.steps, plan.pictures, [plan.indices(micro) for micro in range(50)], [entry.caption for entry in plan.pictures]]


def test_what_is_written(folder: Path, run: Path) -> None:
    (folder / "dataset.toml").write_text(
        'trigger = "x"\n[repeats]\n"1.png" = 2\n[weights]\n"0.png" = 0.5\n'
        '[crops]\n"0.png" = [0, 0, 0.5, 1]\n[focus]\n"2.png" = [0.25, 1]\n'
    )
    begun(folder, run)
    written = json.loads((run / "pictures.json").read_text(encoding="utf-8"))
    assert written["prior"] is None
    kept = written["dataset"]
    assert (kept["folder"], kept["refused"]) == (str(folder), [])
    assert kept["about"] == {
        "repeats": {"1.png": 2},
        "weights": {"0.png": 0.5},
        "crops": {"0.png": [0, 0, 0.5, 1]},
        "focus": {"2.png": [0.25, 1]},
    }
    assert kept["pictures"][4] == {
        "name": "4.png", "width": 96, "height": 64, "caption": "a house, number 4",
        "sha256": hashlib.sha256((folder / "4.png").read_bytes()).hexdigest(),
    }  # fmt: skip


def test_a_run_without_a_record_has_none(run: Path) -> None:
    assert Record.read(run) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"dataset": {"folder": "x"}, "prior": null}', "7"])
def test_a_damaged_record_is_told_of(run: Path, content: str) -> None:
    (run / "pictures.json").write_text(content)
    with pytest.raises(RunError, match=r"pictures\.json is damaged .*: start a new run"):
        Record.read(run)


def test_a_record_is_written_whole_or_not_at_all(folder: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = begun(folder, run)

    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        before.refusing(before.plan(SETTINGS), {0}).write(run)
    assert Record.read(run) == before
    assert [path.name for path in run.iterdir()] == ["pictures.json"]


def test_the_plan_is_that_of_the_dataset(folder: Path, run: Path) -> None:
    (folder / "dataset.toml").write_text('[repeats]\n"1.png" = 2\n')
    plain = Plan.of(Dataset.open(folder), SETTINGS)
    recorded = begun(folder, run).plan(SETTINGS)
    assert [(entry.picture.path, entry.placement, entry.caption) for entry in plain.pictures] == [
        (entry.picture.path, entry.placement, entry.caption) for entry in recorded.pictures
    ]
    assert plain.steps == recorded.steps
    assert [plain.indices(micro) for micro in range(50)] == [recorded.indices(micro) for micro in range(50)]


def test_nothing_that_is_edited_changes_the_plan(folder: Path, run: Path) -> None:
    (folder / "dataset.toml").write_text('[crops]\n"0.png" = [0, 0, 0.5, 1]\n[focus]\n"2.png" = [0, 0.5]\n')
    before = seen(begun(folder, run).plan(SETTINGS))
    (folder / "0.txt").write_text("something else")
    (folder / "1.txt").unlink()
    (folder / "dataset.toml").write_text(
        '[repeats]\n"1.png" = 2\n[weights]\n"2.png" = 2\n[crops]\n"0.png" = [0, 0, 1, 0.5]\n[focus]\n"2.png" = [1, 0.5]\n'
    )
    picture(folder / "new.png")
    (folder / "3.png").unlink()
    picture(folder / "4.png", size=(200, 100))
    record = Record.read(run)
    assert record is not None
    assert seen(record.plan(SETTINGS)) == before


def test_a_cut_is_of_the_size_that_the_picture_had(folder: Path, run: Path) -> None:
    (folder / "dataset.toml").write_text('[crops]\n"0.png" = [0, 0, 0.5, 1]\n[focus]\n"2.png" = [0, 0.5]\n')
    plan = begun(folder, run).plan(SETTINGS)
    cut, focused, plain = (plan.pictures[index].placement for index in (0, 2, 4))
    assert (cut.whole, cut.original, cut.cut and cut.cut.box) == ((96, 64), (48, 64), (0, 0, 48, 64))
    assert (focused.left, plain.left) == (0, 16)


def test_a_record_from_before_there_were_frames_is_read(folder: Path, run: Path) -> None:
    before = begun(folder, run)
    written = json.loads((run / "pictures.json").read_text(encoding="utf-8"))
    written["dataset"]["about"] = {"repeats": {}, "weights": {}}
    (run / "pictures.json").write_text(json.dumps(written), encoding="utf-8")
    after = Record.read(run)
    assert after is not None
    assert seen(after.plan(SETTINGS)) == seen(before.plan(SETTINGS))
    assert told(run) == []


def test_a_step_reads_no_caption_from_the_disk(folder: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = begun(folder, run).plan(SETTINGS)

    def read(_: Path) -> bytes:
        raise AssertionError("the disk was read")

    monkeypatch.setattr(Path, "read_bytes", read)
    assert [entry.caption for entry in plan.pictures] == [f"a house, number {number}" for number in range(6)]


# What has become of the pictures ------------------------------------------------------------------------------------------


def test_of_what_stayed_nothing_is_told(folder: Path, run: Path) -> None:
    begun(folder, run, folder)
    os.utime(folder / "0.png", (1, 1))
    (folder / "dataset.toml").write_text('trigger = "glassy"\n')
    (folder / "notes.md").write_text("x")
    assert told(run) == []


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("gone", "Gone since the run began, so that others are shown instead (2): 0.png, 1.png."),
        ("new", "New since the run began, and no part of it (2): 7.png, 8.png."),
        ("painted", "Changed since the run began, and trained in the new form (1): 2.png."),
        ("captions", "Captioned anew since the run began, and trained with the old caption (2): 3.png, 4.png."),
        ("mask", "Changed since the run began, and trained in the new form (2): 4.png, 5.png."),
        ("weights", "dataset.toml names other weights since the run began: it goes on with the earlier ones."),
        ("frames", "dataset.toml names other crops and focus since the run began: it goes on with the earlier ones."),
    ],
)  # fmt: skip
def test_what_has_changed_is_told_in_a_sentence(folder: Path, run: Path, what: str, sentence: str) -> None:
    begun(folder, run)
    match what:
        case "gone":
            (folder / "0.png").unlink()
            (folder / "1.png").unlink()
        case "new":
            picture(folder / "7.png")
            picture(folder / "8.png")
        case "painted":
            picture(folder / "2.png", 200, (96, 64))
        case "captions":
            (folder / "3.txt").write_text("a boat")
            (folder / "4.txt").unlink()
        case "mask":
            picture(folder / "5-masklabel.png", 255)
            (folder / "masks").mkdir()
            picture(folder / "masks" / "4.mask.png", 255)
        case "weights":
            (folder / "dataset.toml").write_text('[weights]\n"0.png" = 2\n')
        case "frames":
            (folder / "dataset.toml").write_text('[crops]\n"0.png" = [0, 0, 1, 0.5]\n[focus]\n"0.png" = [0, 0]\n')
    assert told(run) == [sentence]


def test_of_many_names_some_are_told(folder: Path, run: Path) -> None:
    begun(folder, run)
    for number in range(10, 18):
        picture(folder / f"{number}.png")
    assert told(run)[0].endswith("(8): 10.png, 11.png, 12.png, 13.png, 14.png and 3 more.")


def test_a_folder_that_is_gone_is_told_of(folder: Path, run: Path) -> None:
    begun(folder, run)
    folder.rename(folder.with_name("elsewhere"))
    assert told(run) == [f"The folder {folder} is gone, and its pictures with it."]


def test_prior_pictures_are_recorded_too(folder: Path, run: Path, tmp_path: Path) -> None:
    prior = tmp_path / "prior"
    prior.mkdir()
    for number in range(3):
        picture(prior / f"{number}.png", 99)
    plan = begun(folder, run, prior).plan(SETTINGS)
    assert [entry.picture.path for entry in plan.pictures if entry.prior] == [prior / f"{number}.png" for number in range(3)]
    (prior / "1.png").unlink()
    assert told(run) == ["Gone since the run began, so that others are shown instead (1): 1.png."]


# Pictures that cannot be trained ------------------------------------------------------------------------------------------


def test_what_was_refused_at_the_start_stays_out(folder: Path, run: Path, tmp_path: Path) -> None:
    prior = tmp_path / "prior"
    prior.mkdir()
    picture(prior / "1.png")
    picture(prior / "2.png")
    record = begun(folder, run, prior)
    plan = record.plan(SETTINGS)
    assert plan.pictures[6].picture.path == prior / "1.png"
    record.refusing(plan, {2, 6}).write(run)
    again = Record.read(run)
    assert again is not None
    assert seen(again.plan(SETTINGS)) == seen(plan.without({2, 6}))
    picture(folder / "2.png", 77)
    assert told(run) == [], "a picture that is no part of the run is told of"
