"""Any file a person drops: what it becomes, or the sentence that refuses it."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from pathlib import Path
from random import Random, random

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageFile

from tests.data.heic import CUT_OUT, TURNED
from trainer.data import intake
from trainer.data.intake import Header, normalised, read_alpha, read_header, read_picture, transparent
from trainer.errors import PictureError

Colour = tuple[int, int, int]
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def halves(left: Colour = RED, right: Colour = BLUE, size: tuple[int, int] = (64, 32)) -> Image.Image:
    """Two colours side by side."""
    picture = Image.new("RGB", size, left)
    picture.paste(right, (size[0] // 2, 0, *size))
    return picture


def near(got: object, wanted: Colour, within: int = 6) -> bool:
    """Whether a pixel has about this colour."""
    assert isinstance(got, tuple)
    return all(abs(one - other) <= within for one, other in zip(got, wanted, strict=True))


# Turned pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_jpeg_stands_upright(tmp_path: Path, orientation: int) -> None:
    upright = Image.new("RGB", (64, 32), RED)
    upright.paste(BLUE, (32, 0, 64, 16))
    upright.paste(GREEN, (32, 16, 64, 32))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored.save(tmp_path / "a.jpg", quality=95, exif=exif, subsampling=0)
    picture = read_picture(tmp_path / "a.jpg")
    assert read_header(tmp_path / "a.jpg") == Header(64, 32, "JPEG")
    assert picture.size == (64, 32)
    assert near(picture.getpixel((10, 16)), RED)
    assert near(picture.getpixel((50, 5)), BLUE)
    assert near(picture.getpixel((50, 27)), GREEN)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_other_formats_are_turned_too(tmp_path: Path, form: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    halves(size=(64, 32)).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a", form, exif=exif)
    assert read_header(tmp_path / "a") == Header(64, 32, form)
    picture = read_picture(tmp_path / "a")
    assert picture.size == (64, 32)
    assert near(picture.getpixel((10, 16)), RED, within=12)
    assert near(picture.getpixel((55, 16)), BLUE, within=12)


def test_a_png_that_says_at_its_end_how_it_is_meant_is_turned_too(tmp_path: Path) -> None:
    whole, exif = io.BytesIO(), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    halves(size=(64, 32)).transpose(Image.Transpose.ROTATE_90).save(whole, "PNG", exif=exif)
    content = whole.getvalue()
    at = content.index(b"eXIf") - 4
    end = at + 12 + int.from_bytes(content[at : at + 4], "big")
    (tmp_path / "a.png").write_bytes(content[:at] + content[end:-12] + content[at:end] + content[-12:])
    assert read_header(tmp_path / "a.png") == Header(64, 32, "PNG")
    assert near(read_picture(tmp_path / "a.png").getpixel((10, 16)), RED)
    assert normalised(tmp_path / "a.png").notes == ("turned upright",)


def test_the_header_of_a_png_is_read_without_its_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    halves().save(tmp_path / "a.png")

    def load(_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert read_header(tmp_path / "a.png") == Header(64, 32, "PNG")


@pytest.mark.parametrize("exif", [b"Exif\0\0junk", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0", b"no exif at all"])
def test_damaged_exif_is_no_reason_to_refuse(tmp_path: Path, exif: bytes) -> None:
    halves().save(tmp_path / "a.jpg", exif=exif)
    assert read_header(tmp_path / "a.jpg") == Header(64, 32, "JPEG")
    assert read_picture(tmp_path / "a.jpg").size == (64, 32)


# Transparency -----------------------------------------------------------------------------------------------------------


def test_what_transparency_hides_does_not_show(tmp_path: Path) -> None:
    picture = halves(BLACK, RED)
    alpha = Image.new("L", (64, 32), 0)
    alpha.paste(255, (32, 0, 64, 32))
    picture.putalpha(alpha)
    picture.save(tmp_path / "a.png")
    got = read_picture(tmp_path / "a.png")
    assert (got.mode, got.getpixel((5, 5)), got.getpixel((50, 5))) == ("RGB", WHITE, RED)


def test_transparency_is_laid_on_the_background_asked_for(tmp_path: Path) -> None:
    Image.new("RGBA", (32, 32), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", background=(10, 20, 30)).getpixel((5, 5)) == (10, 20, 30)


def test_half_transparency_mixes(tmp_path: Path) -> None:
    Image.new("RGBA", (32, 32), (255, 0, 0, 128)).save(tmp_path / "a.png")
    assert near(read_picture(tmp_path / "a.png").getpixel((5, 5)), (255, 127, 127), within=1)


def test_grey_with_alpha(tmp_path: Path) -> None:
    picture = Image.new("LA", (32, 32), (0, 0))
    picture.paste((100, 255), (16, 0, 32, 32))
    picture.save(tmp_path / "a.png")
    got = read_picture(tmp_path / "a.png")
    assert (got.getpixel((5, 5)), got.getpixel((20, 5))) == (WHITE, (100, 100, 100))


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_a_palette_with_a_transparent_colour(tmp_path: Path, form: str) -> None:
    picture = Image.new("P", (64, 32), 0)
    picture.putpalette([*BLACK, *RED, *BLUE])
    picture.paste(1, (32, 0, 64, 32))
    picture.save(tmp_path / "a", form, transparency=0)
    got = read_picture(tmp_path / "a")
    assert (got.getpixel((5, 5)), got.getpixel((50, 5))) == (WHITE, RED)


def test_a_palette_with_a_table_of_alphas(tmp_path: Path) -> None:
    picture = Image.new("P", (64, 32), 0)
    picture.putpalette([*BLACK, *RED, *BLUE])
    picture.paste(1, (32, 0, 64, 32))
    picture.save(tmp_path / "a.png", transparency=b"\x00\xff\xff")
    got = read_picture(tmp_path / "a.png")
    assert (got.getpixel((5, 5)), got.getpixel((50, 5))) == (WHITE, RED)


# Depth, colour spaces, formats ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_keeps_its_tones(tmp_path: Path, name: str) -> None:
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16)
    Image.fromarray(np.tile(ramp, (32, 1))).save(tmp_path / name)
    got = np.asarray(read_picture(tmp_path / name))[0, :, 0]
    assert abs(got.astype(float) - ramp / 257).max() <= 1


def test_floating_point_grey_keeps_its_tones(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 64, dtype=np.float32)
    Image.fromarray(np.tile(ramp, (32, 1))).save(tmp_path / "a.tif")
    got = np.asarray(read_picture(tmp_path / "a.tif"))[0, :, 0]
    assert abs(got.astype(float) - ramp * 255).max() <= 1


def test_black_and_white(tmp_path: Path) -> None:
    halves(BLACK, WHITE).convert("1").save(tmp_path / "a.png")
    got = read_picture(tmp_path / "a.png")
    assert (got.getpixel((5, 5)), got.getpixel((50, 5))) == (BLACK, WHITE)


def test_cmyk(tmp_path: Path) -> None:
    halves().convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    got = read_picture(tmp_path / "a.jpg")
    assert got.mode == "RGB"
    assert near(got.getpixel((5, 5)), RED)
    assert near(got.getpixel((60, 5)), BLUE)


def swapped_profile() -> bytes:
    """sRGB's ICC profile with the red and the green primary exchanged: nobody can overlook whether it was used."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    at = {bytes(profile[132 + 12 * n : 136 + 12 * n]): 132 + 12 * n for n in range(struct.unpack(">I", profile[128:132])[0])}
    red, green = at[b"rXYZ"], at[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_an_embedded_profile_is_followed(tmp_path: Path, form: str) -> None:
    Image.new("RGB", (32, 32), RED).save(tmp_path / "a", form, icc_profile=swapped_profile())
    assert near(read_picture(tmp_path / "a").getpixel((5, 5)), GREEN, within=12)


def test_an_embedded_profile_is_followed_beside_transparency(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (32, 32), (*RED, 255))
    picture.paste((*RED, 0), (16, 0, 32, 32))
    picture.save(tmp_path / "a.png", icc_profile=swapped_profile())
    got = read_picture(tmp_path / "a.png")
    assert near(got.getpixel((5, 5)), GREEN, within=12)
    assert got.getpixel((20, 5)) == WHITE


@pytest.mark.parametrize("profile", [b"no profile", b"", swapped_profile()[:200]], ids=["junk", "empty", "cut off"])
def test_a_broken_profile_is_passed_over(tmp_path: Path, profile: bytes) -> None:
    Image.new("RGB", (32, 32), RED).save(tmp_path / "a.png", icc_profile=profile)
    assert read_picture(tmp_path / "a.png").getpixel((5, 5)) == RED


def test_a_profile_of_another_colour_space_is_passed_over(tmp_path: Path) -> None:
    Image.new("L", (32, 32), 100).save(tmp_path / "a.png", icc_profile=swapped_profile())
    assert read_picture(tmp_path / "a.png").getpixel((5, 5)) == (100, 100, 100)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF"])
def test_every_format_is_read(tmp_path: Path, form: str) -> None:
    halves().save(tmp_path / "a", form)
    got = read_picture(tmp_path / "a")
    assert read_header(tmp_path / "a") == Header(64, 32, form)
    assert (got.mode, got.size) == ("RGB", (64, 32))
    assert near(got.getpixel((5, 5)), RED, within=12)
    assert near(got.getpixel((60, 5)), BLUE, within=12)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_picture(tmp_path: Path, form: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, GREEN, BLUE)]
    frames[0].save(tmp_path / "a", form, save_all=True, append_images=frames[1:])
    assert near(read_picture(tmp_path / "a").getpixel((5, 5)), RED)


