"""A folder of pictures with captions: read, refused, added to; nothing of it is ever overwritten."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from trainer.data.dataset import Dataset, prior_pictures
from trainer.errors import DatasetError


def picture(path: Path, size: tuple[int, int] = (32, 48), colour: str = "red", form: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, form)
    return path


def test_pictures_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.png", "A.jpg", "c.webp", "10.bmp"):
        picture(tmp_path / name)
    assert [entry.path.name for entry in Dataset.open(tmp_path).pictures] == ["10.bmp", "A.jpg", "b.png", "c.webp"]


def test_a_picture_has_its_caption_beside_it(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / "a.txt").write_text("a house", encoding="utf-8")
    assert [entry.caption for entry in Dataset.open(tmp_path).pictures] == ["a house", ""]


def test_sizes_are_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (64, 32)).save(tmp_path / "a.jpg", exif=exif)
    only = Dataset.open(tmp_path).pictures[0]
    assert (only.width, only.height) == (32, 64)


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / ".hidden.png")
    picture(tmp_path / "sub" / "b.png")
    (tmp_path / "notes.md").write_text("x", encoding="utf-8")
    (tmp_path / "folder.png").mkdir()
    dataset = Dataset.open(tmp_path)
    assert [entry.path.name for entry in dataset.pictures] == ["a.png"]
    assert dataset.refused == ()


def test_a_file_that_is_no_picture_is_told_of_and_the_others_stay(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_text("a letter", encoding="utf-8")
    dataset = Dataset.open(tmp_path)
    assert len(dataset.pictures) == 1
    assert dataset.refused[0].startswith("b.jpg is not a picture")


def test_two_thousand_pictures_open_at_once(tmp_path: Path) -> None:
    content = picture(tmp_path / "0000.jpg", (640, 480)).read_bytes()
    for number in range(1, 2000):
        (tmp_path / f"{number:04d}.jpg").write_bytes(content)
    began = time.process_time()
    assert len(Dataset.open(tmp_path).pictures) == 2000
    assert time.process_time() - began < 1.5


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="gone does not exist: give a folder that holds pictures"):
        Dataset.open(tmp_path / "gone")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is a file, not a folder"):
        Dataset.open(picture(tmp_path / "a.png"))


def test_a_folder_without_pictures_is_refused_for_training(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"There is no picture to train on in .* Put JPEG, PNG, WebP or AVIF files there"):
        Dataset.open(tmp_path).for_training()


def test_a_folder_of_false_pictures_says_what_the_first_one_is(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_text("a letter", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"There is no picture to train on in .* b.jpg is not a picture"):
        Dataset.open(tmp_path).for_training()


# The trigger word -------------------------------------------------------------------------------------------------------


def test_without_dataset_toml_there_is_no_trigger(tmp_path: Path) -> None:
    assert Dataset.open(tmp_path).trigger == ""
    assert Dataset.open(tmp_path).repeats == {}


@pytest.mark.parametrize("times", ["0", "101", "-1", "1.5", "true", '"two"'])
def test_repeats_that_make_no_sense_are_told_of(tmp_path: Path, times: str) -> None:
    (tmp_path / "dataset.toml").write_text(f'[repeats]\n"01.png" = {times}\n')
    with pytest.raises(DatasetError, match=r"dataset\.toml: the repeats of 01\.png must be a whole number from 1 to 100, not "):
        _ = Dataset.open(tmp_path).repeats


def test_repeats_that_are_no_table_are_told_of(tmp_path: Path) -> None:
    (tmp_path / "dataset.toml").write_text("repeats = 3\n")
    with pytest.raises(DatasetError, match=r'repeats must be a table with lines such as "01\.png" = 3'):
        _ = Dataset.open(tmp_path).repeats


@pytest.mark.parametrize("given", ["3", '["a", "b"]', "{a = 1}"])
def test_a_trigger_that_is_no_text_is_told_of(tmp_path: Path, given: str) -> None:
    (tmp_path / "dataset.toml").write_text(f"trigger = {given}", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"dataset\.toml: the trigger word must be in quotation marks"):
        _ = Dataset.open(tmp_path).trigger


@pytest.mark.parametrize(
    "content",
    [b"trigger = ", b'trigger = "gr\xf6\xdfe"', b"a = " + b"[" * 5000],
    ids=["cut off", "latin-1", "endless"],
)
def test_a_damaged_dataset_toml_is_told_of(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "dataset.toml").write_bytes(content)
    with pytest.raises(DatasetError, match=r"dataset\.toml is not valid TOML .*: correct or delete it"):
        _ = Dataset.open(tmp_path).trigger


def test_weights_are_read_beside_the_rest(tmp_path: Path) -> None:
    assert Dataset.open(tmp_path).weights == {}
    text = 'trigger = "glassy"\n[weights]\n"01.png" = 0.5\n"größe 2.webp" = 10\n[repeats]\n"01.png" = 3\n'
    (tmp_path / "dataset.toml").write_text(text, encoding="utf-8")
    dataset = Dataset.open(tmp_path)
    assert dataset.weights == {"01.png": 0.5, "größe 2.webp": 10.0}
    assert (dataset.repeats, dataset.trigger) == ({"01.png": 3}, "glassy")


@pytest.mark.parametrize("weight", ["0", "0.0", "-1", "10.01", "11", "inf", "nan", "true", '"two"', "[1]"])
def test_weights_that_make_no_sense_are_told_of(tmp_path: Path, weight: str) -> None:
    (tmp_path / "dataset.toml").write_text(f'[weights]\n"01.png" = {weight}\n')
    with pytest.raises(DatasetError, match=r"dataset\.toml: the weight of 01\.png must be a number above 0, up to 10, not "):
        _ = Dataset.open(tmp_path).weights


def test_weights_that_are_no_table_are_told_of(tmp_path: Path) -> None:
    (tmp_path / "dataset.toml").write_text("weights = 3\n")
    with pytest.raises(DatasetError, match=r'weights must be a table with lines such as "01\.png" = 0\.5'):
        _ = Dataset.open(tmp_path).weights


# How pictures are framed ------------------------------------------------------------------------------------------------


def test_crops_and_focus_are_read_beside_the_rest(tmp_path: Path) -> None:
    assert (Dataset.open(tmp_path).crops, Dataset.open(tmp_path).focus) == ({}, {})
    text = '[crops]\n"01.png" = [0.1, 0, 0.9, 1]\n"größe 2.webp" = [0, 0.25, 1.0, 0.75]\n[focus]\n"01.png" = [0, 0.5]\n'
    (tmp_path / "dataset.toml").write_text(text, encoding="utf-8")
    dataset = Dataset.open(tmp_path)
    assert dataset.crops == {"01.png": (0.1, 0.0, 0.9, 1.0), "größe 2.webp": (0.0, 0.25, 1.0, 0.75)}
    assert dataset.focus == {"01.png": (0.0, 0.5)}
    assert all(type(share) is float for table in (dataset.crops, dataset.focus) for row in table.values() for share in row)


@pytest.mark.parametrize(
    "edges",
    ["[0, 0, 1]", "[0, 0, 1, 1, 1]", "[-0.1, 0, 1, 1]", "[0, 0, 1.01, 1]", "[0.5, 0, 0.5, 1]", "[0, 0.9, 1, 0.1]", "0.5",
     '"all"', "[0, 0, nan, 1]", "[0, 0, inf, 1]", "[false, 0, 1, 1]", '["0", 0, 1, 1]', "[[0], 0, 1, 1]", "{left = 0}"],
)  # fmt: skip
def test_crops_that_make_no_sense_are_told_of(tmp_path: Path, edges: str) -> None:
    (tmp_path / "dataset.toml").write_text(f'[crops]\n"01.png" = {edges}\n')
    told = r"dataset\.toml: the crop of 01\.png must be four numbers from 0 to 1, its left, top, right and bottom edge as "
    with pytest.raises(DatasetError, match=told):
        _ = Dataset.open(tmp_path).crops


@pytest.mark.parametrize("point", ["[0]", "[0, 0, 1]", "[-0.1, 0]", "[0, 1.5]", "0.5", '"left"', "[nan, 0]", "[true, 0]", "[]"])
def test_a_focus_that_makes_no_sense_is_told_of(tmp_path: Path, point: str) -> None:
    (tmp_path / "dataset.toml").write_text(f'[focus]\n"01.png" = {point}\n')
    told = r"dataset\.toml: the focus of 01\.png must be two numbers from 0 to 1, across and down as shares of the picture, "
    with pytest.raises(DatasetError, match=told):
        _ = Dataset.open(tmp_path).focus


@pytest.mark.parametrize(("table", "example"), [("crops", r"\[0\.1, 0, 0\.9, 1\]"), ("focus", r"\[0\.3, 0\.5\]")])
def test_frames_that_are_no_table_are_told_of(tmp_path: Path, table: str, example: str) -> None:
    (tmp_path / "dataset.toml").write_text(f"{table} = [0, 0, 1, 1]\n")
    with pytest.raises(DatasetError, match=rf'{table} must be a table with lines such as "01\.png" = {example}\.$'):
        getattr(Dataset.open(tmp_path), table)


# Pictures that are not of the style -------------------------------------------------------------------------------------


def test_without_a_folder_there_are_no_prior_pictures() -> None:
    assert prior_pictures("") is None


def test_prior_pictures_are_a_dataset_of_their_own(tmp_path: Path) -> None:
    picture(tmp_path / "prior" / "a.png")
    found = prior_pictures(str(tmp_path / "prior"))
    assert found is not None
    assert [entry.path for entry in found.pictures] == [tmp_path / "prior" / "a.png"]


def test_a_prior_folder_that_is_missing_or_empty_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"^prior_dataset: The dataset folder .*gone does not exist"):
        prior_pictures(str(tmp_path / "gone"))
    with pytest.raises(DatasetError, match=r"^prior_dataset: There is no picture to train on in "):
        prior_pictures(str(tmp_path))


# Masks ------------------------------------------------------------------------------------------------------------------


def mask(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.linear_gradient("L").save(path)
    return path


def test_a_mask_is_no_picture(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    for name in ("a-masklabel.png", "a.mask.png", "masks/a.mask.png"):
        mask(tmp_path / name)
    (tmp_path / "b-masklabel.png").write_text("not even readable")
    dataset = Dataset.open(tmp_path)
    assert [entry.path.name for entry in dataset.pictures] == ["a.png"]
    assert dataset.refused == ()
