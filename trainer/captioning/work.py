"""Captions for the pictures of a dataset, one after the other, each written at once: what ends in between loses nothing.

A caption that is there is not touched, unless that is asked for; one that changes while its picture is being looked at stays as
it was changed. Whoever begins again goes on with the pictures that have none. Knows no torch.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.captioning.captioner import Captioner, FileNames, load
from trainer.captioning.events import Captioned, Done, Event, Fetched, Loading, Passed, Remark
from trainer.captioning.models import Length, Model
from trainer.captioning.place import fetching, place_of
from trainer.captioning.tagger import check_installed
from trainer.data import intake
from trainer.data.buckets import Cut
from trainer.data.captions import one_line
from trainer.data.crops import Framing
from trainer.data.dataset import Dataset, Picture
from trainer.data.editing.edits import Edits
from trainer.data.style_words import StyleWords
from trainer.errors import DatasetError

if TYPE_CHECKING:
    from PIL import Image

PACE = 0.5
"""Seconds between two tellings of a download."""


@dataclass(frozen=True)
class Order:
    """What is to be done: the dataset's folder, what writes, and how."""

    folder: Path
    model: Model
    length: Length = "long"
    template: str = "{name}"
    """Of captions from file names."""
    overwrite: bool = False
    without: str | None = None
    """Leave style words out, and these of the person's own, separated by commas; None: leave nothing out."""


def run(order: Order) -> Iterator[Event]:
    """Write the captions that are missing, or all; ends with `Done`. May be abandoned between any two events.

    Raises `DatasetError`, `CaptionerError`, `BaseModelError`, `StorageError` for what ends the work as a whole.
    """
    dataset = Dataset.open(order.folder)
    if not dataset.pictures:
        raise DatasetError(f"There is no picture to write a caption for in {order.folder}: add pictures first.")
    yield from map(Remark, dataset.refused)
    pictures = list({picture.caption_path: picture for picture in reversed(dataset.pictures)}.values())[::-1]
    wanting = [picture for picture in pictures if order.overwrite or _lacks_caption(picture)]
    events: Iterator[Event] = iter(())
    if wanting:
        captioner = yield from _ready(order)
        events = _Writing(dataset, captioner, order).all(wanting)
    written = passed = 0
    for event in events:
        written += isinstance(event, Captioned)
        passed += isinstance(event, Passed)
        yield event
    yield Done(written, passed, len(wanting))


def _lacks_caption(picture: Picture) -> bool:
    """Whether a picture has no caption, or one of which is to be told that it cannot be read."""
    try:
        return not picture.caption
    except DatasetError:
        return True


def _ready(order: Order) -> Generator[Event, None, Captioner]:
    """What writes, brought here and loaded."""
    if order.model.kind == "names":
        return FileNames(order.template)
    if order.model.kind == "tags":
        check_installed()  # before a download that would be for nothing
    told = 0.0
    for done, total in fetching(order.model):
        if done == total or time.monotonic() - told >= PACE:
            told = time.monotonic()
            yield Fetched(done, total)
    place = place_of(order.model)
    assert place is not None, "what was fetched is here"
    yield Loading(order.model.name)
    return load(place, order.length)


class _Writing:
    """The work on one dataset."""

    def __init__(self, dataset: Dataset, captioner: Captioner, order: Order) -> None:
        self._captioner, self._overwrite = captioner, order.overwrite
        self._edits, self._cuts = Edits(dataset.folder, "automatic captions"), Framing.of(dataset).cuts
        self._style = None if order.without is None else StyleWords.told(order.without, dataset.trigger)

    def all(self, pictures: list[Picture]) -> Iterator[Event]:
        """Every picture in turn."""
        total = len(pictures)
        for done, picture in enumerate(pictures, start=1):
            name = picture.path.name
            try:
                yield Captioned(name, self._one(picture), done, total)
            except DatasetError as error:
                yield Passed(name, str(error), done, total)
            yield from map(Remark, self._captioner.remarks)
            self._captioner.remarks.clear()

    def _one(self, picture: Picture) -> str:
        """Write the caption of a picture. Raises `DatasetError` if it stays as it is."""
        name, was = picture.path.name, picture.caption
        if was and not self._overwrite:
            raise DatasetError(f"{name} was given a caption meanwhile, which stays.")
        said = one_line(self._captioner.caption(name, lambda: _seen(picture.path, self._cuts.get(name))))
        text = self._style.out_of(said) if self._style else said
        if not text:
            left = f"nothing but its style was found to say of it: “{said}”" if said else "nothing was found to say of it"
            raise DatasetError(f"{name} was passed over: {left}.")
        self._edits.caption(name, was, text)
        return text


def _seen(path: Path, cut: Cut | None) -> Image.Image:
    """The picture, or the part of it that the dataset cuts it to. Raises `PictureError`."""
    picture = intake.read_picture(path)
    return picture.crop(cut.box) if cut else picture
