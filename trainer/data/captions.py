"""Captions: read in any usual encoding, written whole, and put together with the trigger word."""

from __future__ import annotations

from pathlib import Path

from trainer.errors import storing
from trainer.home import write_atomically


def decode(content: bytes) -> str:
    """Text in UTF-8 (with or without BOM), UTF-16 or else Latin-1; one line, without outer blanks."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = content.decode("utf-16", errors="replace")
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
    return " ".join(text.split())


def read(path: Path) -> str:
    """The caption in `path`; empty if there is no such file."""
    return decode(path.read_bytes()) if path.is_file() else ""


def write(path: Path, caption: str) -> None:
    """Replace the caption in `path`. Raises `StorageError`."""
    with storing(path):
        write_atomically(path, (" ".join(caption.split()) + "\n").encode("utf-8"))


def with_trigger(caption: str, trigger: str) -> str:
    """`trigger, caption`; unchanged if the trigger is empty or already there as a word of its own."""
    if not trigger or f" {trigger.lower()} " in f" {caption.lower().replace(',', ' ')} ":
        return caption
    return f"{trigger}, {caption}" if caption else trigger
