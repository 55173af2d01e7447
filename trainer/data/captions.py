"""Captions: one line of text beside a picture, read in any usual encoding, written whole in UTF-8, with the trigger word.

What a file keeps, to the letter, is any text without line breaks and outer blanks: a line break becomes one blank, because
other tools read a line each, and blanks and tabs at the ends are left out. Double blanks, tabs, no-break spaces, control
characters, joiners and marks of direction stay as they were typed. Knows neither steps nor settings.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

from trainer.errors import DatasetError, storing
from trainer.home import write_atomically

Encoding = Literal["utf-8", "utf-8-bom", "utf-16", "latin-1"]

_BLANKS = " \t"
_BOM = "\ufeff"


class Text(NamedTuple):
    """What a caption file says, in one line, and how it was encoded; "latin-1" (or Windows-1252) is a guess."""

    text: str
    encoding: Encoding


def one_line(text: str) -> str:
    """The text as a file keeps it: without line breaks and outer blanks."""
    lines = (line.strip(_BLANKS) for line in re.split(r"[\r\n]+", text))
    return " ".join(line for line in lines if line)


def decode(content: bytes) -> Text:
    """What the bytes of a file mean: UTF-8 with or without BOM, UTF-16 with or without BOM, else Windows-1252 or Latin-1.

    Every file means something: a half character of UTF-16 becomes U+FFFD, and every byte is a character of Latin-1.
    """
    text, encoding = _decoded(content)
    return Text(one_line(text), encoding)


def text_of(path: Path) -> Text:
    """The caption in `path` and its encoding; empty if there is no such file. Raises `DatasetError`."""
    try:
        return decode(path.read_bytes()) if path.is_file() else Text("", "utf-8")
    except OSError as error:
        raise DatasetError(f"The caption {path.name} cannot be read ({error.strerror or error}): check the file.") from None


def read(path: Path) -> str:
    """The caption in `path`; empty if there is no such file. Raises `DatasetError`."""
    return text_of(path).text


def encode(caption: str, name: str = "this picture") -> bytes:
    """The bytes of a caption file. Raises `DatasetError`, which names the picture, for half a character (a lone surrogate)."""
    text = one_line(caption)
    if text.startswith(_BOM) or "\0" in text:
        text = _BOM + text  # else it would be read as a BOM, or as UTF-16
    try:
        return f"{text}\n".encode()
    except UnicodeEncodeError as error:
        half = f"U+{ord(error.object[error.start]):04X}"
        raise DatasetError(
            f"The caption of {name} holds half a character ({half}), which no file can keep: type it anew."
        ) from None


def write(path: Path, caption: str) -> None:
    """Replace the caption in `path`. Raises `DatasetError` for half a character, `StorageError`."""
    content = encode(caption, path.stem)
    with storing(path):
        write_atomically(path, content)


def with_trigger(caption: str, trigger: str) -> str:
    """`trigger, caption`; unchanged if the trigger is empty or already there as a word of its own."""
    if not trigger or has_trigger(caption, trigger):
        return caption
    return f"{trigger}, {caption}" if caption else trigger


def has_trigger(caption: str, trigger: str) -> bool:
    """Whether the trigger word is in the caption as a word of its own, in any case; False if there is no trigger word."""
    words = " ".join(caption.lower().split()).replace(",", " ")
    return bool(trigger) and f" {trigger.lower()} " in f" {words} "


def _decoded(content: bytes) -> tuple[str, Encoding]:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace"), "utf-16"
    if not content.startswith(_BOM.encode()) and (order := _order(content)):
        try:
            return content.decode(order), "utf-16"
        except UnicodeDecodeError:
            pass  # zeros that mean something else
    try:
        return content.decode("utf-8-sig"), "utf-8-bom" if content.startswith(_BOM.encode()) else "utf-8"
    except UnicodeDecodeError:
        return _western(content), "latin-1"


def _order(content: bytes) -> str:
    """The order of UTF-16 without BOM, told by where Latin letters have their zero bytes; empty if nothing tells it."""
    high, low = content[::2].count(0), content[1::2].count(0)
    return "" if high == low or len(content) % 2 else "utf-16-le" if low > high else "utf-16-be"


def _western(content: bytes) -> str:
    """Windows-1252, which differs from Latin-1 in quotes and dashes only; Latin-1 where it has no character."""
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError:
        return content.decode("latin-1")