def test_a_heic_of_a_telephone_stands_upright(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(TURNED)
    got = read_picture(tmp_path / "a.jpg")
    assert read_header(tmp_path / "a.jpg") == Header(64, 32, "HEIF")
    assert (got.mode, got.size) == ("RGB", (64, 32))
    assert near(got.getpixel((5, 16)), RED, within=12)
    assert near(got.getpixel((60, 16)), BLUE, within=12)


def test_a_heic_can_be_transparent(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(CUT_OUT)
    alpha = read_alpha(tmp_path / "a.heic")
    assert transparent(tmp_path / "a.heic")
    assert alpha is not None
    assert (alpha.getpixel((5, 5)), alpha.getpixel((60, 5))) == (0, 255)
    assert read_picture(tmp_path / "a.heic").getpixel((5, 5)) == WHITE


def test_heic_is_learnt_only_when_one_comes(tmp_path: Path) -> None:
    halves().save(tmp_path / "a.png")
    (tmp_path / "a.heic").write_bytes(TURNED)
    look = (
        "import sys; from pathlib import Path; from trainer.data.intake import read_header; names = []\n"
        "for name in ('a.png', 'a.heic'): read_header(Path(sys.argv[1], name)); names.append('pi_heif' in sys.modules)\n"
        "print(names)"
    )
    done = subprocess.run([sys.executable, "-c", look, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[False, True]"


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    halves().save(tmp_path / "a.jpg", "PNG")
    assert read_header(tmp_path / "a.jpg").format == "PNG"
    assert read_picture(tmp_path / "a.jpg").getpixel((5, 5)) == RED


# What a picture becomes in a dataset ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
def test_what_every_program_sees_alike_stays_as_it_is(tmp_path: Path, form: str, mode: str) -> None:
    if form == "JPEG" and mode in ("P", "RGBA"):
        pytest.skip("JPEG has neither")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1
    halves().convert(mode).save(tmp_path / "a", form, exif=exif)
    assert normalised(tmp_path / "a") == intake.Intake(None, {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}[form])


def test_a_profile_that_changes_nothing_is_no_reason_to_touch_a_picture(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    halves().save(tmp_path / "a.jpg", icc_profile=profile)
    assert normalised(tmp_path / "a.jpg").content is None
    halves().save(tmp_path / "a.jpg", icc_profile=swapped_profile())
    assert normalised(tmp_path / "a.jpg").notes == ("from its own colour profile to sRGB",)


def test_several_pictures_in_one_jpeg_are_a_jpeg(tmp_path: Path) -> None:
    halves().save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[halves(GREEN, GREEN)])
    with Image.open(tmp_path / "a.jpg") as stored:
        assert (stored.format, getattr(stored, "n_frames", 1)) == ("MPO", 2)
    assert read_header(tmp_path / "a.jpg") == Header(64, 32, "JPEG")
    assert normalised(tmp_path / "a.jpg").content is None


def test_a_turned_photograph_loses_nothing_that_can_be_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    noise = Image.effect_noise((256, 192), 10)
    Image.merge("RGB", (noise, noise.rotate(90), noise.rotate(180))).save(tmp_path / "a.jpg", quality=90, exif=exif)
    got = normalised(tmp_path / "a.jpg")
    assert (got.suffix, got.notes) == (".jpg", ("turned upright",))
    assert got.content is not None
    with Image.open(io.BytesIO(got.content)) as turned:
        difference = np.asarray(turned, dtype=float) - np.asarray(read_picture(tmp_path / "a.jpg"), dtype=float)
        assert (turned.size, turned.info.get("icc_profile"), len(turned.getexif())) == ((192, 256), None, 0)
    assert np.abs(difference).mean() < 1


@pytest.mark.parametrize("form", ["TIFF", "BMP", "GIF"])
def test_what_was_lossless_stays_so(tmp_path: Path, form: str) -> None:
    noise = Image.effect_noise((64, 48), 80)
    noise.save(tmp_path / "a", form)
    got = normalised(tmp_path / "a")
    assert (got.suffix, got.notes) == (".png", (f"from {form} to PNG",))
    assert got.content is not None
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(got.content)).convert("L")), np.asarray(noise))


def test_16_bits_of_colour_are_not_8(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + struct.pack(">HHH", 65535, 32768, 0) * 32 for _ in range(32))
    parts = ((b"IHDR", struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    got = normalised(tmp_path / "a.png")
    assert got.notes == ("to 8 bits a channel",)
    assert got.content is not None
    assert Image.open(io.BytesIO(got.content)).getpixel((5, 5)) == (255, 128, 0)


def test_alpha_is_kept_as_a_mask_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture = Image.new("RGBA", (32, 64), (255, 0, 0, 255))
    picture.paste((0, 255, 0, 0), (0, 0, 32, 32))
    picture.save(tmp_path / "a.png", exif=exif)
    got = normalised(tmp_path / "a.png", background=(1, 2, 3))
    assert got.notes == ("turned upright", "its transparency laid on #010203 and kept as its mask")
    assert got.content is not None
    assert got.mask is not None
    with Image.open(io.BytesIO(got.content)) as flat, Image.open(io.BytesIO(got.mask)) as alpha:
        assert (flat.mode, flat.size, flat.getpixel((5, 5)), flat.getpixel((60, 5))) == ("RGB", (64, 32), RED, (1, 2, 3))
        assert (alpha.mode, alpha.size, alpha.getpixel((5, 5)), alpha.getpixel((60, 5))) == ("L", (64, 32), 255, 0)


def test_a_picture_of_nothing_is_refused(tmp_path: Path) -> None:
    Image.new("RGBA", (32, 32), (255, 0, 0, 0)).save(tmp_path / "a.png")
    with pytest.raises(PictureError, match=r"^a\.png is wholly transparent"):
        normalised(tmp_path / "a.png")


def test_warnings_of_pillow_stay_quiet_in_threads_and_are_shown_again(tmp_path: Path) -> None:
    def warn() -> None:
        with intake._QUIET:
            time.sleep(0.02 * random())
            warnings.warn("odd metadata", UserWarning, stacklevel=2)

    threads = [threading.Thread(target=warn) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pytest.warns(UserWarning, match="shown"):
        warnings.warn("shown", UserWarning, stacklevel=2)


def test_two_large_pictures_are_never_decoded_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "LARGE", 64 * 32)
    at_once, most, load = [0], [0, 0], ImageFile.ImageFile.load

    def slow_load(picture: ImageFile.ImageFile) -> object:
        at_once[0] += 1
        most[picture.width > 64] = max(most[picture.width > 64], at_once[0])
        time.sleep(0.05)
        at_once[0] -= 1
        return load(picture)

    monkeypatch.setattr(ImageFile.ImageFile, "load", slow_load)
    for kind, size in enumerate([(64, 32), (65, 32)]):
        halves(size=size).save(tmp_path / f"{kind}.bmp")
        threads = [threading.Thread(target=read_picture, args=(tmp_path / f"{kind}.bmp",)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most[0] > 1
    assert most[1] == 1


# Refusals ---------------------------------------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and holds nothing."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\0\1IDAT"


def a_bad_file(path: Path, what: str) -> None:
    """Write one that cannot be read."""
    whole = io.BytesIO()
    Image.effect_noise((256, 256), 80).convert("RGB").save(whole, "JPEG")
    match what:
        case "cut off":
            path.write_bytes(whole.getvalue()[:3000])
        case "empty":
            path.touch()
        case "text":
            path.write_text("Dear reader, this is a letter.")
        case "page":
            path.write_text("<html><body>404</body></html>")
        case "1x1":
            Image.new("RGB", (1, 1)).save(path, "PNG")
        case "a line":
            Image.new("RGB", (400, 3)).save(path, "PNG")
        case "65 megapixels":
            path.write_bytes(png_header(8125, 8000))
        case "100 megapixels":
            path.write_bytes(png_header(10_000, 10_000))
        case "a bomb":
            path.write_bytes(png_header(60_000, 60_000))
        case "missing":
            pass
        case "folder":
            path.mkdir()
        case "postscript":
            path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n")
        case _:
            raise AssertionError(what)


REFUSED = {
    "cut off": "damaged", "empty": "is empty", "text": "not a picture", "page": "not a picture", "1x1": "1 x 1 pixels",
    "a line": "400 x 3 pixels", "65 megapixels": "64 megapixels", "100 megapixels": "64 megapixels",
    "a bomb": "64 megapixels", "missing": "cannot be opened", "folder": "cannot be opened", "postscript": "not a picture",
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_read_is_refused_in_a_sentence(tmp_path: Path, what: str) -> None:
    a_bad_file(tmp_path / "given.jpg", what)
    with pytest.raises(PictureError, match=REFUSED[what]) as caught:
        read_picture(tmp_path / "given.jpg")
    assert str(caught.value).startswith("given.jpg ")
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", [what for what in REFUSED if what != "cut off"])
def test_the_header_alone_is_enough_to_refuse_it(tmp_path: Path, what: str) -> None:
    a_bad_file(tmp_path / "given.jpg", what)
    with pytest.raises(PictureError):
        read_header(tmp_path / "given.jpg")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF"])
def test_damage_anywhere_gives_a_picture_or_a_sentence(tmp_path: Path, form: str) -> None:
    whole, exif, random = io.BytesIO(), Image.Exif(), Random(form)
    exif[ExifTags.Base.Orientation] = 6
    more = {"exif": exif, "icc_profile": swapped_profile()} if form in ("JPEG", "PNG", "WEBP", "TIFF") else {}
    halves().save(whole, form, **more)
    path, read = tmp_path / "a", 0
    for _ in range(200):
        content = bytearray(whole.getvalue())
        for _ in range(random.choice((1, 4, 30))):
            content[random.randrange(min(len(content), 4000))] = random.randrange(256)
        path.write_bytes(content[: random.choice((len(content), random.randrange(len(content))))])
        for look in (read_header, read_picture, transparent, read_alpha, normalised):
            try:
                look(path)
                read += 1
            except PictureError:
                pass
    assert read > 0
