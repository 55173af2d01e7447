"""Masks: what of a picture is to be learnt. Knows no torch.

A mask is a picture `NAME-masklabel.png` beside `NAME.*`, white where something is learnt and black where nothing is (the name
that OneTrainer gives them); without one, the picture's own transparency.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from trainer.data import intake
from trainer.errors import PictureError

SUFFIX = "-masklabel.png"

CELL = 8
"""Pixels along each side of a latent's place."""


def is_mask(path: Path) -> bool:
    """Whether a file is a mask, by its name."""
    return path.name.lower().endswith(SUFFIX)


def picture_stem(mask: Path) -> str:
    """The name, without its suffix, of the picture that a mask belongs to."""
    return mask.name[: -len(SUFFIX)]


def mask_path(picture: Path) -> Path:
    """Where the mask of a picture is, or would be."""
    return picture.with_name(picture.stem + SUFFIX)


def tag(picture: Path) -> bytes:
    """What a picture's mask depends on beyond the picture itself; empty if it has none. Raises `PictureError`."""
    mask = mask_path(picture)
    try:
        if mask.is_file():
            return b"mask" + mask.read_bytes()
    except OSError as error:
        raise PictureError(f"The mask of {picture.name} cannot be opened ({mask.name}: {error.strerror or error}).") from None
    return b"alpha" if intake.transparent(picture) else b""


def read(picture: Path) -> Image.Image | None:
    """The mask of a picture, mode L, upright and of its shape; None if it has none. A file counts before transparency.

    Raises `PictureError`, which names the picture first, for that is what cannot be used, if a mask cannot be read, has
    another shape than the picture, or nothing in it is to be learnt.
    """
    path = mask_path(picture)
    if not path.is_file():
        mask = intake.read_alpha(picture)
        if mask is not None and not mask.getbbox():
            raise PictureError(f"{picture.name} is wholly transparent: with masked_loss nothing of it would be learnt.")
        return mask
    try:
        mask = intake.read_picture(path, background=(0, 0, 0)).convert("L")
    except PictureError as error:
        raise PictureError(f"{picture.name} has a mask that cannot be used: {error}") from None
    header = intake.read_header(picture)
    if not _alike(mask.size, (header.width, header.height)):
        raise PictureError(
            f"{picture.name} has a mask of another shape: {path.name} has {mask.width} x {mask.height} pixels, and the picture "
            f"{header.width} x {header.height}. Save the mask in that size, or delete it."
        )
    if not mask.getbbox():
        raise PictureError(
            f"{picture.name} has a mask that is all black: paint white in {path.name} what is to be learnt, or delete it."
        )
    return mask


def of_latent(mask: Image.Image) -> np.ndarray[tuple[int, int, int], np.dtype[np.float32]]:
    """A mask (w, h) in a bucket's size -> the mean of each of the latent's places, (1, h/8, w/8) in 0 … 1."""
    values = np.asarray(mask, dtype=np.float32) / 255
    height, width = values.shape
    means: np.ndarray[tuple[int, int, int], np.dtype[np.float32]]
    means = values.reshape(1, height // CELL, CELL, width // CELL, CELL).mean(axis=(2, 4))
    return means


def _alike(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes have the same ratio, to a pixel of either."""
    across, down = one[0] * other[1], one[1] * other[0]
    return abs(across - down) <= max(*one, *other)
