"""Pictures of any mode -> 8-bit sRGB. Knows no files: what is given is decoded and upright."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageCms

STRIP = 256
"""Rows that are rescaled at a time: floating-point numbers take eight times what the picture does."""

SAME = 2
"""A profile that moves no colour by more than this, of 255, is taken for sRGB itself: the ones in use differ by rounding."""


def to_eight_bit(picture: Image.Image) -> Image.Image:
    """16-bit and floating-point greys, rescaled; `convert` would clip them to white."""
    if not picture.mode.startswith(("I", "F")):
        return picture
    values = np.asarray(picture)
    top = 65535.0 if picture.mode.startswith("I") else max(1.0, float(values.max()))
    scaled = np.empty(values.shape, dtype=np.uint8)
    for row in range(0, len(values), STRIP):
        strip = values[row : row + STRIP].astype(np.float64)
        scaled[row : row + STRIP] = (strip / top * 255).clip(0, 255).round()
    eight = Image.fromarray(scaled)
    eight.info = {key: value for key, value in picture.info.items() if key == "icc_profile"}
    return eight


def has_alpha(picture: Image.Image) -> bool:
    """Whether the picture can be transparent anywhere."""
    return "A" in picture.getbands() or "transparency" in picture.info


def alpha_of(picture: Image.Image) -> Image.Image | None:
    """How opaque each pixel is, mode L; None if all are opaque."""
    if not has_alpha(picture):
        return None
    alpha = (picture if "A" in picture.getbands() else picture.convert("RGBA")).getchannel("A")
    return None if alpha.getextrema() == (255, 255) else alpha


def to_srgb(picture: Image.Image) -> Image.Image:
    """Through the embedded ICC profile; without one, or with a broken one, by Pillow's plain conversion. Mode RGB or RGBA."""
    alpha = picture.getchannel("A") if "A" in picture.getbands() else None
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")
        alpha = picture.getchannel("A")
    profile = picture.info.get("icc_profile")
    colours = _without_alpha(picture)
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


def _without_alpha(picture: Image.Image) -> Image.Image:
    if picture.mode in ("P", "PA", "RGBA", "1"):
        return picture.convert("RGB")
    return picture.convert("L") if picture.mode == "LA" else picture


def on_background(picture: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Pixels under full transparency are whatever the painter left there: they must not show."""
    if picture.mode != "RGBA":
        return picture
    paper = Image.new("RGBA", picture.size, (*background, 255))
    return Image.alpha_composite(paper, picture).convert("RGB")


def is_srgb(picture: Image.Image) -> bool:
    """Whether a program that knows nothing of profiles shows the picture's colours as they are meant."""
    if picture.mode in ("CMYK", "LAB", "YCbCr", "HSV"):
        return False
    profile = picture.info.get("icc_profile")
    if not profile:
        return True
    return _moves_nothing(profile, "L" if picture.mode in ("L", "LA", "I;16") else "RGB")


@lru_cache(maxsize=32)
def _moves_nothing(profile: bytes, mode: Literal["L", "RGB"]) -> bool:
    """Whether colours from all over the space stay where they are on their way to sRGB; so does what cannot be used."""
    levels = np.linspace(0, 255, 6).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(12, 18, 3)
    asked = Image.fromarray(cube if mode == "RGB" else np.tile(np.arange(256, dtype=np.uint8), (2, 1)))
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        got = ImageCms.profileToProfile(asked, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return True
    moved = np.abs(np.asarray(got, dtype=np.int16) - np.asarray(asked.convert("RGB"), dtype=np.int16))
    return int(moved.max()) <= SAME
