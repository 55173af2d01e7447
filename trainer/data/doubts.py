"""What a dataset's folder says that does nothing in a training with these settings, in sentences. Knows no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable

from trainer.data import intake, masks, variety
from trainer.data.dataset import Dataset
from trainer.settings import Settings

NAMED = 3
"""So many files are named in one sentence."""


def doubts(dataset: Dataset, settings: Settings) -> list[str]:
    """A sentence for each thing that is probably not meant so. Raises `DatasetError`, `PictureError`."""
    found = [
        _strangers(dataset, "repeats", dataset.repeats),
        _strangers(dataset, "weights", dataset.weights),
        _strangers(dataset, "crops", dataset.crops),
        _strangers(dataset, "focus", dataset.focus),
    ]
    if settings.crops > 1 and dataset.focus:
        found.append("[focus] in dataset.toml does nothing with crops above 1: each picture is cropped anywhere then.")
    if settings.masked_loss:
        found += [_no_masks(dataset), _lone_masks(dataset)]
    if settings.wildcards:
        found.append(_open_braces(dataset))
    return [sentence for sentence in found if sentence]


def _strangers(dataset: Dataset, table: str, names: Iterable[str]) -> str:
    gone = [name for name in names if not os.path.isfile(dataset.folder / name)]
    return f"[{table}] in dataset.toml names {_named(gone)}: no such file is in {dataset.folder}." if gone else ""


def _no_masks(dataset: Dataset) -> str:
    if any(masks.tag(picture.path) for picture in dataset.pictures):
        return ""
    return "masked_loss is on, but no picture has a mask or transparency: all of each is learnt."


def _lone_masks(dataset: Dataset) -> str:
    files = [path for path in dataset.folder.iterdir() if path.suffix.lower() in intake.SUFFIXES]
    stems = {path.stem for path in files if not masks.is_mask(path)}
    lone = [path.name for path in masks.within(dataset.folder) if masks.picture_stem(path) not in stems]
    return f"There is a mask without its picture: {_named(lone)}. It must be named after one." if lone else ""


def _open_braces(dataset: Dataset) -> str:
    names = [picture.caption_path.name for picture in dataset.pictures if variety.unclosed(picture.caption)]
    return f"A brace is never closed in {_named(names)}, so nothing is chosen there: write {{red|blue}}." if names else ""


def _named(names: list[str]) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
