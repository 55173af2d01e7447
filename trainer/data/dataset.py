"""A dataset: one plain folder of pictures, each with its caption in a `.txt` of the same name beside it.

The folder is the whole truth: nothing is kept elsewhere, other tools can read and change it. Knows no torch.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.data import captions, intake, masks
from trainer.errors import DatasetError, PictureError

ABOUT = "dataset.toml"
"""The file that says what concerns the pictures as a whole."""

MOST_REPEATS = 100
"""The most that a picture may be shown in one pass."""

MOST_WEIGHT = 10
"""The most that a picture may count."""

Shares = tuple[float, float, float, float]
"""A part of a picture: its left, top, right and bottom edge as shares of the upright picture."""


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
        for entry in sorted(os.scandir(folder), key=lambda entry: (entry.name.lower(), entry.name)):
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
        given = self.about.get("trigger", "")
        if not isinstance(given, str):
            raise DatasetError(f'{self._path}: the trigger word must be in quotation marks, such as "mystyle", not {given}.')
        return " ".join(given.split())

    @property
    def repeats(self) -> dict[str, int]:
        """How often a pass shows a picture, by file name, as `[repeats]` in `dataset.toml` says: `"01.png" = 3`.

        Pictures that it does not name are shown once; names without a picture do nothing. Raises `DatasetError`.
        """
        given = self._table("repeats", "3")
        for name, times in given.items():
            if type(times) is not int or not 1 <= times <= MOST_REPEATS:
                raise DatasetError(
                    f"{self._path}: the repeats of {name} must be a whole number from 1 to {MOST_REPEATS}, not {times}."
                )
        return given

    @property
    def weights(self) -> dict[str, float]:
        """How much a picture's loss counts, by file name, as `[weights]` in `dataset.toml` says: `"01.png" = 0.5`.

        Pictures that it does not name count 1; names without a picture do nothing. Raises `DatasetError`.
        """
        given = self._table("weights", "0.5")
        for name, weight in given.items():
            if type(weight) not in (int, float) or not 0 < weight <= MOST_WEIGHT:
                raise DatasetError(
                    f"{self._path}: the weight of {name} must be a number above 0, up to {MOST_WEIGHT}, not {weight}."
                )
        return {name: float(weight) for name, weight in given.items()}

    @property
    def crops(self) -> dict[str, Shares]:
        """What a picture is cut to before anything else, by file name, as `[crops]` in `dataset.toml` says:
        `"01.png" = [0.1, 0, 0.9, 1]`, the left, top, right and bottom edge as shares of the upright picture.

        Pictures that it does not name are whole; names without a picture do nothing. Raises `DatasetError`.
        """
        given = self._table("crops", "[0.1, 0, 0.9, 1]")
        for name, edges in given.items():
            if not _shares(edges, 4) or edges[0] >= edges[2] or edges[1] >= edges[3]:
                raise DatasetError(
                    f"{self._path}: the crop of {name} must be four numbers from 0 to 1, its left, top, right and bottom edge "
                    f"as shares of the picture, such as [0.1, 0, 0.9, 1], not {edges}."
                )
        return {name: (float(left), float(top), float(right), float(low)) for name, (left, top, right, low) in given.items()}

    @property
    def focus(self) -> dict[str, tuple[float, float]]:
        """The point of a picture that is kept as near the middle as can be where training crops it, by file name, as `[focus]`
        in `dataset.toml` says: `"01.png" = [0.3, 0.5]`, across and down as shares of the upright picture.

        Pictures that it does not name are cropped in the middle; names without a picture do nothing. Raises `DatasetError`.
        """
        given = self._table("focus", "[0.3, 0.5]")
        for name, point in given.items():
            if not _shares(point, 2):
                raise DatasetError(
                    f"{self._path}: the focus of {name} must be two numbers from 0 to 1, across and down as shares of the "
                    f"picture, such as [0.3, 0.5], not {point}."
                )
        return {name: (float(across), float(down)) for name, (across, down) in given.items()}

    def _table(self, table: str, example: str) -> dict[str, Any]:
        """A table of `dataset.toml` with a line for each picture. Raises `DatasetError` if it is something else."""
        given = self.about.get(table, {})
        if not isinstance(given, dict):
            raise DatasetError(f'{self._path}: {table} must be a table with lines such as "01.png" = {example}.')
        return given

    @property
    def _path(self) -> Path:
        return self.folder / ABOUT

    @property
    def about(self) -> dict[str, Any]:
        """What `dataset.toml` says; empty if there is none. Raises `DatasetError`."""
        if self.noted is not None:
            return self.noted
        path = self._path
        try:
            return tomllib.loads(path.read_text(encoding="utf-8-sig")) if path.is_file() else {}
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{path} is not valid TOML ({error}): correct or delete it.") from None
        except OSError as error:
            raise DatasetError(f"{path} cannot be read ({error.strerror or error}): check the file.") from None


def _shares(given: Any, count: int) -> bool:
    """Whether it is so many numbers from 0 to 1."""
    return (
        isinstance(given, list | tuple)
        and len(given) == count
        and all(type(share) in (int, float) and 0 <= share <= 1 for share in given)
    )


def prior_pictures(folder: str) -> Dataset | None:
    """The pictures of the setting `prior_dataset`; None if it names no folder. Raises `DatasetError` if there are none."""
    if not folder:
        return None
    try:
        return Dataset.open(Path(folder).expanduser().resolve()).for_training()
    except DatasetError as error:
        raise DatasetError(f"prior_dataset: {error}") from None
