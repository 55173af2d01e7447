from pathlib import Path

import pytest

from app.listing import Listing
from tests.app.conftest import save_pictures
from trainer.data import intake, tokens
from trainer.data.editing.edits import Edits
from trainer.errors import DatasetError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_pictures(tmp_path / "stripes", 3, "a picture")
    return tmp_path / "stripes"


def known(listing: Listing) -> dict[str, str]:
    return {entry.name: entry.state for entry in listing.entries({})}


def test_it_lists_what_a_dataset_holds(folder: Path) -> None:
    Edits(folder).trigger("", "vellorn")
    (folder / "02-masklabel.png").write_bytes((folder / "02.png").read_bytes())
    (folder / "torn.jpg").write_text("no picture")
    (folder / "notes.md").write_text("no picture by its name")
    listing = Listing(folder)
    entries = listing.entries({})
    assert [(entry.name, entry.width, entry.caption, entry.masked) for entry in entries] == [
        ("01.png", 64, "a picture", False),
        ("02.png", 64, "a picture", True),
        ("03.png", 64, "a picture", False),
    ]
    assert {entry.tokens for entry in entries} == {tokens.count("vellorn, a picture")}
    assert listing.captions() == dict.fromkeys(("01.png", "02.png", "03.png"), "a picture")
    assert len(listing) == 3
    assert listing.refused()[0].startswith("torn.jpg is not a picture")


def test_only_what_has_changed_is_told(folder: Path) -> None:
    first = Listing(folder)
    assert Listing(folder).version == first.version
    assert Listing(folder).entries(known(first)) == []
    (folder / "02.txt").write_text("from another program", encoding="utf-8")
    second = Listing(folder)
    assert second.version != first.version
    assert [(entry.name, entry.caption) for entry in second.entries(known(first))] == [("02.png", "from another program")]
    Edits(folder).set("focus", {"03.png": (0.2, 0.5)})
    assert [entry.name for entry in Listing(folder).entries(known(second))] == ["03.png"]
    Edits(folder).remove(["01.png"])
    assert Listing(folder).gone(known(second)) == ["01.png"]
    Edits(folder).trigger("", "vellorn")
    assert len(Listing(folder).entries(known(second))) == 2
    (folder / "02.png").write_bytes(b"")
    assert Listing(folder).gone(known(second)) == ["01.png", "02.png"], "what cannot be read is not shown any longer"


def test_what_has_not_changed_is_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Listing(folder).entries({})
    read = []
    monkeypatch.setattr(intake, "read_header", lambda path: read.append(path))
    assert len(Listing(folder).entries({})) == 3
    assert read == []


def test_a_broken_dataset_toml_is_told(folder: Path) -> None:
    (folder / "dataset.toml").write_text("trigger = ")
    with pytest.raises(DatasetError, match=r"dataset\.toml is not valid TOML"):
        Listing(folder)
