"""What is measured of each picture of a dataset, once: detail, traces, frames, and by what alike pictures are found.

Kept in the cache by the file's place, time and size. What is too little of anything is said in `findings`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from trainer.data import intake
from trainer.data.checkup import looks, margins
from trainer.data.checkup.margins import Border
from trainer.data.dataset import Dataset, Picture
from trainer.errors import PictureError, storing
from trainer.home import write_atomically

VERSION = 1
"""Grows when something is measured otherwise."""

WORKERS = 2
"""So many pictures are measured at a time."""

WHOLE = 4_000_000
"""A picture with more pixels is measured in a smaller copy: training scales it down too, and a JPEG is decoded faster so."""

REDUCED = 740
"""Shortest side of such a copy, in pixels."""

KEPT_EVERY = 200
"""After so many pictures what was measured is written down."""


@dataclass(frozen=True)
class Measure:
    """One picture. Each number is a guess from its pixels."""

    width: int
    height: int
    """Of the upright picture, in pixels, as all that follows."""
    sharpness: float
    """Up to which share of the highest frequency detail goes, from 0 to 1; 1/2: half as many pixels a side would do."""
    detail: int
    """So many pixels a side, were it square, would hold all its detail; of a large picture at least so many."""
    upscaled: float
    """By how much the sides were probably enlarged; 1 if nothing tells that they were."""
    blocks: float
    """How much JPEG's blocks of 8 pixels stand out; 0 in a picture that was never one."""
    border: Border
    """Pixels of one colour at the left, top, right and bottom, which end at a straight edge."""
    corner: float
    """How much something in one corner looks like small letters, from 0 to 1."""
    hash: str
    """ImageHash's perceptual hash in hexadecimal, and the mean colours of its quarters: alike for alike pictures."""
    digest: str
    """SHA-256 of the file."""

    @property
    def detailed(self) -> tuple[int, int]:
        """So large was it probably before it was enlarged: width and height."""
        return round(self.width / self.upscaled), round(self.height / self.upscaled)


def measure(path: Path) -> Measure:
    """Measure a picture. Raises `PictureError` if any part of it cannot be decoded."""
    header = intake.read_header(path)
    large = header.width * header.height > WHOLE
    picture = intake.read_picture(path, least=REDUCED if large else None)
    if large:
        picture = picture.reduce(max(1, min(picture.size) // REDUCED))
    small = picture.copy()
    small.thumbnail((margins.COPY, margins.COPY), Image.Resampling.BOX)
    grey = np.asarray(picture.convert("L"), dtype=np.float32)
    scale = header.width / picture.width
    sharp = looks.sharpness(grey)
    traces = looks.traces(grey, sharp) if not large else looks.NO_TRACES  # making it smaller leaves traces of its own
    left, top, right, bottom = (round(depth * scale) for depth in margins.border(np.asarray(picture)))
    return Measure(
        width=header.width,
        height=header.height,
        sharpness=round(sharp, 4),
        detail=round(sharp * math.sqrt(picture.width * picture.height)),
        upscaled=round(traces.enlarged, 3),
        blocks=round(traces.blocks, 4),
        border=(left, top, right, bottom),
        corner=round(margins.corner(np.asarray(small.convert("L"), dtype=np.float32)), 4),
        hash=_hash(small),
        digest=_digest(path),
    )


def _hash(small: Image.Image) -> str:
    from imagehash import phash

    colours = small.resize((2, 2), Image.Resampling.BOX).tobytes()
    return f"{phash(small)}{colours.hex()}"


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PictureError(
            f"{intake.named(path)} cannot be opened ({error.strerror or error}): check that it is there."
        ) from None


class Measured:
    """What is known of a dataset's pictures: at first what was kept, and once it was iterated, all."""

    def __init__(self, dataset: Dataset, cache: Path) -> None:
        self.found: dict[str, Measure] = {}
        """By file name."""
        self.damaged: dict[str, str] = {}
        """A sentence for each picture that cannot be decoded, by file name."""
        folder = dataset.folder.resolve()
        self._file = cache / "measures" / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]}.json"
        self._states = {picture.path.name: state for picture in dataset.pictures if (state := _state(picture.path))}
        self._pictures = {picture.path.name: picture for picture in dataset.pictures if picture.path.name in self._states}
        self._recall()

    @property
    def left(self) -> int:
        """So many pictures are not measured yet."""
        return len(self._pictures) - len(self.found) - len(self.damaged)

    def __iter__(self) -> Generator[tuple[int, int]]:
        """Measure what is left, and tell after each picture how many of how many are known.

        Closing the iterator stops; what was measured is kept. Raises `StorageError`.
        """
        left = [picture for name, picture in self._pictures.items() if name not in self.found and name not in self.damaged]
        if not left:
            return
        pool = ThreadPoolExecutor(WORKERS)
        try:
            work = {pool.submit(self._measure, picture): picture for picture in left}
            for count, future in enumerate(as_completed(work), start=1):
                future.result()
                if not count % KEPT_EVERY:
                    self._keep()
                yield len(self._pictures) - len(left) + count, len(self._pictures)
        finally:
            pool.shutdown(cancel_futures=True)
            self._keep()

    def _measure(self, picture: Picture) -> None:
        name = picture.path.name
        try:
            self.found[name] = measure(picture.path)
        except PictureError as error:
            self.damaged[name] = str(error)

    def _recall(self) -> None:
        """Take over what was kept of files that are as they were."""
        try:
            kept = _kept().validate_python(json.loads(self._file.read_bytes()))
        except (OSError, ValueError):  # nothing kept, or not by this version: it is only a cache
            return
        for name, entry in kept.pictures.items():
            if self._states.get(name) != entry.state or kept.version != VERSION:
                continue
            if entry.measure:
                self.found[name] = entry.measure
            else:
                self.damaged[name] = entry.damaged

    def _keep(self) -> None:
        """Write down what is known."""
        pictures = {name: _Entry(self._states[name], measure=found) for name, found in list(self.found.items())}
        pictures |= {name: _Entry(self._states[name], damaged=sentence) for name, sentence in list(self.damaged.items())}
        with storing(self._file):
            write_atomically(self._file, json.dumps(asdict(_Kept(VERSION, pictures))).encode())


def _state(path: Path) -> tuple[int, int] | None:
    """What tells one state of a file from another; None if it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


@dataclass(frozen=True)
class _Entry:
    """What is kept of a picture in one state: its measure, or why there is none."""

    state: tuple[int, int]
    measure: Measure | None = None
    damaged: str = ""


@dataclass(frozen=True)
class _Kept:
    """What is kept of a dataset."""

    version: int
    pictures: dict[str, _Entry]


@cache
def _kept() -> TypeAdapter[_Kept]:
    return TypeAdapter(_Kept)
