"""The forty bad inputs that a person's folder may hold, as far as they concern pictures, captions and file names.

Each is dropped into a dataset beside a good picture, and is known by its number: 1 to 18 are pictures, 21 to 26 captions, 27 to
32 names and disks. What to expect stands in the table; the good picture must be in, whatever happens to the other.
"""

from __future__ import annotations

import errno
import io
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.data.heic import TURNED
from tests.data.test_intake import halves, near, png_header, swapped_profile
from trainer.data.arrival import placing
from trainer.data.arrival.adding import Added, Refused, add
from trainer.data.dataset import Dataset
from trainer.data.editing import turns
from trainer.data.intake import read_picture
from trainer.home import write_blocks

Make = Callable[[Path], object]
Look = Callable[[Path], object]


def dropped(tmp_path: Path, *paths: Path) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """What is in with its notes, and the sentences of the rest, of these files and a good picture."""
    good = tmp_path / "good.png"
    halves().save(good)
    told = list(add(tmp_path / "set", [*paths, good]))
    assert {each.total for each in told} == {len(told)}
    added = {each.name: each.notes for each in told if isinstance(each, Added)}
    assert "good.png" in added
    assert (tmp_path / "set" / "good.png").read_bytes() == good.read_bytes()
    return added, [each.reason for each in told if isinstance(each, Refused)]


def saved(form: str, content: Image.Image | None = None, **options: object) -> Make:
    def make(path: Path) -> None:
        (content or halves()).save(path, form, **options)

    return make


def cut_off(form: str) -> Make:
    def make(path: Path) -> None:
        whole = io.BytesIO()
        Image.effect_noise((256, 256), 80).convert("RGB").save(whole, form)
        path.write_bytes(whole.getvalue()[:-200])

    return make


def holding(content: bytes) -> Make:
    return lambda path: path.write_bytes(content)


def bomb_of_text() -> bytes:
    """A PNG with a text of 100 MB in it, which takes 100 KB."""
    whole = io.BytesIO()
    halves().save(whole, "PNG")
    text = b"zTXt" + b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9)
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return whole.getvalue()[:33] + chunk + whole.getvalue()[33:]


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.tile(np.linspace(0, 65535, 64, dtype=np.uint16), (32, 1)))


def palette() -> Image.Image:
    picture = Image.new("P", (64, 32), 0)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.paste(1, (32, 0, 64, 32))
    return picture


def cut_out() -> Image.Image:
    picture = Image.new("RGBA", (64, 32), (0, 0, 255, 0))
    picture.paste((255, 0, 0, 255), (32, 0, 64, 32))
    return picture


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


