"""Frames and corners: what was put there is found to the pixel, and a plain background is not a frame."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.data.photographs import compressed, framed, marked, photograph
from trainer.data.checkup.looks import Values
from trainer.data.checkup.margins import Border, border, corner


def values(picture: Image.Image) -> Values:
    return np.asarray(picture)


def grey(picture: Image.Image) -> Values:
    return np.asarray(picture.convert("L"), dtype=np.float32)


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return photograph(5, (512, 400))


@pytest.mark.parametrize("around", [(20, 20, 20, 20), (0, 30, 0, 50), (7, 0, 90, 0), (3, 4, 5, 6), (0, 0, 0, 0)])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (30, 90, 60)])
def test_a_frame_is_found_to_the_pixel(picture: Image.Image, around: Border, colour: tuple[int, int, int]) -> None:
    assert border(values(framed(picture, around, colour))) == around


@pytest.mark.parametrize("around", [(20, 20, 20, 20), (0, 30, 0, 50), (0, 0, 90, 17)])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (30, 90, 60)])
def test_jpeg_blurs_a_frame_a_little(picture: Image.Image, around: Border, colour: tuple[int, int, int]) -> None:
    assert border(values(compressed(framed(picture, around, colour), 80))) == pytest.approx(around, abs=2)


def test_a_plain_background_is_no_frame() -> None:
    drawing = Image.new("RGB", (300, 300), "navy")
    ImageDraw.Draw(drawing).ellipse((60, 80, 240, 250), fill="white")
    assert border(values(drawing)) == (0, 0, 0, 0)


def test_a_hair_line_is_no_frame(picture: Image.Image) -> None:
    assert border(values(framed(picture, (2, 2, 2, 2), (255, 255, 255)))) == (0, 0, 0, 0)


def test_a_picture_of_one_colour_has_none() -> None:
    assert border(values(Image.new("RGB", (90, 60), "red"))) == (0, 0, 0, 0)


@pytest.mark.parametrize("seed", range(4))
def test_letters_are_found_in_each_corner(seed: int) -> None:
    picture = photograph(20 + seed, (512, 512))
    assert corner(grey(picture)) == 0
    assert corner(grey(marked(picture, seed))) > 0.5


def test_letters_everywhere_are_a_page() -> None:
    page = Image.new("RGB", (512, 512), "white")
    for line in range(12):
        ImageDraw.Draw(page).text((10, 10 + 40 * line), "all work and no play makes Jack", fill="black", font_size=28)
    assert corner(grey(page)) < 0.25


@pytest.mark.parametrize("size", [(1, 1), (100, 900), (128, 128)])
def test_small_and_long_pictures_are_looked_at_too(size: tuple[int, int]) -> None:
    blank = Image.new("RGB", size)
    assert corner(grey(blank)) == 0
    assert border(values(blank)) == (0, 0, 0, 0)
