"""What writes captions, of whatever kind, and the way from a model's folder to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from trainer.captioning.models import Length
from trainer.captioning.place import kind_at
from trainer.data.naming import caption_of, check_template

if TYPE_CHECKING:
    from PIL import Image

Look = Callable[[], "Image.Image"]
"""Reads the picture, upright and in RGB, if it is wanted; raises `PictureError`."""


class Captioner(Protocol):
    """Writes captions; what there is to tell a person of its work is in `remarks` until it is taken out."""

    remarks: list[str]

    def caption(self, name: str, look: Look) -> str:
        """The caption of the picture with this file name, in one line. Raises `CaptionerError`, `PictureError`."""


class FileNames:
    """Captions without a model: what a picture's file name says, in a template."""

    def __init__(self, template: str = "{name}") -> None:
        """Raises `UsageError` for a template with no place for the name."""
        self.remarks: list[str] = []
        self._template = check_template(template)

    def caption(self, name: str, look: Look) -> str:
        """See `Captioner`; the picture is not looked at."""
        return caption_of(name, self._template)


def load(folder: Path, length: Length = "long") -> Captioner:
    """The model in a folder, ready to write. Raises `CaptionerError`."""
    kind = kind_at(folder)
    if kind == "tags":
        from trainer.captioning.tagger import Tagger

        return Tagger(folder)
    if kind == "blip":
        from trainer.captioning.blip import Blip

        return Blip(folder)
    from trainer.captioning.florence import Florence

    return Florence(folder, length)
