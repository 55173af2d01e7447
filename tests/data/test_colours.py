"""Colours as they are meant: what is sRGB already, and what becomes it."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.data.test_intake import swapped_profile
from trainer.data.colours import STRIP, alpha_of, is_srgb, to_eight_bit, to_srgb


def linear_grey() -> bytes:
    """A minimal ICC profile (ICC.1:2001-04) of greys whose values count light: half of them is brighter than sRGB's half."""
    white = b"XYZ \0\0\0\0" + struct.pack(">iii", 63190, 65536, 54061)
    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, 0x0100, 0)
    tags = struct.pack(">I4sII4sII", 2, b"wtpt", 156, len(white), b"kTRC", 156 + len(white), len(curve))
    size = 128 + len(tags) + len(white) + len(curve)
    header = struct.pack(">I4xI4s4s4s12x4s", size, 0x02100000, b"mntr", b"GRAY", b"XYZ ", b"acsp") + bytes(28)
    return (header + struct.pack(">iii", 63190, 65536, 54061)).ljust(128, b"\0") + tags + white + curve


def srgb(linear: float) -> float:
    """IEC 61966-2-1, both in 0 … 1."""
    return linear * 12.92 if linear <= 0.0031308 else float(1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_a_grey_profile_is_followed(mode: str) -> None:
    top = {"L": 255, "I;16": 65535}[mode]
    ramp = np.linspace(0, top, 64).round().astype(np.uint8 if mode == "L" else np.uint16)
    picture = Image.fromarray(np.tile(ramp, (2, 1)))
    picture.info["icc_profile"] = linear_grey()
    assert picture.mode == mode
    assert not is_srgb(picture)
    got = np.asarray(to_srgb(to_eight_bit(picture)))[0, :, 0]
    wanted = [srgb(round(value / top * 255) / 255) * 255 for value in ramp.tolist()]
    assert np.abs(got - np.array(wanted))[3:].max() <= 2  # the steepest part, in the deepest shadows, is lcms's guess


def test_what_is_srgb_is_told_by_its_colours_not_by_its_name() -> None:
    picture = Image.new("RGB", (4, 4))
    assert is_srgb(picture)
    picture.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert is_srgb(picture)
    picture.info["icc_profile"] = swapped_profile()
    assert "sRGB".encode("utf-16-be") in swapped_profile()
    assert not is_srgb(picture)
    assert not is_srgb(Image.new("CMYK", (4, 4)))


@pytest.mark.parametrize("profile", [b"no profile", b"", swapped_profile()[:200]])
def test_a_broken_profile_says_nothing(profile: bytes) -> None:
    picture = Image.new("RGB", (4, 4))
    picture.info["icc_profile"] = profile
    assert is_srgb(picture)


def test_strips_make_no_seams() -> None:
    values = np.linspace(0, 65535, 3 * (STRIP * 2 + 7)).round().astype(np.uint16).reshape(-1, 3)
    got = np.asarray(to_eight_bit(Image.fromarray(values)))
    assert np.array_equal(got, (values.astype(float) / 65535 * 255).round())


def test_alpha_that_hides_nothing_is_none() -> None:
    assert alpha_of(Image.new("RGBA", (4, 4), (1, 2, 3, 255))) is None
    assert alpha_of(Image.new("RGB", (4, 4))) is None
    alpha = alpha_of(Image.new("LA", (4, 4), (1, 254)))
    assert alpha is not None
    assert alpha.getextrema() == (254, 254)
