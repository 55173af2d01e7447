"""Any file that a person drops -> an upright 8-bit sRGB picture, or a refusal in a sentence.

Content decides what a file is, never its name. Knows nothing of datasets, sizes that suit a model, or torch.
"""

from __future__ import annotations

import io
import stat
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from trainer.data.arrival import strangers
from trainer.data.colours import alpha_of, has_alpha, is_srgb, on_background, to_eight_bit, to_srgb
from trainer.errors import PictureError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".avif", ".heic", ".heif", ".tif", ".tiff", ".bmp", ".gif"})
"""Names that a folder is searched for."""

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF")
"""What Pillow reads by itself; HEIC is read through pi_heif, which is loaded when the first one comes."""

AS_THEY_ARE = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
"""Formats that every trainer reads, and how their names end: nothing in one of them is changed without need."""

MOST_PIXELS = 64_000_000
LARGE = 24_000_000
"""Of pictures with more pixels than this, one at a time is decoded."""

LEAST_SIDE = 16

RUNS = 3
"""Zlib's Z_RLE: of filtered photographs it leaves no more than the usual search does, in two thirds of the time."""

WHITE = (255, 255, 255)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""EXIF's orientations -> what sets them right; from 5 on, width and height change places."""

_TURNED_BY_DECODER = ("TIFF", "HEIF")
"""Formats whose sides Pillow or pi_heif has exchanged already when the header is read."""

_PHOTOGRAPHS = ("JPEG", "HEIF")
"""Formats of cameras: what is changed of them becomes a JPEG again, for as a PNG it would be ten times as large."""

_ONE_LARGE = threading.RLock()

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, LookupError, TypeError, OverflowError, struct.error)
"""What Pillow's decoders raise over damaged files."""


class _Quiet:
    """Pillow's warnings, of odd metadata and of sizes that are looked at here, are not shown while anyone is within it.

    Python's own way of that is made for one thread: whoever leaves first lets them out for the others too.
    """

    def __init__(self) -> None:
        self._lock, self._within = threading.Lock(), 0
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._within:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")
            self._within += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._within -= 1
            if not self._within:
                self._caught.__exit__(None, None, None)


_QUIET = _Quiet()


@dataclass(frozen=True)
class Header:
    """What a picture's first bytes tell: its upright size in pixels, and its format by content."""

    width: int
    height: int
    format: str


@dataclass(frozen=True)
class Intake:
    """What a picture becomes in a dataset: `content` with a name that ends in `suffix`; None: the file's own bytes.

    `notes` say what was changed; `mask` is a PNG, mode L, of how opaque each pixel was, None if all were.
    """

    content: bytes | None
    suffix: str
    notes: tuple[str, ...] = ()
    mask: bytes | None = None


def named(path: Path) -> str:
    """A file's name as it can stand in a sentence: without line ends and the like."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in path.name)


def _first_bytes(path: Path) -> bytes:
    """A file's beginning, from which it is told what it is. Raises `PictureError`."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            what = "a folder" if path.is_dir() else "not a file"
            raise PictureError(f"{named(path)} cannot be opened as a picture: it is {what}.")
        with path.open("rb") as file:
            return file.read(strangers.ENOUGH)
    except OSError as error:
        reason = "it is not there" if isinstance(error, FileNotFoundError) else error.strerror or error
        raise PictureError(f"{named(path)} cannot be opened ({reason}): check that it is there and may be read.") from None


def _formats(head: bytes) -> tuple[str, ...]:
    """By which of Pillow's readers a file that begins so is to be tried."""
    if not strangers.is_heic(head):
        return FORMATS
    from pi_heif import register_heif_opener

    register_heif_opener()
    return ("HEIF",)


