"""What the page's mask painter asks for, under `/studio`: the mask that a picture has, as paint; and what was painted.

Knows no Gradio; what a mask is says `trainer.data.masks`.
"""

from __future__ import annotations

import io
from typing import Annotated

from fastapi import APIRouter, Body, FastAPI
from fastapi.responses import Response
from PIL import Image, UnidentifiedImageError

from app.desk import Desk
from trainer.data import masks
from trainer.data.dataset import Picture
from trainer.data.editing.edits import Edits
from trainer.errors import DatasetError, PictureError

SIDE = 768
"""Longest side of the copy that is painted on, in pixels."""

PAINT = "#e9b555"

MOST_BYTES = 8 * 2**20
"""Of a painting, which is a PNG of one colour."""


def add(app: FastAPI, desk: Desk) -> None:
    """Have `app` answer."""
    app.include_router(Painting(desk).router())


class Painting:
    """What is asked for by whoever looks at the page."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def router(self) -> APIRouter:
        """The addresses."""
        router = APIRouter(prefix="/studio")
        mask = "/datasets/{dataset}/pictures/{name}/mask"
        router.get(mask)(self.paint)
        router.put(mask)(self.keep)
        router.delete(mask)(self.remove)
        return router

    def paint(self, dataset: str, name: str) -> Response:
        """The mask that a picture has as a PNG of paint where something is learnt; 204 if it has none."""
        picture = self.desk.picture(dataset, name)
        if masks.found(picture.path) is None:
            return Response(status_code=204)
        content = io.BytesIO()
        as_paint(picture).save(content, "PNG")
        return Response(content.getvalue(), media_type="image/png", headers={"Cache-Control": "no-store"})

    def keep(self, dataset: str, name: str, painted: Annotated[bytes, Body(media_type="image/png")]) -> None:
        """Write what was painted, a PNG that is transparent elsewhere, as the picture's mask."""
        picture = self.desk.picture(dataset, name)
        content = io.BytesIO()
        masks.of_painting(_opened(painted), (picture.width, picture.height)).save(content, "PNG")
        Edits(picture.path.parent).mask(name, content.getvalue())

    def remove(self, dataset: str, name: str) -> None:
        """Take every mask of a picture away."""
        Edits(self.desk.picture(dataset, name).path.parent).mask(name, None)


def as_paint(picture: Picture) -> Image.Image:
    """The mask that a picture has, in a size to paint on, transparent where nothing is learnt. Raises `PictureError`."""
    scale = min(1.0, SIDE / max(picture.width, picture.height))
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    layer = Image.new("RGBA", size, (0, 0, 0, 0))
    mask = masks.read(picture.path)
    if mask is not None:
        layer.paste(PAINT, (0, 0, *size), mask.resize(size).point(lambda value: 255 * (value > 127)))
    return layer


def _opened(painted: bytes) -> Image.Image:
    """A painting from the page. Raises `DatasetError`, `PictureError`."""
    if len(painted) > MOST_BYTES:
        raise DatasetError("The painting is too large to be a mask: paint it anew.")
    try:
        painting = Image.open(io.BytesIO(painted), formats=["PNG"])
        if max(painting.size) > SIDE + 1:
            raise PictureError("The painting is larger than what was painted on: paint it anew.")
        painting.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise PictureError(f"The painting cannot be read ({error}): paint it anew.") from None
    return painting
