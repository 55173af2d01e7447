import time
from pathlib import Path

import pytest
from PIL import Image

from app import checkup
from app.checkup import Checkup, Report, as_listed, summary
from app.listing import Listing
from tests.app.conftest import save_pictures
from trainer.data.dataset import Dataset
from trainer.errors import DatasetError
from trainer.settings import Settings
from trainer.settings_text import validated


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_pictures(tmp_path / "prints", 3, "a picture")
    return tmp_path / "prints"


def over(told: Checkup, folder: Path, settings: Settings) -> Report:
    """The report, once it is whole."""
    until = time.monotonic() + 20
    while (report := told.report(folder, settings)).busy:
        assert time.monotonic() < until
        time.sleep(0.01)
    return report


def test_it_is_looked_at_again_only_when_something_has_changed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []

    def counted(dataset: Dataset, settings: Settings) -> str:
        looked.append(settings.resolution)
        return str(len(dataset.pictures))

    monkeypatch.setattr(checkup, "summary", counted)
    told, settings = Checkup(tmp_path / "cache"), validated({"resolution": 128})
    assert told.report(folder, settings).busy, "who asks is not held up"
    assert over(told, folder, settings).summary == "3"
    assert over(told, folder, settings).summary == "3"
    assert looked == [128]
    assert over(told, folder, validated({"resolution": 256})).summary == "3"
    Image.new("RGB", (64, 64)).save(folder / "04.png")
    assert over(told, folder, settings).summary == "4"
    assert looked == [128, 256, 128]


def test_what_cannot_be_looked_at_is_told(folder: Path, tmp_path: Path) -> None:
    (folder / "dataset.toml").write_text('[repeats]\n"01.png" = 0\n')
    report = over(Checkup(tmp_path / "cache"), folder, Settings())
    assert "the repeats of 01.png must be" in report.findings[0].sentence
    (folder / "dataset.toml").write_text("[")
    with pytest.raises(DatasetError, match="not valid TOML"):
        Checkup(tmp_path / "cache").report(folder, Settings())


def test_a_listing_is_the_dataset_itself(folder: Path) -> None:
    (folder / "no.jpg").write_text("no picture")
    listed, opened = as_listed(Listing(folder)), Dataset.open(folder)
    assert [(each.path, each.width, each.height, each.caption) for each in listed.pictures] == [
        (each.path, each.width, each.height, each.caption) for each in opened.pictures
    ]
    assert listed.refused == opened.refused


def test_only_the_most_frequent_shapes_are_named(tmp_path: Path) -> None:
    sizes = [(500, 500), (500, 500), (500, 640), (640, 500), (500, 1000), (1000, 500), (500, 2000), (2000, 500)]
    for number, size in enumerate(sizes):
        Image.new("RGB", size).save(tmp_path / f"{number}.png")
    said = summary(as_listed(Listing(tmp_path)), validated({"resolution": 512, "steps": 8, "batch": 1}))
    assert said == (
        "With the settings under Train: 2 at 384 × 704, 2 at 512 × 512, 2 at 704 × 384, 1 at 448 × 576, 1 in another shape. "
        "8 steps show each picture about 1 time."
    )
