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

from trainer.data import captions, intake, masks
from trainer.errors import DatasetError, PictureError, storing
from trainer.home import free_name, safe_name, write_atomically

_ABOUT = "dataset.toml"
"""The file that says what concerns the pictures as a whole."""

MOST_REPEATS = 100
"""The most that a picture may be shown in one pass."""

MOST_WEIGHT = 10
"""The most that a picture may count."""


@dataclass(frozen=True)
class Picture:
    """One picture of a dataset. `width` and `height` are its own, upright, in pixels."""

    path: Path
    width: int
    height: int
    noted: str | None = None
    """The caption as it was noted before; None: as the file says."""

    @property
    def caption_path(self) -> Path:
        """Where its caption is, or will be."""
        return self.path.with_suffix(".txt")

    @property
    def caption(self) -> str:
        """What was noted, else what the file says now; empty if there is none."""
        return captions.read(self.caption_path) if self.noted is None else self.noted

    def write_caption(self, caption: str) -> None:
        """Put the caption on disk at once."""
        captions.write(self.caption_path, caption)


@dataclass(frozen=True)
class Dataset:
    """The readable pictures of a folder in the order of their names, and a sentence for each that is not readable."""

    folder: Path
    pictures: tuple[Picture, ...]
    refused: tuple[str, ...]
    noted: dict[str, Any] | None = None
    """What `dataset.toml` said before; None: what it says now."""

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """Read a folder's picture headers. Raises `DatasetError` if it is missing; an empty one is allowed here."""
        if not folder.is_dir():
            what = "is a file, not a folder" if folder.exists() else "does not exist"
            raise DatasetError(f"The dataset folder {folder} {what}: give a folder that holds pictures.")
        found, refused = [], []
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name.lower()):
            path = folder / entry.name
            if path.suffix.lower() not in intake.SUFFIXES or masks.is_mask(path):
                continue
            if entry.name.startswith(".") or not entry.is_file():
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
        return str(self.about.get("trigger", ""))

    @property
    def repeats(self) -> dict[str, int]:
        """How often a pass shows a picture, by file name, as `[repeats]` in `dataset.toml` says: `"01.png" = 3`.

        Pictures that it does not name are shown once; names without a picture do nothing. Raises `DatasetError`.
        """
        given, path = self.about.get("repeats", {}), self.folder / _ABOUT
        if not isinstance(given, dict):
            raise DatasetError(f'{path}: repeats must be a table with lines such as "01.png" = 3.')
        for name, times in given.items():
            if type(times) is not int or not 1 <= times <= MOST_REPEATS:
                raise DatasetError(
                    f"{path}: the repeats of {name} must be a whole number from 1 to {MOST_REPEATS}, not {times}."
                )
        return given

    @property
    def weights(self) -> dict[str, float]:
        """How much a picture's loss counts, by file name, as `[weights]` in `dataset.toml` says: `"01.png" = 0.5`.

        Pictures that it does not name count 1; names without a picture do nothing. Raises `DatasetError`.
        """
        given, path = self.about.get("weights", {}), self.folder / _ABOUT
        if not isinstance(given, dict):
            raise DatasetError(f'{path}: weights must be a table with lines such as "01.png" = 0.5.')
        for name, weight in given.items():
            if type(weight) not in (int, float) or not 0 < weight <= MOST_WEIGHT:
                raise DatasetError(f"{path}: the weight of {name} must be a number above 0, up to {MOST_WEIGHT}, not {weight}.")
        return {name: float(weight) for name, weight in given.items()}

    def write_trigger(self, trigger: str) -> None:
        """Keep the trigger word with the pictures; whatever else is said there stays. Raises `DatasetError`, `StorageError`."""
        path = self.folder / _ABOUT
        about = tomlkit.parse(path.read_text(encoding="utf-8-sig")) if self.about else tomlkit.document()
        about["trigger"] = trigger
        with storing(path):
            write_atomically(path, tomlkit.dumps(about).encode("utf-8"))

    @property
    def about(self) -> dict[str, Any]:
        """What `dataset.toml` says; empty if there is none. Raises `DatasetError`."""
        if self.noted is not None:
            return self.noted
        path = self.folder / _ABOUT
        try:
            return tomllib.loads(path.read_text(encoding="utf-8-sig")) if path.is_file() else {}
        except ValueError as error:
            raise DatasetError(f"{path} is not valid TOML ({error}): correct or delete it.") from None


def prior_pictures(folder: str) -> Dataset | None:
    """The pictures of the setting `prior_dataset`; None if it names no folder. Raises `DatasetError` if there are none."""
    if not folder:
        return None
    try:
        return Dataset.open(Path(folder).expanduser().resolve()).for_training()
    except DatasetError as error:
        raise DatasetError(f"prior_dataset: {error}") from None


def add_files(folder: Path, files: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """Copy pictures, with captions and masks that lie among `files` or beside them, into `folder`; nothing is overwritten.

    Returns the new pictures and a sentence for every file that was refused. Raises `StorageError`.
    """
    given = list(files)
    texts = {path.stem: path for path in given if path.suffix.lower() in (".txt", ".caption")}
    painted = {masks.picture_stem(path): path for path in given if masks.is_mask(path)}
    sources = [path for path in given if path not in texts.values() and path not in painted.values()]
    added, refused = [], []
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for source in sources:
        try:
            intake.read_picture(source)
            target = _place_for(source, intake.read_header(source).format, folder)
        except PictureError as error:
            refused.append(str(error))
            continue
        with storing(target):
            shutil.copyfile(source, target)
        caption = texts.get(source.stem, source.with_suffix(".txt"))
        if caption.is_file():
            captions.write(target.with_suffix(".txt"), captions.read(caption))
        mask = painted.get(source.stem, masks.mask_path(source))
        if mask.is_file():
            refused += _add_mask(mask, target)
        added.append(target)
    for stem in sorted(painted.keys() - {source.stem for source in sources}):
        refused.append(f"{painted[stem].name} is the mask of a picture that is not there: add it together with its picture.")
    return added, refused


def _place_for(source: Path, form: str, folder: Path) -> Path:
    """Where a picture of this format is copied to: a free name, to which no other picture has left a caption or a mask."""
    suffix = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif"}.get(form, f".{form.lower()}")
    target = free_name(folder, f"{safe_name(source.stem, 'picture')}{suffix}")
    while target.with_suffix(".txt").exists() or masks.mask_path(target).exists():
        target = free_name(folder, f"{target.stem}-2{suffix}")
    return target


def _add_mask(mask: Path, picture: Path) -> list[str]:
    """Copy a mask to where `picture` has its own; a sentence if it cannot be read."""
    try:
        intake.read_picture(mask)
    except PictureError as error:
        return [str(error)]
    target = masks.mask_path(picture)
    with storing(target):
        shutil.copyfile(mask, target)
    return []


def remove_picture(picture: Picture) -> None:
    """Delete a picture from the dataset, with its caption and its mask."""
    with storing(picture.path):
        for path in (picture.path, picture.caption_path, masks.mask_path(picture.path)):
            path.unlink(missing_ok=True)
