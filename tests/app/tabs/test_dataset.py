from pathlib import Path

import pytest

from app.desk import Desk
from app.tabs.dataset import DatasetTab
from tests.app.conftest import in_blocks
from trainer.data.dataset import Dataset
from trainer.errors import DatasetError
from trainer.home import Home, shipped


@pytest.fixture
def tab(desk: Desk) -> DatasetTab:
    return in_blocks(lambda: DatasetTab(desk))


def test_a_dataset_is_shown_or_the_first_one_there_is(tab: DatasetTab, desk: Desk) -> None:
    for asked, shown in (("stripes", "stripes"), ("gone", "empty"), (None, "empty"), ("", "empty")):
        updates = tab.show(asked)
        assert updates[tab.shown] == updates[tab.name]["value"] == shown
        assert updates[tab.name]["choices"] == ["empty", "stripes"]
    assert not updates[tab.hint]["visible"]


def test_a_new_dataset_needs_a_name_of_its_own(tab: DatasetTab, desk: Desk) -> None:
    updates = tab.create_dataset("../Ink & wash")
    assert updates[tab.name]["value"] == "Ink-wash"
    assert (desk.home.datasets / "Ink-wash").is_dir()
    with pytest.raises(DatasetError, match="already"):
        tab.create_dataset("stripes")
    for nothing in ("  ", "", None):
        with pytest.raises(DatasetError, match="name first"):
            tab.create_dataset(nothing)


def test_a_sample_style_comes_with_captions_and_trigger_word(tab: DatasetTab, desk: Desk) -> None:
    style = sorted(path.name for path in shipped("assets", "styles").iterdir() if path.is_dir())[0]
    tab.sample_adder(style)()
    there, here = Dataset.open(shipped("assets", "styles", style)), desk.dataset(style)
    assert here.trigger == there.trigger != ""
    assert [picture.caption for picture in here.pictures] == [picture.caption for picture in there.pictures]
    tab.sample_adder(style)()
    assert len(desk.dataset(style).pictures) == len(there.pictures)


def test_without_a_dataset_it_says_what_to_do(tmp_path: Path) -> None:
    tab = in_blocks(lambda: DatasetTab(Desk.of(Home(tmp_path / "fresh"))))
    updates = tab.show(None)
    assert updates[tab.hint]["visible"]
    assert updates[tab.samples]["open"]
    assert updates[tab.shown] == ""