def _opened(path: Path) -> ImageFile.ImageFile:
    """The picture with only its header read, its size checked. Raises `PictureError`."""
    name, head = named(path), _first_bytes(path)
    if not head:
        raise PictureError(f"{name} is empty, it has 0 bytes: copy the picture again.")
    if stranger := strangers.told(head):
        raise PictureError(f"{name} is not a picture but {stranger}.")
    try:
        with _QUIET:
            picture = Image.open(path, formats=_formats(head))
    except UnidentifiedImageError:
        raise PictureError(
            f"{name} is not a picture that can be read: its content is not JPEG, PNG, WebP, AVIF, HEIC, TIFF, BMP or GIF, or "
            "it is damaged at its beginning. Save it as one of these, or copy it again."
        ) from None
    except Image.DecompressionBombError:
        raise PictureError(f"{name} has far too many pixels: scale it down to below 64 megapixels.") from None
    except _DAMAGE as error:
        raise PictureError(f"{name} is damaged and cannot be opened ({error}): copy or export it again.") from None
    if reason := _unfit(picture):
        picture.close()
        raise PictureError(f"{name} {reason}.")
    return picture


def _unfit(picture: ImageFile.ImageFile) -> str:
    """Why a picture cannot be taken, from its header alone; empty if it can."""
    width, height = picture.size
    if width * height > MOST_PIXELS:
        return f"has {width} x {height} pixels: scale it down to below 64 megapixels"
    if min(width, height) < LEAST_SIDE:
        return f"has only {width} x {height} pixels: use a larger picture"
    if picture.format == "TIFF" and _is_raw(picture):
        return "is not a picture but a camera's raw file: develop it and save it as JPEG or TIFF"
    return ""


def _is_raw(picture: ImageFile.ImageFile) -> bool:
    """Whether a TIFF begins with a small preview, as NEF, ARW and DNG do (TIFF 6.0, NewSubfileType; DNG, DNGVersion)."""
    try:
        with _QUIET:
            tags = picture.getexif()
        return 50706 in tags or bool(int(tags.get(254, 0)) & 1)
    except _DAMAGE:
        return False


def _orientation(picture: ImageFile.ImageFile) -> int:
    """EXIF's orientation; 1, which is upright, where it is missing or damaged."""
    try:
        with _QUIET:
            return int(_exif(picture).get(ExifTags.Base.Orientation, 1))
    except _DAMAGE:
        return 1


def _exif(picture: ImageFile.ImageFile) -> Image.Exif:
    """Its EXIF. It may follow a PNG's pixels, and Pillow decodes every PNG for that; here only those where something does."""
    if picture.format != "PNG" or not picture.tile or "exif" in picture.info:
        return picture.getexif()
    if not _text_follows(picture):
        return Image.Image.getexif(picture)
    with _alone_if_large(picture):
        return picture.getexif()


