"""Which dataset a person means: by the path of its folder, or by its name in the home folder, as the page shows it."""

from __future__ import annotations

import os
from pathlib import Path

from trainer.data.dataset import Dataset
from trainer.data.editing.steps import ROOMS
from trainer.data.intake import SUFFIXES
from trainer.errors import DatasetError
from trainer.home import Home


def folder_of(named: Path, home: Home, new: bool = False) -> Path:
    """The folder of a dataset; where there is none, the path itself if a `new` one may be made there.

    Raises `DatasetError` for a name that is nowhere.
    """
    if os.path.exists(named) or len(named.parts) != 1:  # anything longer can only be a path
        return named
    kept = home.datasets / named
    if os.path.isdir(kept):
        return kept
    if not new:
        raise DatasetError(
            f"The dataset folder {named} does not exist, nor is there a dataset of that name in {home.datasets}: "
            "give a folder that holds pictures, or a name that the page shows."
        )
    return named


def opened(named: Path, home: Home) -> Dataset:
    """The dataset itself. Raises `DatasetError` if it is nowhere, or is only a folder of folders with pictures."""
    dataset = Dataset.open(folder_of(named, home))
    deep = None if dataset.pictures or dataset.refused else _deeper(dataset.folder)
    if deep:
        raise DatasetError(
            f"There is no picture in {dataset.folder} itself, but in folders within it, such as {deep.as_posix()}: "
            f"`impasto add DATASET {dataset.folder}` copies them all into one dataset, DATASET."
        )
    return dataset


def _deeper(folder: Path) -> Path | None:
    """The first picture, by its name, one or two folders deep; not among what was taken out of a dataset."""
    for pattern in ("*/*", "*/*/*"):
        for path in folder.glob(pattern):
            inside = path.relative_to(folder)
            first = inside.parts[0]
            if path.suffix.lower() in SUFFIXES and first not in ROOMS and not first.startswith("."):
                return inside
    return None
