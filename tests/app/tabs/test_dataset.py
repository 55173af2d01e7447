from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.desk import Desk
from app.tabs.dataset import PAGE, DatasetTab
from tests.app.conftest import in_blocks, save_pictures
from trainer.data.dataset import Dataset
from trainer.errors import DatasetError
from trainer.home import Home, shipped


@pytest.fixture
def tab(desk: Desk) -> DatasetTab:
    return in_blocks(lambda: DatasetTab(desk))


def clicked(name: str) -> Any:
    return SimpleNamespace(value={"caption": name})


def test_dropped_pictures_begin_a_dataset_and_what_is_refused_is_told(tab: DatasetTab, desk: Desk, tmp_path: Path) -> None:
    dropped = [*save_pictures(tmp_path / "from", 2, "a boat"), tmp_path / "from" / "01.txt", tmp_path / "from" / "no.jpg"]
    dropped[-1].write_text("no picture")
    updates = tab.add(None, [str(path) for path in dropped])
    made = Dataset.open(desk.home.datasets / "my-style")
    assert [picture.path.name for picture in made.pictures] == ["01.png", "02.png"]
    assert [picture.caption for picture in made.pictures] == ["a boat", "a boat"]
    assert updates[tab.name]["value"] == "my-style"
    assert "no\\.jpg is not a picture" in updates[tab.notes]["value"]
    assert [caption for _, caption in updates[tab.gallery]["value"]] == ["01.png", "02.png"]
    assert not any(path.exists() for path in dropped), "the browser's copies are removed"


def test_a_caption_goes_to_the_picture_that_is_named(tab: DatasetTab, desk: Desk) -> None:
    updates = tab.pick("stripes", clicked("02.png"))
    assert updates[tab.picked] == "stripes/02.png"
    assert updates[tab.caption]["value"] == "a picture"
    tab.save_caption(updates[tab.picked], "two stripes\n of paint")
    tab.save_caption("", "nobody's")
    assert [picture.caption for picture in desk.dataset("stripes").pictures] == [
        "a picture",
        "two stripes of paint",
        "a picture",
    ]


def test_enter_saves_and_goes_round(tab: DatasetTab, desk: Desk) -> None:
    assert tab.save_and_go_on("stripes/01.png", "first")[tab.picked] == "stripes/02.png"
    assert tab.save_and_go_on("stripes/03.png", "last")[tab.picked] == "stripes/01.png"
    assert [picture.caption for picture in desk.dataset("stripes").pictures] == ["first", "a picture", "last"]


@pytest.mark.parametrize("picked", ["stripes/../../secret.png", "../secret.png", "stripes/gone.png", "gone/01.png", "stripes/"])
def test_nothing_outside_the_dataset_is_written(tab: DatasetTab, desk: Desk, picked: str) -> None:
    save_pictures(desk.home.root, 1)[0].rename(desk.home.root / "secret.png")
    with pytest.raises(DatasetError, match="not in the dataset"):
        tab.save_caption(picked, "x")
    assert not (desk.home.root / "secret.txt").exists()


def test_a_removed_picture_takes_its_caption_along(tab: DatasetTab, desk: Desk) -> None:
    updates = tab.remove_picked("stripes/02.png")
    assert sorted(path.name for path in (desk.home.datasets / "stripes").iterdir()) == ["01.png", "01.txt", "03.png", "03.txt"]
    assert updates[tab.picked] == ""
    assert tab.remove_picked("") == {}


def test_the_trigger_word_is_kept_with_the_pictures(tab: DatasetTab, desk: Desk) -> None:
    tab.save_trigger("stripes", " vel\nlorn ")
    assert desk.dataset("stripes").trigger == "vel lorn"
    assert tab.show("stripes")[tab.trigger] == "vel lorn"


def test_a_new_dataset_needs_a_name_of_its_own(tab: DatasetTab, desk: Desk) -> None:
    updates = tab.create_dataset("../Ink & wash")
    assert updates[tab.name]["value"] == "Ink-wash"
    assert (desk.home.datasets / "Ink-wash").is_dir()
    with pytest.raises(DatasetError, match="already"):
        tab.create_dataset("stripes")
    with pytest.raises(DatasetError, match="name first"):
        tab.create_dataset("  ")


def test_a_sample_style_comes_with_captions_and_trigger_word(tab: DatasetTab, desk: Desk) -> None:
    style = sorted(path.name for path in shipped("assets", "styles").iterdir() if path.is_dir())[0]
    tab.sample_adder(style)()
    there, here = Dataset.open(shipped("assets", "styles", style)), desk.dataset(style)
    assert here.trigger == there.trigger != ""
    assert [picture.caption for picture in here.pictures] == [picture.caption for picture in there.pictures]
    tab.sample_adder(style)()
    assert len(desk.dataset(style).pictures) == len(there.pictures)


def test_many_pictures_come_in_pages(tab: DatasetTab, desk: Desk) -> None:
    save_pictures(desk.home.datasets / "many", PAGE + 2)
    assert len(tab.show("many")[tab.gallery]["value"]) == PAGE
    second = tab.show("many", 2)
    assert len(second[tab.gallery]["value"]) == 2
    assert second[tab.page]["visible"]
    assert len(tab.show("many", 99)[tab.gallery]["value"]) == 2


def test_without_a_dataset_it_says_what_to_do(tmp_path: Path) -> None:
    tab = in_blocks(lambda: DatasetTab(Desk.of(Home(tmp_path / "fresh"))))
    updates = tab.show(None)
    assert "No dataset yet" in updates[tab.summary]
    assert updates[tab.samples]["open"]


def test_a_damaged_picture_is_told_and_the_others_are_shown(tab: DatasetTab, desk: Desk) -> None:
    torn = desk.home.datasets / "stripes" / "02.png"
    torn.write_bytes(torn.read_bytes()[:-30])
    updates = tab.show("stripes")
    assert [caption for _, caption in updates[tab.gallery]["value"]] == ["01.png", "03.png"]
    assert "02\\.png" in updates[tab.notes]["value"]
