"""Masks: whose they are, what they show, and the sentences for those that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from trainer.data.masks import found, is_mask, mask_path, of_latent, of_painting, picture_stem, places, read, tag, within
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
    assert mask_path(Path("set/a.b.jpg")) == Path("set/masks/a.b.mask.png")
    for name in ("set/a.b-masklabel.png", "set/a.b.mask.png", "set/masks/a.b.mask.png", "a.b-MaskLabel.PNG", "a.b.MASK.png"):
        assert is_mask(Path(name))
        assert picture_stem(Path(name)) == "a.b"
    others = ("a.png", "masklabel.png", "a-masklabel.jpg", "a-masklabel-2.png", "a.mask.jpg", "mask.png", "a-mask.png")
    assert not any(is_mask(Path(name)) for name in others)


def test_the_first_of_a_pictures_masks_counts(tmp_path: Path) -> None:
    """What was painted here, then what another tool has left; each shows another share of the picture."""
    of = picture(tmp_path / "a.png", (100, 64))
    (tmp_path / "masks").mkdir()
    names = ("masks/a.mask.png", "a.mask.png", "a-masklabel.png")
    for name, share in zip(reversed(names), (10, 20, 30), strict=True):
        drawn = Image.new("L", (100, 64))
        drawn.paste(255, (0, 0, share, 64))
        drawn.save(tmp_path / name)
        got = read(of)
        assert got is not None
        assert got.getbbox() == (0, 0, share, 64)
        assert found(of) == tmp_path / name
        assert tag(of) == b"mask" + (tmp_path / name).read_bytes()
    assert places(of) == tuple(tmp_path / name for name in names)


def test_all_masks_of_a_folder_are_found(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    assert within(tmp_path) == []
    names = ["a-masklabel.png", "b.mask.png", "masks/c.mask.png"]
    for name in [*names, "d.png", "masks/e.png", "f.txt"]:
        (tmp_path / name).touch()
    assert within(tmp_path) == [tmp_path / name for name in names]


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


# What is painted ----------------------------------------------------------------------------------------------------------


def painting(size: tuple[int, int], colour: tuple[int, int, int, int]) -> Image.Image:
    """A layer that is painted in its left quarter."""
    layer = Image.new("RGBA", size)
    layer.paste(colour, (0, 0, size[0] // 4, size[1]))
    return layer


@pytest.mark.parametrize("colour", [(255, 255, 255, 255), (0, 0, 0, 255), (255, 0, 0, 90), (0, 0, 0, 1)])
def test_the_mask_is_white_wherever_any_paint_is(colour: tuple[int, int, int, int]) -> None:
    mask = of_painting(painting((80, 64), colour), (80, 64))
    assert (mask.mode, mask.size, mask.getbbox()) == ("L", (80, 64), (0, 0, 20, 64))
    assert mask.getextrema() == (0, 255)
    assert sorted(set(mask.tobytes())) == [0, 255]


def test_a_painting_on_a_smaller_copy_becomes_as_large_as_the_picture(tmp_path: Path) -> None:
    mask = of_painting(painting((100, 75), (255, 0, 0, 255)), (800, 601))
    assert mask.size == (800, 601)
    assert np.asarray(mask).mean() / 255 == pytest.approx(0.25, abs=0.01)
    mask_path(tmp_path / "a.png").parent.mkdir()
    mask.save(mask_path(tmp_path / "a.png"))
    got = read(picture(tmp_path / "a.png", (800, 601)))
    assert got is not None
    assert got.tobytes() == mask.tobytes()


def test_a_painting_of_another_shape_or_of_nothing_is_told_of() -> None:
    told = r"^The mask was painted on 64 x 80 pixels, and the picture has 80 x 64: paint on the whole picture, without "
    with pytest.raises(PictureError, match=told):
        of_painting(painting((64, 80), (255, 0, 0, 255)), (80, 64))
    with pytest.raises(PictureError, match=r"^Nothing is painted: paint over what is to be learnt, or delete the mask\.$"):
        of_painting(painting((80, 64), (255, 255, 255, 0)), (80, 64))
