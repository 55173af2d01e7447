"""`impasto add` and `check`: what is put into a dataset, and what may be wrong with it. Knows no torch; progress on stderr."""

from __future__ import annotations

import argparse
from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import Any

from trainer import presets
from trainer.bars import bar, reach
from trainer.commands_training import assignments
from trainer.data import crops
from trainer.data.arrival import adding
from trainer.data.checkup.finding import KINDS, counted
from trainer.data.checkup.findings import findings
from trainer.data.checkup.measures import Measured
from trainer.data.checkup.mending import mend
from trainer.data.dataset import Dataset
from trainer.data.editing.edits import Edits
from trainer.data.lookup import folder_of, opened
from trainer.errors import DatasetError
from trainer.home import Home
from trainer.settings import Settings
from trainer.training.plan import Plan

NAMED = 4
"""So many pictures are named of each finding."""

Asked = argparse.Namespace
Result = dict[str, Any]


def add(asked: Asked, home: Home) -> Result:
    """`impasto add`: what is in, by its name, with what was changed of it; and a sentence for each file that is not."""
    folder = folder_of(asked.dataset, home, new=True)
    added: dict[str, list[str]] = {}
    refused: list[str] = []
    shown = None
    with ExitStack() as stack:
        for each in stack.enter_context(closing(adding.add(folder, asked.files))):
            shown = stack.enter_context(bar("adding pictures", each.total)) if shown is None else shown
            reach(shown, each.done)
            if isinstance(each, adding.Added):
                added[each.name] = list(each.notes)
            else:
                refused.append(each.reason)
    return {"dataset": str(folder), "added": added, "refused": refused}


def told_add(result: Result) -> list[str]:
    """What came in and what did not, in lines for a person."""
    notes = [f"  {name}: {'; '.join(said)}" for name, said in result["added"].items() if said]
    return [
        *result["refused"],
        f"{counted(len(result['added']), 'picture was', 'pictures were')} added to {result['dataset']}.",
        *notes,
    ]


def any_refused(result: Result) -> bool:
    """Whether a file was not added."""
    return bool(result["refused"])


def check(asked: Asked, home: Home) -> Result:
    """`impasto check`: what was mended if that was asked for, and what is found then. Raises `DatasetError`."""
    dataset = opened(asked.dataset, home)
    if not dataset.refused:
        dataset.for_training()
    settings = _settings(asked, dataset)
    mended: list[str] = []
    for kind in asked.mend:
        _measured(dataset, home)  # under a bar
        try:
            mended.append(mend(kind, None, Edits(dataset.folder), settings, home.cache))
        except DatasetError as error:
            mended.append(str(error))
        dataset = Dataset.open(dataset.folder)
    measured = _measured(dataset, home)
    return {
        "dataset": str(dataset.folder),
        "pictures": len(dataset.pictures),
        "mended": mended,
        "findings": [{**asdict(each), "title": KINDS[each.kind][0]} for each in findings(dataset, settings, measured)],
        **_outlook(dataset, settings),
    }


def _settings(asked: Asked, dataset: Dataset) -> Settings:
    """What the pictures are checked for: SDXL, where no base is named. Raises `SettingsError`, `BaseModelError`."""
    from trainer.bases.source import facts_of

    file = presets.own(asked.settings) if asked.settings else {}
    trigger = {"trigger": dataset.trigger} if dataset.trigger else {}
    family = facts_of(asked.base).family if asked.base else "sdxl"
    return presets.load(asked.preset).settings(family, {**file, **trigger, **dict(assignments(asked.set))})


def _measured(dataset: Dataset, home: Home) -> Measured:
    """The measures of all pictures, told of on stderr where there are any to take."""
    measured = Measured(dataset, home.cache)
    if measured.left:
        with bar("measuring pictures", len(dataset.pictures)) as shown, closing(iter(measured)) as steps:
            for done, _ in steps:
                reach(shown, done)
    return measured


def _outlook(dataset: Dataset, settings: Settings) -> Result:
    """How the pictures are trained: how many in each bucket, what the crops leave out, how often each is seen."""
    if not dataset.pictures:
        return {"resolution": settings.resolution, "buckets": {}, "cropped": 0.0, "steps": 0, "passes": 0.0}
    plan = Plan.of(dataset, settings)
    framing = crops.Framing.of(dataset)
    lost = [next(framing.placements(picture, settings)).lost for picture in dataset.pictures]
    return {
        "resolution": settings.resolution,
        "buckets": {f"{bucket.width}x{bucket.height}": count for bucket, count in crops.tally(dataset, settings)},
        "cropped": round(sum(lost) / len(lost), 4),
        "steps": plan.steps,
        "passes": round(plan.passes(settings.accumulation), 2),
    }


def told_check(result: Result) -> list[str]:
    """What is told of a dataset, in lines for a person."""
    lines = list(result["mended"])
    for finding in result["findings"]:
        lines.append(f"{finding['title']}: {finding['sentence']}")
        if finding["names"]:
            more = len(finding["names"]) - NAMED
            lines.append(f"  {', '.join(finding['names'][:NAMED])}" + (f" and {more} more" if more > 0 else ""))
        if finding["advice"]:
            lines.append(f"  {finding['advice']}")
        if finding["mend"]:
            lines.append(f"  {finding['mend']}: --mend {finding['kind']}")
    if not result["findings"]:
        lines.append("Nothing was found that may spoil a training.")
    if result["pictures"]:
        buckets = ", ".join(f"{count} at {size}" for size, count in result["buckets"].items())
        lines += [
            f"{result['pictures']} pictures at a resolution of {result['resolution']}: {buckets}. "
            f"Crops leave out {result['cropped']:.1%} of each on average.",
            f"{result['steps']:,} steps show each picture about {result['passes']:.1f} times.",
        ]
    return lines
