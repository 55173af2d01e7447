"""Files that say the captions of many pictures at once: kohya's metadata JSON, and `metadata.jsonl` as image folders have it.

Neither knows where the pictures are now, only what they were called: the longest end of a path that fits decides.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from trainer.data.intake import named
from trainer.errors import DatasetError

SUFFIXES = (".json", ".jsonl")

MOST_BYTES = 256_000_000
"""A line for each of a million pictures."""

_TEXTS = ("text", "caption", "prompt")
"""Under which names a line of `metadata.jsonl` may have its caption; `text` is the usual one."""

_DEEPEST = 6
"""So many parts of a path are compared."""


class Listing:
    """The captions of one file, by the pictures' paths as they were noted."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises `DatasetError` if it lists no captions."""
        self.path = path
        self._exact: dict[str, str] = {}
        self._captions: dict[str, str | None] = {}
        noted = _lines(path) if path.suffix.lower() == ".jsonl" else _kohya(path)
        for name, caption in noted:
            noted_path = PurePosixPath(name.replace("\\", "/"))
            self._exact[noted_path.as_posix()] = caption
            for tail in _tails(noted_path):
                self._captions[tail] = None if self._captions.get(tail, caption) != caption else caption
        if not self._captions:
            raise DatasetError(
                f"{named(path)} lists no captions: it should be kohya's metadata JSON, or have lines such as "
                '{"file_name": "01.png", "text": "a house"}.'
            )

    def of(self, picture: Path) -> str | None:
        """The caption noted for a picture; None if there is none, or several fit equally well.

        A path that is right as seen from the file's own folder fits best.
        """
        if picture.is_relative_to(self.path.parent):
            near = picture.relative_to(self.path.parent)
            for name in (near, near.with_suffix("")):
                if (exact := self._exact.get(name.as_posix())) is not None:
                    return exact
        return next(
            (self._captions[tail] for tail in _tails(PurePosixPath(picture.as_posix())) if tail in self._captions), None
        )


def _tails(path: PurePosixPath) -> Iterator[str]:
    """The ends of a path, the longest first, each with the name's suffix and without."""
    parts = [part for part in path.parts if part not in (".", "/")][-_DEEPEST:]
    for start in range(len(parts)):
        tail = "/".join(parts[start:])
        yield tail
        if path.suffix:
            yield tail.removesuffix(path.suffix)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Name and caption of each line of `metadata.jsonl`. Raises `DatasetError`, which names the line."""
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{named(path)} is not valid in line {number} ({error}): correct or delete the line.") from None
        name = said.get("file_name") if isinstance(said, dict) else None
        if not isinstance(name, str):
            raise DatasetError(f"{named(path)} names no picture in line {number}: it should have a file_name.")
        caption = next((said[key] for key in _TEXTS if isinstance(said.get(key), str)), None)
        if caption is not None:
            yield name, _whole(caption)


def _kohya(path: Path) -> Iterator[tuple[str, str]]:
    """Path and caption of each picture in kohya's metadata, tags behind the caption as sd-scripts puts them there.

    Raises `DatasetError` if the file is no JSON.
    """
    try:
        said = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{named(path)} is not valid JSON ({error}): correct it or leave it out.") from None
    for name, about in said.items() if isinstance(said, dict) else ():
        texts = [_joined(about.get(key)) for key in ("caption", "tags")] if isinstance(about, dict) else []
        if caption := ", ".join(text for text in texts if text):
            yield name, _whole(caption)


def _joined(text: Any) -> str:
    """Tags may be a list."""
    if isinstance(text, list):
        return ", ".join(part for part in text if isinstance(part, str))
    return text if isinstance(text, str) else ""


def _text(path: Path) -> str:
    """What the file says. Raises `DatasetError` if it is too large or cannot be read."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DatasetError(f"{named(path)} is too large for a list of captions: split it.")
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{named(path)} cannot be read ({error.strerror or error}): copy it again.") from None
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    return content.decode("utf-16" if wide else "utf-8-sig", errors="replace")


def _whole(caption: str) -> str:
    """Without halves of characters, which JSON can hold and no file can."""
    return caption.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
