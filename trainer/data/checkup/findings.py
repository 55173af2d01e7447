"""All that may be wrong with a dataset for a training with these settings, the most serious first.

What is looked for in pictures is in `picture_findings`, in captions in `caption_findings`; here is what concerns the folder and
the dataset as a whole. Changes nothing; what a click can mend is in `mending`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from trainer.data import intake, masks
from trainer.data.checkup.caption_findings import caption_findings
from trainer.data.checkup.finding import KINDS, TAKEN_OUT, Finding, counted, found
from trainer.data.checkup.measures import Measured
from trainer.data.checkup.picture_findings import picture_findings
from trainer.data.dataset import Dataset
from trainer.data.doubts import doubts
from trainer.errors import PictureError
from trainer.settings import Settings

FEW = 10
"""With fewer pictures a style is hardly told from what they show."""

RARELY, OFTEN = 5, 300
"""Passes: a picture that is seen less often is hardly learnt, one that is seen more often is learnt by heart."""

ENOUGH = 8
"""With fewer pictures nothing is said of their shapes."""


def findings(dataset: Dataset, settings: Settings, measured: Measured) -> list[Finding]:
    """Look at everything. What is not measured yet is left out where it matters.

    Raises `DatasetError` if `dataset.toml` makes no sense or a caption cannot be read, `PictureError`.
    """
    usable = tuple(picture for picture in dataset.pictures if picture.path.name not in measured.damaged)
    whole = Dataset(dataset.folder, usable, dataset.refused, dataset.noted)
    there = [
        *_damaged(dataset, measured),
        *picture_findings(whole, settings, measured.found),
        *caption_findings(whole, settings),
        *_captions_apart(dataset),
        *_amount(whole, settings),
        *_shapes(whole),
        *(found("idle", sentence, (), "") for sentence in doubts(whole, settings)),
    ]
    order = list(KINDS)
    return sorted((_sparing(finding, len(usable)) for finding in there), key=lambda finding: order.index(finding.kind))


def _sparing(finding: Finding, count: int) -> Finding:
    """The finding; of one in every picture nobody is offered to take all of them out."""
    return replace(finding, mend="") if finding.kind in TAKEN_OUT and len(finding.names) == count else finding


def damaged(dataset: Dataset, measured: Measured) -> dict[str, str]:
    """The files that are pictures by their name only, or cannot be decoded to their end, each with a sentence why."""
    readable = {picture.path.name for picture in dataset.pictures}
    reasons = {
        path.name: measured.damaged.get(path.name) or ("" if path.name in readable else _unreadable(path))
        for path in _files(dataset.folder)
        if _is_picture(path)
    }
    return {name: reason for name, reason in reasons.items() if reason}


def _unreadable(path: Path) -> str:
    """Why a file is not among the pictures; empty for one that has come since the dataset was read."""
    try:
        intake.read_header(path)
    except PictureError as error:
        return str(error)
    return ""


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in intake.SUFFIXES and not masks.is_mask(path)


def _damaged(dataset: Dataset, measured: Measured) -> Iterator[Finding]:
    reasons = damaged(dataset, measured)
    if reasons:
        it, first = "it" if len(reasons) == 1 else "them", next(iter(reasons.values()))
        yield found(
            "damaged",
            f"{counted(len(reasons), 'file', 'files')} cannot be used, and training leaves {it} out. {first}",
            reasons,
            "What is moved aside goes into the folder removed, with its caption.",
        )


def _captions_apart(dataset: Dataset) -> Iterator[Finding]:
    """Captions that belong to several pictures, or to none."""
    files = _files(dataset.folder)
    by_stem: defaultdict[str, list[str]] = defaultdict(list)
    for path in files:
        if _is_picture(path):
            by_stem[path.stem].append(path.name)
    texts = {path.stem: path.name for path in files if path.suffix == ".txt"}
    shared = [tuple(names) for stem, names in by_stem.items() if len(names) > 1]
    if shared:
        names = tuple(name for group in shared for name in group)
        yield Finding(
            "shared",
            f"{len(names):,} pictures share a caption with another of their name, such as {shared[0][0]} and {shared[0][1]}.",
            names,
            tuple(shared),
            advice="Take one of each out, or rename it, if the caption is not meant for both.",
        )
    lone = [name for stem, name in texts.items() if stem not in by_stem]
    if lone:
        yield found(
            "lone",
            f"{counted(len(lone), 'caption has', 'captions have')} no picture of the same name, such as {lone[0]}.",
            lone,
            "Rename it after its picture, or add the picture.",
        )


def _amount(dataset: Dataset, settings: Settings) -> Iterator[Finding]:
    count = len(dataset.pictures)
    if not count:
        return
    repeats = dataset.repeats
    showings = sum(repeats.get(picture.path.name, 1) for picture in dataset.pictures)
    planned = settings.steps * settings.batch * settings.accumulation / showings if settings.steps else settings.passes
    if count < FEW:
        yield found(
            "few",
            f"{counted(count, 'picture is', 'pictures are')} hardly enough to tell a style from what is in them.",
            (),
            "Twelve to fifty of different subjects are usual for a style.",
        )
    elif planned > OFTEN:
        yield found(
            "few",
            f"Each picture is seen about {planned:,.0f} times: so few pictures for so many steps are learnt by heart.",
            (),
            "Add pictures, or train fewer steps.",
        )
    if planned < RARELY:
        yield found(
            "many",
            f"Each picture is seen only about {planned:.1f} times in this training: that is hardly enough to learn from it.",
            (),
            "Train more steps, or take the pictures out that show the style least.",
        )


def _shapes(dataset: Dataset) -> Iterator[Finding]:
    if len(dataset.pictures) < ENOUGH:
        return
    for shape, alike in (
        ("taller than wide", all(picture.height > picture.width for picture in dataset.pictures)),
        ("wider than tall", all(picture.width > picture.height for picture in dataset.pictures)),
    ):
        if alike:
            yield found(
                "turned",
                f"All pictures are {shape}: in other shapes the style may be weaker.",
                (),
                "Add some of another shape, if you want to draw such.",
            )