def _text_follows(picture: ImageFile.ImageFile) -> bool:
    """Whether any metadata comes after the pixels of a PNG that is not decoded yet."""
    file, after, found = picture.fp, False, False
    if file is None:
        return False
    at = file.tell()
    file.seek(8)
    while not found and len(head := file.read(8)) == 8:
        found = after and head[4:] in (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
        after |= head[4:] == b"IDAT"
        file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    file.seek(at)
    return found


def _alone_if_large(picture: ImageFile.ImageFile) -> AbstractContextManager[object]:
    """Within this a large picture is the only one that is decoded."""
    return _ONE_LARGE if picture.width * picture.height > LARGE else nullcontext()


def _format(picture: ImageFile.ImageFile) -> str:
    """Its format; several pictures in one JPEG, as some cameras write them, are the first of them."""
    return "JPEG" if picture.format == "MPO" else picture.format or ""


def read_header(path: Path) -> Header:
    """Size and format without decoding. Raises `PictureError`."""
    with _opened(path) as picture:
        width, height = picture.size
        if _orientation(picture) >= 5 and picture.format not in _TURNED_BY_DECODER:
            width, height = height, width
        return Header(width, height, _format(picture))


def read_picture(path: Path, background: tuple[int, int, int] = WHITE, least: int | None = None) -> Image.Image:
    """The picture upright, in sRGB, mode RGB; transparency is laid on `background`, an animation gives its first frame.

    With `least` a JPEG may come out smaller than it is stored, by 2, 4 or 8, no side below that: it is decoded faster.
    Raises `PictureError` if any part of it cannot be decoded.
    """
    with _decoded(path, least) as upright:
        return on_background(to_srgb(to_eight_bit(upright)), background)


def read_small(path: Path, side: int) -> Image.Image:
    """The same in a small copy, no side longer than `side`, to look at: of a JPEG hardly more than that is decoded."""
    with _decoded(path, side) as upright:
        small = to_eight_bit(upright)
        small.thumbnail((side, side), Image.Resampling.BOX)
        return on_background(to_srgb(small), WHITE)


def transparent(path: Path) -> bool:
    """Whether a picture can be transparent anywhere, without decoding. Raises `PictureError`."""
    with _opened(path) as picture:
        return has_alpha(picture)


def read_alpha(path: Path) -> Image.Image | None:
    """How opaque each pixel is, upright, mode L, 255 where nothing shines through; None if that is everywhere.

    Raises `PictureError` if any part of it cannot be decoded.
    """
    with _decoded(path) as upright:
        return alpha_of(to_eight_bit(upright))


def normalised(path: Path, background: tuple[int, int, int] = WHITE) -> Intake:
    """What becomes of a picture, every part of which was decoded: its own bytes where any program sees in them what is meant.

    An upright, still, opaque JPEG, PNG or WebP in 8-bit sRGB stays as it is. Of others a JPEG or HEIC becomes a JPEG of the
    highest useful quality (95, colours in full resolution), anything else a PNG, which loses nothing.
    Raises `PictureError`.
    """
    with _opened(path) as stored:
        form, notes = _format(stored), _changes(stored)
    with _decoded(path) as upright:
        upright = to_eight_bit(upright)
        alpha = alpha_of(upright)
        if alpha is not None:
            if not alpha.getbbox():
                raise PictureError(f"{named(path)} is wholly transparent, so there is nothing to see: leave it out.")
            notes.append(f"its transparency laid on #{bytes(background).hex()} and kept as its mask")
        if form in AS_THEY_ARE and not notes:
            return Intake(None, AS_THEY_ARE[form])
        picture = on_background(to_srgb(upright), background)
        target = "JPEG" if form in _PHOTOGRAPHS and alpha is None else "PNG"
        if form != target:
            notes.append(f"from {form.replace('HEIF', 'HEIC')} to {target}")
        return Intake(_encoded(picture, target), AS_THEY_ARE[target], tuple(notes), _encoded(alpha, "PNG") if alpha else None)


def _changes(stored: ImageFile.ImageFile) -> list[str]:
    """What is to be changed in a picture, as far as its header tells."""
    notes = []
    deep = stored.mode.startswith(("I", "F")) or any(";16" in str(tile[3]) for tile in stored.tile)
    if _orientation(stored) in _UPRIGHT:
        notes.append("turned upright")
    if _frames(stored) > 1:
        notes.append("only the first of its pictures")
    if deep:
        notes.append("to 8 bits a channel")
    if not is_srgb(stored):
        source = stored.mode if stored.mode in ("CMYK", "LAB") else "its own colour profile"
        notes.append(f"from {source} to sRGB")
    return notes


def _frames(stored: ImageFile.ImageFile) -> int:
    """How many pictures are in the file, one after the other; those of a camera's JPEG belong together."""
    try:
        with _QUIET:
            return 1 if stored.format == "MPO" else int(getattr(stored, "n_frames", 1))
    except _DAMAGE:
        return 1


def _encoded(picture: Image.Image, form: str) -> bytes:
    """The picture alone, without profile or other metadata."""
    content = io.BytesIO()
    picture.info = {}
    if form == "JPEG":
        picture.save(content, "JPEG", quality=95, subsampling=0)
    else:
        picture.save(content, "PNG", compress_level=1, compress_type=RUNS)
    return content.getvalue()


@contextmanager
def _decoded(path: Path, side: int | None = None) -> Iterator[Image.Image]:
    """The whole picture, upright, as it is stored; of large ones one at a time. Raises `PictureError`.

    With `side` a JPEG may be smaller than it is stored, but no less than that.
    """
    with _opened(path) as picture, _alone_if_large(picture):
        try:
            with _QUIET:
                if side:
                    picture.draft(None, (side, side))
                picture.load()
            turn = _UPRIGHT.get(_orientation(picture))
            upright = picture if turn is None else picture.transpose(turn)
        except Image.DecompressionBombError:
            raise PictureError(f"{named(path)} has far too many pixels: scale it down to below 64 megapixels.") from None
        except _DAMAGE as error:
            raise PictureError(f"{named(path)} is damaged and cannot be decoded ({error}): copy or export it again.") from None
        yield upright
