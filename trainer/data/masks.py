"""Masks: what of a picture is to be learnt. Knows no torch.

A mask is a picture, white where something is learnt and black where nothing is. The mask of `NAME.*` is the first of these:
`masks/NAME.mask.png` (painted here; in a subfolder, so that no other tool takes it for a picture), `NAME.mask.png` beside the
picture, `NAME-masklabel.png` beside it (the name that OneTrainer gives them); without one, the picture's own transparency.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.data import intake
from trainer.errors import PictureError

FOLDER = "masks"
"""Where in a dataset masks are put."""

SUFFIX = ".mask.png"
"""How the name of a mask ends that is put there."""

SUFFIXES = (SUFFIX, "-masklabel.png")
"""How the name of any mask ends."""

CELL = 8
"""Pixels along each side of a latent's place."""


def is_mask(path: Path) -> bool:
    """Whether a file is a mask, by its name."""
    return path.name.lower().endswith(SUFFIXES)


def picture_stem(mask: Path) -> str:
    """The name, without its suffix, of the picture that a mask belongs to."""
    return next(mask.name[: -len(suffix)] for suffix in SUFFIXES if mask.name.lower().endswith(suffix))


def mask_path(picture: Path) -> Path:
    """Where a new mask of a picture is to be put."""
    return picture.parent / FOLDER / f"{picture.stem}{SUFFIX}"


def places(picture: Path) -> tuple[Path, ...]:
    """Where a mask of a picture may be; the first that is there counts."""
    return (mask_path(picture), *(picture.with_name(picture.stem + suffix) for suffix in SUFFIXES))


def found(picture: Path) -> Path | None:
    """The file that is the mask of a picture; None if there is none."""
    return next((path for path in places(picture) if os.path.isfile(path)), None)  # False for a name that is too long


def within(folder: Path) -> list[Path]:
    """Every mask of a dataset's folder, whether or not its picture is there."""
    return sorted(path for path in (*folder.iterdir(), *folder.glob(f"{FOLDER}/*{SUFFIX}")) if is_mask(path))


def tag(picture: Path) -> bytes:
    """What a picture's mask depends on beyond the picture itself; empty if it has none. Raises `PictureError`."""
    mask = found(picture)
    if mask is None:
        return b"alpha" if intake.transparent(picture) else b""
    try:
        return b"mask" + mask.read_bytes()
    except OSError as error:
        raise PictureError(f"The mask of {picture.name} cannot be opened ({mask.name}: {error.strerror or error}).") from None


def read(picture: Path) -> Image.Image | None:
    """The mask of a picture, mode L, upright and of its shape; None if it has none. A file counts before transparency.

    Raises `PictureError`, which names the picture first, for that is what cannot be used, if a mask cannot be read, has
    another shape than the picture, or nothing in it is to be learnt.
    """
    path = found(picture)
    if path is None:
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


def of_painting(painting: Image.Image, size: tuple[int, int]) -> Image.Image:
    """What was painted over a picture of this upright size (width, height) as its mask: white wherever any paint is.

    `painting` is transparent where nothing was painted, with as many pixels as the picture or fewer. Raises `PictureError`
    if it has another shape, or nothing is painted.
    """
    if not _alike(painting.size, size):
        raise PictureError(
            f"The mask was painted on {painting.width} x {painting.height} pixels, and the picture has {size[0]} x {size[1]}: "
            "paint on the whole picture, without cropping or turning it."
        )
    painted = painting.convert("RGBA").getchannel("A").point(lambda opaque: 255 * (opaque > 0))
    if not painted.getbbox():
        raise PictureError("Nothing is painted: paint over what is to be learnt, or delete the mask.")
    return painted if painted.size == size else painted.resize(size, Image.Resampling.BILINEAR)


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
