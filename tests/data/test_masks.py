"""Masks: whose they are, what they show, and the sentences for those that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from trainer.data.masks import is_mask, mask_path, of_latent, picture_stem, read
from trainer.errors import PictureError


def picture(path: Path, size: tuple[int, int] = (80, 64)) -> Path:
    Image.new("RGB", size, "red").save(path)
    return path


def mask(path: Path, size: tuple[int, int] = (80, 64), mode: str = "L") -> Path:
    drawn = Image.new(mode, size)
    drawn.paste("white", (0, 0, size[0] // 2, size[1]))
    drawn.save(path)
    return path


def test_a_mask_is_known_by_its_name() -> None:
    assert mask_path(Path("set/a.b.jpg")) == Path("set/a.b-masklabel.png")
    assert picture_stem(Path("set/a.b-masklabel.png")) == "a.b"
    assert is_mask(Path("a-masklabel.png"))
    assert not any(is_mask(Path(name)) for name in ("a.png", "masklabel.png", "a-masklabel.jpg", "a-masklabel-2.png"))


def test_without_a_mask_there_is_none(tmp_path: Path) -> None:
    assert read(picture(tmp_path / "a.png")) is None


def test_a_picture_that_is_opaque_everywhere_has_no_mask(tmp_path: Path) -> None:
    Image.new("RGBA", (32, 32), (1, 2, 3, 255)).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png") is None


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "RGBA"])
def test_white_is_learnt(tmp_path: Path, mode: str) -> None:
    mask(tmp_path / "a-masklabel.png", mode=mode)
    got = read(picture(tmp_path / "a.png"))
    assert got is not None
    assert (got.mode, got.size) == ("L", (80, 64))
    assert (got.getpixel((5, 5)), got.getpixel((75, 5))) == (255, 0)


def test_transparency_is_read_upright(tmp_path: Path) -> None:
    stored = Image.new("RGBA", (64, 32), (255, 0, 0, 255))
    stored.paste((0, 0, 0, 0), (0, 0, 32, 32))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned by a quarter, clockwise
    stored.save(tmp_path / "a.webp", exif=exif, lossless=True)
    got = read(tmp_path / "a.webp")
    assert got is not None
    assert got.size == (32, 64)
    assert (got.getpixel((16, 5)), got.getpixel((16, 60))) == (0, 255)


def test_a_transparent_colour_of_a_palette_is_not_learnt(tmp_path: Path) -> None:
    drawn = Image.new("P", (32, 32), 1)
    drawn.putpalette([0, 0, 0, 255, 0, 0])
    drawn.paste(0, (0, 0, 16, 32))
    drawn.save(tmp_path / "a.gif", transparency=0)
    got = read(tmp_path / "a.gif")
    assert got is not None
    assert (got.getpixel((2, 2)), got.getpixel((30, 2))) == (0, 255)


@pytest.mark.parametrize("size", [(80, 64), (160, 128), (40, 32), (81, 64), (40, 31)])
def test_a_mask_of_the_same_shape_fits(tmp_path: Path, size: tuple[int, int]) -> None:
    mask(tmp_path / "a-masklabel.png", size)
    assert read(picture(tmp_path / "a.png")) is not None


@pytest.mark.parametrize("size", [(64, 80), (80, 80), (80, 60), (160, 120), (64, 64)])
def test_a_mask_of_another_shape_is_told_of(tmp_path: Path, size: tuple[int, int]) -> None:
    mask(tmp_path / "a-masklabel.png", size)
    told = (
        rf"^a\.png has a mask of another shape: a-masklabel\.png has {size[0]} x {size[1]} pixels, and the picture 80 x 64\. "
        r"Save the mask in that size, or delete it\.$"
    )
    with pytest.raises(PictureError, match=told):
        read(picture(tmp_path / "a.png"))


def test_a_black_mask_is_told_of(tmp_path: Path) -> None:
    Image.new("L", (80, 64)).save(tmp_path / "a-masklabel.png")
    told = r"^a\.png has a mask that is all black: paint white in a-masklabel\.png what is to be learnt, or delete it\.$"
    with pytest.raises(PictureError, match=told):
        read(picture(tmp_path / "a.png"))


def test_a_picture_that_is_nowhere_opaque_is_told_of(tmp_path: Path) -> None:
    Image.new("RGBA", (32, 32)).save(tmp_path / "a.png")
    with pytest.raises(PictureError, match=r"^a\.png is wholly transparent"):
        read(tmp_path / "a.png")


def test_a_mask_that_is_no_picture_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "a-masklabel.png").write_text("a letter")
    with pytest.raises(PictureError, match=r"^a\.png has a mask that cannot be used: a-masklabel\.png is not a picture"):
        read(picture(tmp_path / "a.png"))


def test_a_place_of_the_latent_gets_the_mean_of_its_pixels() -> None:
    values = np.random.default_rng(1).integers(0, 256, (16, 24), dtype=np.uint8)
    got = of_latent(Image.fromarray(values))
    assert got.shape == (1, 2, 3)
    assert got.dtype == np.float32
    for row in range(2):
        for column in range(3):
            cell = [int(values[8 * row + y, 8 * column + x]) for y in range(8) for x in range(8)]
            assert got[0, row, column] == pytest.approx(sum(cell) / 64 / 255, abs=1e-6)
