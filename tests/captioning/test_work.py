"""Captions for a whole dataset: what is written, what stays, and what is told."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from trainer.captioning import work
from trainer.captioning.captioner import Look
from trainer.captioning.events import Captioned, Done, Event, Fetched, Loading, Passed, Remark, as_json
from trainer.captioning.models import Model, chosen
from trainer.captioning.work import Order, run
from trainer.data.dataset import Dataset
from trainer.data.editing.edits import Edits
from trainer.errors import CaptionerError, DatasetError, StorageError


class Painter:
    """Says what colour a picture has in its middle, as a painting; `before` happens before each."""

    def __init__(self) -> None:
        self.remarks: list[str] = []
        self.looked: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        self.says: dict[str, str] = {}
        self.before: Callable[[str], object] = len

    def caption(self, name: str, look: Look) -> str:
        self.before(name)
        picture = look()
        self.looked.append(name)
        self.sizes.append(picture.size)
        if name in self.says:
            return self.says[name]
        return f"a painting of {picture.getpixel((picture.width // 2, picture.height // 2))}"


@pytest.fixture
def painter(monkeypatch: pytest.MonkeyPatch) -> Painter:
    painter = Painter()
    monkeypatch.setattr(work, "place_of", lambda model: Path())
    monkeypatch.setattr(work, "load", lambda folder, length: painter)
    return painter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures, the second with a caption."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(1, 5):
        Image.new("RGB", (40, 20), (number, 0, 0)).save(folder / f"{number}.png")
    (folder / "2.txt").write_text("mine\n", encoding="utf-8")
    return folder


PAINTER = Model("painter", "", None)


def texts(folder: Path) -> list[str]:
    return [picture.caption for picture in Dataset.open(folder).pictures]


def done(events: list[Event]) -> tuple[int, int, int]:
    last = events[-1]
    assert isinstance(last, Done)
    return last.written, last.passed, last.total


def test_what_is_missing_is_written_and_what_is_there_stays(folder: Path, painter: Painter) -> None:
    events = list(run(Order(folder, PAINTER)))
    assert texts(folder) == ["a painting of (1, 0, 0)", "mine", "a painting of (3, 0, 0)", "a painting of (4, 0, 0)"]
    assert painter.looked == ["1.png", "3.png", "4.png"]
    assert events[:2] == [Loading("painter"), Captioned("1.png", "a painting of (1, 0, 0)", 1, 3)]
    assert events[-1] == Done(3, 0, 3)


def test_only_with_overwrite_is_a_caption_replaced_and_it_can_be_taken_back(folder: Path, painter: Painter) -> None:
    assert done(list(run(Order(folder, PAINTER, overwrite=True)))) == (4, 0, 4)
    assert texts(folder)[1] == "a painting of (2, 0, 0)"
    edits = Edits(folder)
    for _ in range(4):
        edits.undo()
    assert texts(folder) == ["", "mine", "", ""]


def test_what_is_abandoned_is_gone_on_with(folder: Path, painter: Painter) -> None:
    for event in run(Order(folder, PAINTER)):
        if isinstance(event, Captioned) and event.name == "3.png":
            break
    assert texts(folder)[2:] == ["a painting of (3, 0, 0)", ""]
    assert done(list(run(Order(folder, PAINTER)))) == (1, 0, 1)
    assert painter.looked == ["1.png", "3.png", "4.png"]


def test_where_nothing_is_missing_no_model_is_loaded(folder: Path, painter: Painter) -> None:
    list(run(Order(folder, PAINTER)))
    assert list(run(Order(folder, PAINTER))) == [Done(0, 0, 0)]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_a_person_types_meanwhile_stays(folder: Path, painter: Painter, overwrite: bool) -> None:
    def type_it(name: str) -> None:
        if name == "3.png":
            Edits(folder).caption(name, "", "typed by hand")

    painter.before = type_it
    events = list(run(Order(folder, PAINTER, overwrite=overwrite)))
    assert texts(folder)[2] == "typed by hand"
    (passed,) = [event for event in events if isinstance(event, Passed)]
    assert (passed.name, done(events)[1]) == ("3.png", 1)
    assert "was changed meanwhile" in passed.message
    assert texts(folder)[3] == "a painting of (4, 0, 0)"


def test_what_was_typed_before_its_turn_is_not_even_looked_at(folder: Path, painter: Painter) -> None:
    painter.before = lambda name: Edits(folder).captions({"3.png": ("", "typed")} if name == "1.png" else {}, "typing")
    (passed,) = [event for event in run(Order(folder, PAINTER)) if isinstance(event, Passed)]
    assert passed.message == "3.png was given a caption meanwhile, which stays."
    assert painter.looked == ["1.png", "4.png"]


def test_a_picture_that_cannot_be_read_or_is_gone_is_told_and_passed_over(folder: Path, painter: Painter) -> None:
    whole = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(whole[:-30])
    (folder / "broken.jpg").write_bytes(b"not a picture at all")
    painter.before = lambda name: (folder / name).unlink() if name == "4.png" else None
    events = list(run(Order(folder, PAINTER)))
    assert isinstance(events[0], Remark)
    assert "broken.jpg" in events[0].message
    told = {event.name: event.message for event in events if isinstance(event, Passed)}
    assert "3.png is damaged" in told["3.png"]
    assert "4.png cannot be opened" in told["4.png"]
    assert done(events) == (1, 2, 3)


def test_a_caption_that_cannot_be_read_is_left_alone(folder: Path, painter: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "2.txt":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    (passed,) = [event for event in run(Order(folder, PAINTER)) if isinstance(event, Passed)]
    assert "2.txt cannot be read (Permission denied)" in passed.message
    assert painter.looked == ["1.png", "3.png", "4.png"]


def test_two_pictures_that_share_a_caption_are_one(folder: Path, painter: Painter) -> None:
    Image.new("RGB", (40, 20), (9, 9, 9)).save(folder / "1.jpg")
    events = list(run(Order(folder, PAINTER, overwrite=True)))
    assert painter.looked == ["1.jpg", "2.png", "3.png", "4.png"]
    assert done(events) == (4, 0, 4)


def test_the_style_and_the_trigger_are_left_out(folder: Path, painter: Painter) -> None:
    Edits(folder).trigger("", "pntstyl")
    painter.says = {"1.png": "A watercolor painting of a boat by Monet, pntstyl.", "3.png": "a painting", "4.png": ""}
    events = list(run(Order(folder, PAINTER, without="monet")))
    assert texts(folder) == ["A boat.", "mine", "", ""]
    told = {event.name: event.message for event in events if isinstance(event, Passed)}
    assert told == {
        "3.png": "3.png was passed over: nothing but its style was found to say of it: “a painting”.",
        "4.png": "4.png was passed over: nothing was found to say of it.",
    }


def test_the_part_that_training_sees_is_looked_at(folder: Path, painter: Painter) -> None:
    Edits(folder).set("crops", {"1.png": (0.5, 0.0, 1.0, 0.9)})
    list(run(Order(folder, PAINTER)))
    assert painter.sizes == [(20, 18), (40, 20), (40, 20)]


def test_what_a_model_remarks_is_told_once(folder: Path, painter: Painter) -> None:
    painter.before = lambda name: painter.remarks.extend(["It goes on without the card."] if name == "3.png" else [])
    events = list(run(Order(folder, PAINTER)))
    assert [type(event) for event in events] == [Loading, Captioned, Captioned, Remark, Captioned, Done]


def test_a_full_disk_ends_the_work(folder: Path, painter: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Edits, name: str, was: str, text: str) -> None:
        raise StorageError(f"Could not write {name}: the disk is full.")

    monkeypatch.setattr(Edits, "caption", full)
    with pytest.raises(StorageError, match=r"1\.png: the disk is full"):
        list(run(Order(folder, PAINTER)))
    assert painter.looked == ["1.png"]


def test_without_onnxruntime_no_tagger_is_downloaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(work, "fetching", lambda model: pytest.fail("something is downloaded"))
    with pytest.raises(CaptionerError, match="onnxruntime, which is not installed"):
        list(run(Order(folder, chosen("wd-vit"))))


def test_a_download_is_told_now_and_then(folder: Path, painter: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "fetching", lambda model: iter([(0, 9), (1, 9), (2, 9), (9, 9)]))
    assert list(run(Order(folder, PAINTER)))[:3] == [Fetched(0, 9), Fetched(9, 9), Loading("painter")]


def test_names_need_no_model(folder: Path) -> None:
    (folder / "1.png").rename(folder / "03_red-house (2).png")
    events = list(run(Order(folder, chosen("names"), template="{name}, outdoors")))
    assert texts(folder) == ["red house, outdoors", "mine", "", ""]
    assert not [event for event in events if isinstance(event, Loading)]


def test_a_folder_without_pictures_says_so(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"There is no picture to write a caption for in .*: add pictures first"):
        list(run(Order(tmp_path, PAINTER)))


def test_events_are_json_with_their_kind() -> None:
    assert as_json(Captioned("a.png", "a cat", 1, 2)) == {
        "is": "caption",
        "name": "a.png",
        "text": "a cat",
        "done": 1,
        "total": 2,
    }
    assert as_json(Done(1, 0, 1)) == {"is": "done", "written": 1, "passed": 0, "total": 1}
