"""What there is to say of a dataset as it is now: a summary and the findings, made by a thread that holds up nobody.

Nothing is measured twice, for the measures are kept in the cache; what is said is made anew when a file or a setting changes.
Knows no web server.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from app.listing import Listing
from trainer.data import crops
from trainer.data.checkup.finding import Finding
from trainer.data.checkup.findings import findings
from trainer.data.checkup.measures import Measured
from trainer.data.dataset import Dataset, Picture
from trainer.errors import ImpastoError
from trainer.settings import Settings
from trainer.training.plan import Plan

MOST_SHAPES = 4
"""So many buckets are named in the summary."""

MANY, REST = 100, 3.0
"""Where more pictures than that are to be measured, the gallery has so many seconds to itself first."""

State = tuple[str, str]
"""A dataset's version, and the settings as text: what is said holds for these."""


@dataclass(frozen=True)
class Report:
    """What is known. While it is `busy`, `done` of `total` pictures are measured, and the rest is as it was before."""

    state: State = ("", "")
    busy: bool = False
    done: int = 0
    total: int = 0
    summary: str = ""
    findings: tuple[Finding, ...] = ()


@dataclass
class Checkup:
    """The reports of all datasets. `cache`: where measures are kept."""

    cache: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _reports: dict[Path, Report] = field(default_factory=dict)

    def report(self, folder: Path, settings: Settings) -> Report:
        """What is known of the dataset in `folder`; a thread finds out what is not. Raises `DatasetError`."""
        state = Listing(folder).version, settings.model_dump_json()
        with self._lock:
            report = self._reports.get(folder, Report())
            if not report.busy and report.state != state:
                report = self._reports[folder] = replace(report, state=state, busy=True, done=0, total=0)
                threading.Thread(target=self._look, args=(folder, settings), name="checkup", daemon=True).start()
        return report

    def _look(self, folder: Path, settings: Settings) -> None:
        """Find out all that is to be said of the dataset."""
        said: tuple[str, tuple[Finding, ...]] = ("", ())
        try:
            dataset = as_listed(Listing(folder))
            measured = Measured(dataset, self.cache)
            if measured.left > MANY:
                time.sleep(REST)
            for done, total in measured:
                self._update(folder, done=done, total=total)
            found = findings(dataset, settings, measured)
            said = summary(dataset, settings), tuple(found)
        except ImpastoError as error:
            said = "", (Finding("idle", str(error)),)
        finally:
            self._update(folder, busy=False, summary=said[0], findings=said[1])

    def _update(self, folder: Path, **changes: object) -> None:
        with self._lock:
            self._reports[folder] = replace(self._reports[folder], **changes)  # type: ignore[arg-type]


def as_listed(listing: Listing) -> Dataset:
    """The dataset of a listing, whose files need not be read once more."""
    pictures = [Picture(listing.folder / each.name, each.width, each.height, each.caption) for each in listing.entries({})]
    return Dataset(listing.folder, tuple(pictures), tuple(listing.refused()))


def summary(dataset: Dataset, settings: Settings) -> str:
    """How the pictures are trained with these settings, in words. Raises `DatasetError`."""
    if not dataset.pictures:
        return ""
    shapes = Counter(dict(crops.tally(dataset, settings))).most_common()
    named = [f"{count} at {bucket.width} × {bucket.height}" for bucket, count in shapes[:MOST_SHAPES]]
    rest = sum(count for _, count in shapes[MOST_SHAPES:])
    others = len(shapes) - MOST_SHAPES
    more = f", {rest} in {'another shape' if others == 1 else f'{others} other shapes'}" if rest else ""
    plan = Plan.of(dataset, settings)
    times = f"{plan.passes(settings.accumulation):.0f}"
    return (
        f"With the settings under Train: {', '.join(named)}{more}. "
        f"{plan.steps:,} steps show each picture about {times} time{'' if times == '1' else 's'}."
    )
