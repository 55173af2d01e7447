"""A folder of pictures with captions: read, refused, added to; nothing of it is ever overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import ExifTags, Image

from trainer.data.dataset import Dataset, add_files, prior_pictures, remove_picture
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


def test_a_caption_is_written_at_once(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    Dataset.open(tmp_path).pictures[0].write_caption("a boat")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "a boat\n"
    assert Dataset.open(tmp_path).pictures[0].caption == "a boat"


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


@pytest.mark.parametrize("trigger", ["glassy", 'with "quotes"', "back\\slash", "größe 東京", "two\nlines"])
def test_the_trigger_is_kept_with_the_pictures(tmp_path: Path, trigger: str) -> None:
    dataset = Dataset.open(tmp_path)
    dataset.write_trigger(trigger)
    assert Dataset.open(tmp_path).trigger == trigger


def test_without_dataset_toml_there_is_no_trigger(tmp_path: Path) -> None:
    assert Dataset.open(tmp_path).trigger == ""
    assert Dataset.open(tmp_path).repeats == {}


@pytest.mark.parametrize("before", ["", 'trigger = "old"\n'])
def test_repeats_are_read_and_outlive_another_trigger(tmp_path: Path, before: str) -> None:
    about = tmp_path / "dataset.toml"
    about.write_text(before + '# chosen by hand\n[repeats]\n"01.png" = 3\n"größe 2.webp" = 1\n', encoding="utf-8")
    Dataset.open(tmp_path).write_trigger("glassy")
    dataset = Dataset.open(tmp_path)
    assert dataset.repeats == {"01.png": 3, "größe 2.webp": 1}
    assert dataset.trigger == "glassy"
    assert "# chosen by hand" in about.read_text(encoding="utf-8")


@pytest.mark.parametrize("times", ["0", "101", "-1", "1.5", "true", '"two"'])
def test_repeats_that_make_no_sense_are_told_of(tmp_path: Path, times: str) -> None:
    (tmp_path / "dataset.toml").write_text(f'[repeats]\n"01.png" = {times}\n')
    with pytest.raises(DatasetError, match=r"dataset\.toml: the repeats of 01\.png must be a whole number from 1 to 100, not "):
        _ = Dataset.open(tmp_path).repeats


def test_repeats_that_are_no_table_are_told_of(tmp_path: Path) -> None:
    (tmp_path / "dataset.toml").write_text("repeats = 3\n")
    with pytest.raises(DatasetError, match=r'repeats must be a table with lines such as "01\.png" = 3'):
        _ = Dataset.open(tmp_path).repeats


@pytest.mark.parametrize("content", [b"trigger = ", b'trigger = "gr\xf6\xdfe"'], ids=["cut off", "latin-1"])
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


# Adding and removing ----------------------------------------------------------------------------------------------------


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
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["a.png"]


def test_a_picture_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    Image.effect_noise((200, 200), 80).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:2000])
    added, refused = add_files(tmp_path / "set", [tmp_path / "a.jpg"])
    assert added == []
    assert "damaged" in refused[0]


def test_a_removed_picture_takes_its_caption_along(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    for entry in Dataset.open(tmp_path).pictures:
        entry.write_caption("a house")
    remove_picture(Dataset.open(tmp_path).pictures[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.png", "b.txt"]


# Masks ------------------------------------------------------------------------------------------------------------------


def mask(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.linear_gradient("L").save(path)
    return path


def test_a_mask_is_no_picture(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    mask(tmp_path / "a-masklabel.png")
    (tmp_path / "b-masklabel.png").write_text("not even readable")
    dataset = Dataset.open(tmp_path)
    assert [entry.path.name for entry in dataset.pictures] == ["a.png"]
    assert dataset.refused == ()


def test_an_added_picture_brings_its_mask(tmp_path: Path) -> None:
    source, beside = picture(tmp_path / "from" / "a.jpg"), picture(tmp_path / "from" / "b.jpg")
    far = mask(tmp_path / "masks" / "a-masklabel.png")
    mask(tmp_path / "from" / "b-masklabel.png")
    added, refused = add_files(tmp_path / "set", [far, source, beside])
    assert ([path.name for path in added], refused) == (["a.jpg", "b.jpg"], [])
    assert (tmp_path / "set" / "a-masklabel.png").read_bytes() == far.read_bytes()
    assert (tmp_path / "set" / "b-masklabel.png").is_file()


def test_a_mask_takes_the_new_name_of_its_picture(tmp_path: Path) -> None:
    first, second = picture(tmp_path / "1" / "a.png"), picture(tmp_path / "2" / "a.png")
    mask(tmp_path / "1" / "a-masklabel.png")
    add_files(tmp_path / "set", [first])
    add_files(tmp_path / "set", [second])
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["a-2.png", "a-masklabel.png", "a.png"]


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
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["b.png"]


def test_a_removed_picture_takes_its_mask_along(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.png")
        mask(tmp_path / f"{name}-masklabel.png")
    remove_picture(Dataset.open(tmp_path).pictures[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b-masklabel.png", "b.png"]
