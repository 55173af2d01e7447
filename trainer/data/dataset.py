"""A dataset: one plain folder of pictures, each with its caption in a `.txt` of the same name beside it.

The folder is the whole truth: nothing is kept elsewhere, other tools can read and change it. Knows no torch.
"""

from __future__ import annotations

import os
import shutil
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from trainer.data import captions, intake
from trainer.errors import DatasetError, PictureError, storing
from trainer.home import free_name, safe_name, write_atomically

_ABOUT = "dataset.toml"
"""The file that says what concerns the pictures as a whole."""

MOST_REPEATS = 100
"""The most that a picture may be shown in one pass."""


@dataclass(frozen=True)
class Picture:
    """One picture of a dataset. `width` and `height` are its own, upright, in pixels."""

    path: Path
    width: int
    height: int

    @property
    def caption_path(self) -> Path:
        """Where its caption is, or will be."""
        return self.path.with_suffix(".txt")

    @property
    def caption(self) -> str:
        """What the file says now; empty if there is none."""
        return captions.read(self.caption_path)

    def write_caption(self, caption: str) -> None:
        """Put the caption on disk at once."""
        captions.write(self.caption_path, caption)


@dataclass(frozen=True)
class Dataset:
    """The readable pictures of a folder in the order of their names, and a sentence for each that is not readable."""

    folder: Path
    pictures: tuple[Picture, ...]
    refused: tuple[str, ...]

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """Read a folder's picture headers. Raises `DatasetError` if it is missing; an empty one is allowed here."""
        if not folder.is_dir():
            what = "is a file, not a folder" if folder.exists() else "does not exist"
            raise DatasetError(f"The dataset folder {folder} {what}: give a folder that holds pictures.")
        found, refused = [], []
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name.lower()):
            path = folder / entry.name
            if path.suffix.lower() not in intake.SUFFIXES or entry.name.startswith(".") or not entry.is_file():
                continue
            try:
                header = intake.read_header(path)
            except PictureError as error:
                refused.append(str(error))
            else:
                found.append(Picture(path, header.width, header.height))
        return cls(folder, tuple(found), tuple(refused))

    def for_training(self) -> Dataset:
        """Itself. Raises `DatasetError` if there is no picture to train on."""
        if not self.pictures:
            reason = f" {self.refused[0]}" if self.refused else " Put JPEG, PNG, WebP or AVIF files there."
            raise DatasetError(f"There is no picture to train on in {self.folder}.{reason}")
        return self

    @property
    def trigger(self) -> str:
        """The trigger word kept with the pictures in `dataset.toml`; empty if none is. Raises `DatasetError`."""
        return str(self._about.get("trigger", ""))

    @property
    def repeats(self) -> dict[str, int]:
        """How often a pass shows a picture, by file name, as `[repeats]` in `dataset.toml` says: `"01.png" = 3`.

        Pictures that it does not name are shown once; names without a picture do nothing. Raises `DatasetError`.
        """
        given, path = self._about.get("repeats", {}), self.folder / _ABOUT
        if not isinstance(given, dict):
            raise DatasetError(f'{path}: repeats must be a table with lines such as "01.png" = 3.')
        for name, times in given.items():
            if type(times) is not int or not 1 <= times <= MOST_REPEATS:
                raise DatasetError(
                    f"{path}: the repeats of {name} must be a whole number from 1 to {MOST_REPEATS}, not {times}."
                )
        return given

    def write_trigger(self, trigger: str) -> None:
        """Keep the trigger word with the pictures; whatever else is said there stays. Raises `DatasetError`, `StorageError`."""
        path = self.folder / _ABOUT
        about = tomlkit.parse(path.read_text(encoding="utf-8-sig")) if self._about else tomlkit.document()
        about["trigger"] = trigger
        with storing(path):
            write_atomically(path, tomlkit.dumps(about).encode("utf-8"))

    @property
    def _about(self) -> dict[str, Any]:
        path = self.folder / _ABOUT
        try:
            return tomllib.loads(path.read_text(encoding="utf-8-sig")) if path.is_file() else {}
        except ValueError as error:
            raise DatasetError(f"{path} is not valid TOML ({error}): correct or delete it.") from None


def add_files(folder: Path, files: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """Copy pictures, and captions that lie among `files`, into `folder`; nothing there is overwritten.

    Returns the new pictures and a sentence for every file that was refused. Raises `StorageError`.
    """
    given = list(files)
    texts = {path.stem: path for path in given if path.suffix.lower() in (".txt", ".caption")}
    added, refused = [], []
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for source in given:
        if source in texts.values():
            continue
        try:
            intake.read_picture(source)
            header = intake.read_header(source)
        except PictureError as error:
            refused.append(str(error))
            continue
        suffix = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif"}.get(header.format, f".{header.format.lower()}")
        target = free_name(folder, f"{safe_name(source.stem, 'picture')}{suffix}")
        while target.with_suffix(".txt").exists():  # never adopt the caption of another picture
            target = free_name(folder, f"{target.stem}-2{suffix}")
        with storing(target):
            shutil.copyfile(source, target)
        caption = texts.get(source.stem, source.with_suffix(".txt"))
        if caption.is_file():
            captions.write(target.with_suffix(".txt"), captions.read(caption))
        added.append(target)
    return added, refused


def remove_picture(picture: Picture) -> None:
    """Delete a picture and its caption from the dataset."""
    with storing(picture.path):
        picture.path.unlink(missing_ok=True)
        picture.caption_path.unlink(missing_ok=True)