REFUSED: dict[str, tuple[str, Make, str]] = {
    "1 truncated JPEG": ("a.jpg", cut_off("JPEG"), "a.jpg is damaged"),
    "1 truncated PNG": ("a.png", cut_off("PNG"), "a.png is damaged"),
    "1 truncated WebP": ("a.webp", cut_off("WEBP"), "a.webp is damaged"),
    "1 truncated HEIC": ("a.heic", holding(TURNED[:-20]), "a.heic"),
    "2 zero bytes": ("a.jpg", holding(b""), "a.jpg is empty"),
    "3 text named .jpg": ("a.jpg", holding(b"Dear reader,\nthis is a letter."), "a.jpg is not a picture but text"),
    "3 a page named .jpg": ("a.jpg", holding(b"<!DOCTYPE html><html>404</html>"), "a.jpg is not a picture but a web page"),
    "11 1x1": ("a.png", saved("PNG", Image.new("RGB", (1, 1))), "a.png has only 1 x 1 pixels"),
    "13 30000 x 30000": ("a.png", holding(png_header(30_000, 30_000)), "a.png has far too many pixels"),
    "13 65 megapixels": ("a.png", holding(png_header(8125, 8000)), "a.png has 8125 x 8000 pixels"),
    "13 a bomb of text": ("a.png", holding(bomb_of_text()), "a.png is damaged"),
    "18 SVG": ("a.png", holding(b'<?xml version="1.0"?>\n<svg xmlns="x"/>'), "a.png is not a picture but an SVG drawing"),
    "18 PDF": ("a.jpg", holding(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3"), "a.jpg is not a picture but a PDF document"),
    "18 MP4": ("a.jpg", holding(b"\0\0\0\x18ftypmp42\0\0\0\0isommp42"), "a.jpg is not a picture but a video"),
    "18 MOV": ("a.heic", holding(b"\0\0\0\x14ftypqt  \0\0\0\0qt  "), "a.heic is not a picture but a video"),
    "18 WebM": ("a.webp", holding(b"\x1aE\xdf\xa3\x01\0\0\0"), "a.webp is not a picture but a video"),
    "18 AVI": ("a.avif", holding(b"RIFF\x24\0\0\0AVI LIST"), "a.avif is not a picture but a video"),
    "18 Photoshop": ("a.png", holding(b"8BPS\0\1" + bytes(20)), "a.png is not a picture but a Photoshop file"),
    "18 a camera's raw": ("a.tif", saved("TIFF", tiffinfo={254: 1}), "a.tif is not a picture but a camera's raw file"),
    "40 pickle": ("a.png", holding(b"\x80\4\x95\x10\0\0\0\0\0\0\0."), "a.png is not a picture but a Python pickle"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_bad_picture_is_refused_in_a_sentence(tmp_path: Path, what: str) -> None:
    name, make, start = REFUSED[what]
    make(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    added, [reason] = dropped(tmp_path, tmp_path / name)
    assert reason.startswith(start)
    assert reason.endswith(".")
    assert "\n" not in reason
    assert list(added) == ["good.png"]
    assert (tmp_path / name).read_bytes() == before


def tones(path: Path) -> None:
    values = np.asarray(Image.open(path).convert("RGB"))[0, :, 0].astype(float)
    assert np.abs(values - np.linspace(0, 255, 64)).max() <= 1


def red_at_the_right(path: Path) -> None:
    """And white where nothing was, as any program sees it."""
    picture = Image.open(path)
    assert (picture.mode, picture.getpixel((5, 5)), picture.getpixel((50, 5))) == ("RGB", (255, 255, 255), (255, 0, 0))


def upright(path: Path) -> None:
    """Also for a program that knows nothing of EXIF."""
    with Image.open(path) as picture:
        assert (picture.size, picture.getexif().get(ExifTags.Base.Orientation, 1)) == ((64, 32), 1)
        assert near(picture.getpixel((5, 16)), (255, 0, 0), 12)


def plain(path: Path) -> None:
    with Image.open(path) as picture:
        assert (picture.mode, picture.size) == ("RGB", (64, 32))
        assert near(picture.getpixel((5, 5)), (255, 0, 0), 12)


def green(path: Path) -> None:
    """By a profile that exchanges red and green."""
    with Image.open(path) as picture:
        assert near(picture.convert("RGB").getpixel((5, 5)), (0, 255, 0), 12)


def lying() -> Image.Image:
    return halves().transpose(Image.Transpose.ROTATE_90)


KEPT: dict[str, tuple[str, Make, str, str, Look]] = {
    "4 PNG named .jpg": ("a.jpg", saved("PNG"), "a.png", "", plain),
    "5 CMYK": ("a.jpg", saved("JPEG", halves().convert("CMYK"), quality=95), "a.jpg", "from CMYK to sRGB", plain),
    "6 16-bit grey": ("a.png", saved("PNG", sixteen_bits()), "a.png", "to 8 bits", tones),
    "7 palette, transparent": ("a.png", saved("PNG", palette(), transparency=0), "a.png", "transparency", red_at_the_right),
    "8 alpha": ("a.png", saved("PNG", cut_out()), "a.png", "transparency laid on #ffffff", red_at_the_right),
    "9 animated GIF": (
        "a.gif", saved("GIF", save_all=True, append_images=[Image.new("RGB", (64, 32))]), "a.png", "only the first", plain,
    ),
    "9 animated WebP": (
        "a.webp", saved("WEBP", save_all=True, append_images=[Image.new("RGB", (64, 32))]), "a.png", "only the first", plain,
    ),
    "10 turned by EXIF": ("a.jpg", saved("JPEG", lying(), exif=turned()), "a.jpg", "turned upright", upright),
    "15 HEIC": ("a.heic", holding(TURNED), "a.jpg", "from HEIC to JPEG", upright),
    "16 AVIF": ("a.avif", saved("AVIF"), "a.png", "from AVIF to PNG", plain),
    "17 wide gamut": ("a.png", saved("PNG", icc_profile=swapped_profile()), "a.png", "colour profile to sRGB", green),
}  # fmt: skip


@pytest.mark.parametrize("what", KEPT)
def test_a_difficult_picture_becomes_one_that_every_program_sees_alike(tmp_path: Path, what: str) -> None:
    name, make, becomes, note, look = KEPT[what]
    make(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    added, refused = dropped(tmp_path, tmp_path / name)
    assert refused == []
    assert note in ", ".join(added[becomes])
    look(tmp_path / "set" / becomes)
    kept = tmp_path / "set" / ("originals" if note else "") / (name if note else becomes)
    assert kept.read_bytes() == before == (tmp_path / name).read_bytes()
    assert np.array_equal(
        np.asarray(read_picture(tmp_path / "set" / becomes)), np.asarray(Image.open(tmp_path / "set" / becomes).convert("RGB"))
    )


@pytest.mark.parametrize("size", [(64, 64), (1280, 64)], ids=["12 tiny", "14 twenty to one"])
def test_what_training_can_use_is_taken_and_left_to_the_findings(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size).save(tmp_path / "a.png")
    added, refused = dropped(tmp_path, tmp_path / "a.png")
    assert (added["a.png"], refused) == ((), [])


CAPTIONS = {
    "20 5000 words": (" ".join(["house"] * 5000).encode(), " ".join(["house"] * 5000)),
    "21 neither UTF-8 nor UTF-16": ("schönes Haus".encode("latin-1"), "schönes Haus"),
    "22 BOM": (b"\xef\xbb\xbfa house", "a house"),
    "23 UTF-16": ("ein schönes Haus".encode("utf-16"), "ein schönes Haus"),
    "24 emoji, right to left": ("🏠 בית ‏a".encode(), "🏠 בית ‏a"),
    "25 empty": (b"", ""),
    "26 markup": (b"<b>a</b> *b* $c$ {{d}}", "<b>a</b> *b* $c$ {{d}}"),
}


@pytest.mark.parametrize("what", CAPTIONS)
def test_a_difficult_caption_comes_along_as_it_is_meant(tmp_path: Path, what: str) -> None:
    content, meant = CAPTIONS[what]
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(content)
    added, refused = dropped(tmp_path, tmp_path / "a.png", tmp_path / "a.txt")
    assert refused == []
    assert Dataset.open(tmp_path / "set").pictures[0].caption == meant
    assert any("Latin-1" in note for note in added["a.png"]) == what.startswith("21")
    assert (tmp_path / "a.txt").read_bytes() == content


NAMES = {
    "27 quotes": "it's \"a\" house.png", "27 a line end": "a\nb.png", "27 %2e": "%2e%2e%2fa.png", "27 dots": "...png",
    "27 a tag": "<img src=x>.png", "27 a device": "aux.png", "28 255 bytes": "ü" * 125 + "a.png",
}  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
@pytest.mark.parametrize("what", NAMES)
def test_a_difficult_name_becomes_one_that_every_system_takes(tmp_path: Path, what: str) -> None:
    source = tmp_path / NAMES[what]
    halves().save(source, "PNG")
    source.with_suffix(".txt").write_text("a house", encoding="utf-8")
    added, refused = dropped(tmp_path, source)
    assert refused == []
    [name] = set(added) - {"good.png"}
    assert not set(name) & set("<>:\"/\\|?*'%\n")
    assert len(f".{name}.4194304.part".encode()) <= 255
    assert name.split(".")[0].lower() != "aux"
    assert (tmp_path / "set" / name).with_suffix(".txt").read_text(encoding="utf-8") == "a house\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
def test_27_a_bad_file_of_a_difficult_name_is_told_of_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a\nb\x1b[31m.png").write_bytes(b"no picture")
    _, [reason] = dropped(tmp_path, tmp_path / "a\nb\x1b[31m.png")
    assert reason.isprintable()
    assert reason.startswith("a�b�[31m.png is not a picture")


def test_29_two_pictures_that_share_a_caption_both_get_it_and_it_is_told(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.jpg")
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a house", encoding="utf-8")
    added, refused = dropped(tmp_path, tmp_path / "a.jpg", tmp_path / "a.png", tmp_path / "a.txt")
    assert refused == []
    assert added["a.jpg"] == ("its caption a.txt was also given to a.png",)
    assert added["a-2.png"] == ("called a.png before", "its caption a.txt was also given to a.jpg")
    assert [each.caption for each in Dataset.open(tmp_path / "set").pictures] == ["a house", "a house", ""]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_30_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "given" / "inner").mkdir(parents=True)
    (tmp_path / "else").mkdir()
    halves().save(tmp_path / "else" / "secret.png")
    halves().save(tmp_path / "given" / "inner" / "own.png")
    (tmp_path / "given" / "file.png").symlink_to(tmp_path / "else" / "secret.png")
    (tmp_path / "given" / "folder").symlink_to(tmp_path / "else")
    (tmp_path / "given" / "round").symlink_to(tmp_path / "given")
    (tmp_path / "given" / "within.png").symlink_to(tmp_path / "given" / "inner" / "own.png")
    (tmp_path / "given" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    added, refused = dropped(tmp_path, tmp_path / "given")
    assert sorted(added) == ["good.png", "own.png"]
    assert sorted(reason.split(" is a link")[0] for reason in refused) == ["file.png", "folder", "gone.png", "round"]


@pytest.mark.parametrize("at", ["FileLock", "write_blocks"])
def test_31_a_read_only_folder_is_named_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    halves().save(tmp_path / "a.png")
    monkeypatch.setattr(turns if at == "FileLock" else placing, at, read_only)
    [only] = add(tmp_path / "set", [tmp_path / "a.png"])
    assert isinstance(only, Refused)
    assert only.reason.startswith("a.png was not added. Could not write ")
    assert only.reason.endswith("the disk is read-only: choose another folder.")
    assert [path for path in (tmp_path / "set").iterdir() if not path.name.startswith(".")] == []


def test_31_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    halves().save(tmp_path / "a.png")
    (tmp_path / "set").write_text("a file")
    [only] = add(tmp_path / "set", [tmp_path / "a.png"])
    assert isinstance(only, Refused)
    assert only.reason.startswith(f"a.png was not added. Could not write {tmp_path / 'set'}")


def test_32_a_full_disk_leaves_what_is_in_and_names_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, room, write = [], [5], write_blocks
    for number in range(5):
        given.append(tmp_path / f"{number}.png")
        halves().save(given[-1])
        given[-1].with_suffix(".txt").write_text("a house", encoding="utf-8")

    def write_until_full(path: Path, blocks: object) -> None:
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, blocks)  # type: ignore[arg-type]

    monkeypatch.setattr("trainer.data.arrival.placing.write_blocks", write_until_full)
    told = list(add(tmp_path / "set", given))
    assert [each.name for each in told] == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert [isinstance(each, Added) for each in told] == [True, True, False, False, False]
    assert all("the disk is full" in each.reason for each in told if isinstance(each, Refused))
    assert [each.done for each in told] == [1, 2, 3, 4, 5]
    names = sorted(path.name for path in (tmp_path / "set").iterdir() if not path.name.startswith("."))
    assert names == ["0.png", "0.txt", "1.png", "1.txt"]
