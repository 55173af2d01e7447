"""Any file that a person drops -> an upright 8-bit sRGB picture, or a refusal in a sentence.

Content decides what a file is, never its name. Knows nothing of datasets, sizes that suit a model, or torch.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from trainer.errors import PictureError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif"})
"""Names that a folder is searched for."""

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF")
MOST_PIXELS = 64_000_000
LEAST_SIDE = 16

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""EXIF's orientations -> what sets them right; from 5 on, width and height change places."""

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, LookupError, TypeError, OverflowError, struct.error)
"""What Pillow's decoders raise over damaged files."""


@dataclass(frozen=True)
class Header:
    """What a picture's first bytes tell: its upright size in pixels, and its format by content."""

    width: int
    height: int
    format: str


def _opened(path: Path) -> Image.Image:
    """The picture with only its header read, its size checked. Raises `PictureError`."""
    try:
        if path.stat().st_size == 0:
            raise PictureError(f"{path.name} is empty: copy the picture again.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and of sizes, which are looked at below
            picture = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        raise PictureError(
            f"{path.name} is not a picture that can be read (its content is not JPEG, PNG, WebP, AVIF, TIFF, BMP or GIF): "
            "remove it or save it as one of these."
        ) from None
    except Image.DecompressionBombError:
        raise PictureError(f"{path.name} has far too many pixels: scale it down to below 64 megapixels.") from None
    except OSError as error:
        raise PictureError(f"{path.name} cannot be opened ({error.strerror or error}).") from None
    except _DAMAGE as error:
        raise PictureError(f"{path.name} is damaged and cannot be opened ({error}): copy or export it again.") from None
    width, height = picture.size
    if min(width, height) >= LEAST_SIDE and width * height <= MOST_PIXELS:
        return picture
    picture.close()
    if width * height > MOST_PIXELS:
        raise PictureError(f"{path.name} has {width} x {height} pixels: scale it down to below 64 megapixels.")
    raise PictureError(f"{path.name} has only {width} x {height} pixels: use a larger picture.")


def _orientation(picture: Image.Image) -> int:
    """EXIF's orientation; 1, which is upright, where it is missing or damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except _DAMAGE:
        return 1


def read_header(path: Path) -> Header:
    """Size and format without decoding. Raises `PictureError`."""
    with _opened(path) as picture:
        width, height = picture.size
        if _orientation(picture) >= 5 and picture.format != "TIFF":  # Pillow has exchanged a TIFF's sides already
            width, height = height, width
        return Header(width, height, picture.format or "")


def read_picture(path: Path, background: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """The picture upright, in sRGB, mode RGB; transparency is laid on `background`, an animation gives its first frame.

    Raises `PictureError` if any part of it cannot be decoded.
    """
    with _decoded(path) as upright:
        return _on_background(_to_srgb(_to_eight_bit(upright)), background)


def transparent(path: Path) -> bool:
    """Whether a picture can be transparent anywhere, without decoding. Raises `PictureError`."""
    with _opened(path) as picture:
        return _has_alpha(picture)


def read_alpha(path: Path) -> Image.Image | None:
    """How opaque each pixel is, upright, mode L, 255 where nothing shines through; None if that is everywhere.

    Raises `PictureError` if any part of it cannot be decoded.
    """
    with _decoded(path) as upright:
        picture = _to_eight_bit(upright)
        if not _has_alpha(picture):
            return None
        alpha = (picture if "A" in picture.getbands() else picture.convert("RGBA")).getchannel("A")
        return None if alpha.getextrema() == (255, 255) else alpha


def _has_alpha(picture: Image.Image) -> bool:
    return "A" in picture.getbands() or "transparency" in picture.info


@contextmanager
def _decoded(path: Path) -> Iterator[Image.Image]:
    """The whole picture, upright, as it is stored. Raises `PictureError`."""
    with _opened(path) as picture:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                picture.load()
            turn = _UPRIGHT.get(_orientation(picture))
            upright = picture if turn is None else picture.transpose(turn)
        except Image.DecompressionBombError:
            raise PictureError(f"{path.name} has far too many pixels: scale it down to below 64 megapixels.") from None
        except _DAMAGE as error:
            raise PictureError(f"{path.name} is damaged and cannot be decoded ({error}): copy or export it again.") from None
        yield upright


def _to_eight_bit(picture: Image.Image) -> Image.Image:
    """16-bit and floating-point greys, rescaled; `convert` would clip them to white."""
    if not picture.mode.startswith(("I", "F")):
        return picture
    values = np.asarray(picture, dtype=np.float64)
    top = 65535.0 if picture.mode.startswith("I") else max(1.0, float(values.max()))
    return Image.fromarray((values / top * 255).clip(0, 255).round().astype(np.uint8))


def _to_srgb(picture: Image.Image) -> Image.Image:
    """Through the embedded ICC profile; without one, or with a broken one, by Pillow's plain conversion."""
    alpha = picture.getchannel("A") if "A" in picture.getbands() else None
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")
        alpha = picture.getchannel("A")
    profile = picture.info.get("icc_profile")
    colours = picture
    if picture.mode in ("P", "PA", "RGBA", "1"):
        colours = picture.convert("RGB")
    elif picture.mode == "LA":
        colours = picture.convert("L")
    if profile and colours.mode in ("RGB", "L", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(colours, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            colours = converted if converted is not None else colours
        except (ImageCms.PyCMSError, OSError):
            colours = colours.convert("RGB")
    colours = colours.convert("RGB")
    if alpha is not None:
        colours.putalpha(alpha)
    return colours


def _on_background(picture: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Pixels under full transparency are whatever the painter left there: they must not show."""
    if picture.mode != "RGBA":
        return picture
    paper = Image.new("RGBA", picture.size, (*background, 255))
    return Image.alpha_composite(paper, picture).convert("RGB")
