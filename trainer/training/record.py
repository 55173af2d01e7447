"""What a run was trained on: written into its folder when it starts, and compared when it goes on. Knows no torch.

The record is the truth about a run's pictures: their names, sizes and captions and what `dataset.toml` said, so that whoever
edits the dataset meanwhile does not change a run that goes on. Pictures themselves are not copied. One that is gone keeps its
place in the plan, where others stand in for it; one that was painted over is trained as it is now; both are told of.

pictures.json    {"dataset": FOLDER, "prior": FOLDER or null}; a folder is
                 {"folder", "about", "refused": [name …], "pictures": [{"name", "width", "height", "sha256", "caption"} …]}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer.data import masks
from trainer.data.dataset import Dataset, Picture
from trainer.errors import DatasetError, RunError, storing
from trainer.home import write_atomically
from trainer.settings import Settings
from trainer.training.plan import Plan

NAME = "pictures.json"

_NAMED = 5
"""So many names are said in one sentence."""


@dataclass(frozen=True)
class Folder:
    """A folder of pictures as it was."""

    dataset: Dataset
    digests: dict[str, str]
    """SHA-256 of each picture and its mask, by file name."""
    refused: frozenset[str] = frozenset()
    """Pictures that could not be read when the run began, and are no part of it."""

    @classmethod
    def of(cls, dataset: Dataset) -> Folder:
        """As it is now; every picture is read once. Raises `DatasetError`."""
        pictures = tuple(replace(picture, noted=picture.caption) for picture in dataset.pictures)
        digests = {picture.path.name: _digest(picture) for picture in pictures}
        return cls(replace(dataset, pictures=pictures, noted=_about(dataset)), digests)

    def to_json(self) -> dict[str, Any]:
        """As it is written."""
        pictures = [
            {
                "name": picture.path.name,
                "width": picture.width,
                "height": picture.height,
                "sha256": self.digests[picture.path.name],
                "caption": picture.caption,
            }
            for picture in self.dataset.pictures
        ]
        return {
            "folder": str(self.dataset.folder),
            "about": self.dataset.about,
            "refused": sorted(self.refused),
            "pictures": pictures,
        }

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Folder:
        """What was written. Raises `KeyError`, `TypeError`."""
        folder = Path(told["folder"])
        pictures = tuple(
            Picture(folder / entry["name"], entry["width"], entry["height"], entry["caption"]) for entry in told["pictures"]
        )
        digests = {entry["name"]: entry["sha256"] for entry in told["pictures"]}
        return cls(Dataset(folder, pictures, (), told["about"]), digests, frozenset(told["refused"]))

    def differences(self) -> list[str]:
        """What has become of the folder since, in sentences."""
        if not self.dataset.folder.is_dir():
            return [f"The folder {self.dataset.folder} is gone, and its pictures with it."]
        try:
            return self._compared()
        except DatasetError as error:
            return [f"{error} The run goes on with what was there when it began."]

    def _compared(self) -> list[str]:
        """The same of a folder that is there. Raises `DatasetError` if it cannot be read."""
        now = Dataset.open(self.dataset.folder)
        before = {picture.path.name: picture for picture in self.dataset.pictures if picture.path.name not in self.refused}
        here = {picture.path.name: picture for picture in now.pictures}
        there = before.keys() & here.keys()
        new = here.keys() - before.keys() - self.refused
        fitting = {name for name in there if _size(here[name]) == _size(before[name])}  # the others are refused by name
        painted = {name for name in fitting if _digest(here[name]) != self.digests[name]}
        renamed = {name for name in there if here[name].caption != before[name].caption}
        found = [
            _told(before.keys() - here.keys(), "Gone since the run began, so that others are shown instead"),
            _told(painted, "Changed since the run began, and trained in the new form"),
            _told(new, "New since the run began, and no part of it"),
            _told(renamed, "Captioned anew since the run began, and trained with the old caption"),
        ]
        before, after = _about(self.dataset), _about(now)
        if other := [table for table in before if after[table] != before[table]]:
            found.append(
                f"dataset.toml names other {' and '.join(other)} since the run began: it goes on with the earlier ones."
            )
        return [sentence for sentence in found if sentence]


@dataclass(frozen=True)
class Record:
    """The pictures of a run, as they were when it began."""

    own: Folder
    prior: Folder | None = None

    @classmethod
    def of(cls, dataset: Dataset, prior: Dataset | None) -> Record:
        """As they are now; every picture is read once. Raises `DatasetError`."""
        return cls(Folder.of(dataset), Folder.of(prior) if prior else None)

    @classmethod
    def read(cls, run: Path) -> Record | None:
        """What was written into a run folder; None if nothing was. Raises `RunError` if it is damaged."""
        path = run / NAME
        if not path.is_file():
            return None
        try:
            told = json.loads(path.read_bytes())
            return cls(Folder.from_json(told["dataset"]), Folder.from_json(told["prior"]) if told["prior"] else None)
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path} is damaged ({error}): start a new run.") from None

    def write(self, run: Path) -> None:
        """Put it into a run folder. Raises `StorageError`."""
        told = {"dataset": self.own.to_json(), "prior": self.prior.to_json() if self.prior else None}
        with storing(run / NAME):
            write_atomically(run / NAME, json.dumps(told, ensure_ascii=False, indent=1).encode("utf-8"))

    def plan(self, settings: Settings, processes: int = 1) -> Plan:
        """The plan of the pictures as they were, without those that could not be read. Raises `DatasetError`."""
        plan = Plan.of(self.own.dataset, settings, processes, self.prior.dataset if self.prior else None)
        return plan.without(
            {index for index, entry in enumerate(plan.pictures) if entry.picture.path.name in self._of(entry.prior).refused}
        )

    def refusing(self, plan: Plan, refused: Iterable[int]) -> Record:
        """The same, with pictures of `plan` noted as not readable: no plan of this record will hold them."""
        entries = [plan.pictures[index] for index in refused]
        own, prior = (frozenset(entry.picture.path.name for entry in entries if entry.prior is kind) for kind in (False, True))
        return Record(
            replace(self.own, refused=self.own.refused | own),
            self.prior and replace(self.prior, refused=self.prior.refused | prior),
        )

    def differences(self) -> list[str]:
        """What has become of the pictures since: added, deleted, changed ones, other captions. Raises `DatasetError`."""
        return [sentence for folder in (self.own, self.prior) if folder for sentence in folder.differences()]

    def _of(self, prior: bool) -> Folder:
        return self.prior if prior and self.prior else self.own


def _about(dataset: Dataset) -> dict[str, Any]:
    """What of `dataset.toml` concerns the plan, in JSON's own types."""
    crops, focus = ({name: list(shares) for name, shares in table.items()} for table in (dataset.crops, dataset.focus))
    return {"repeats": dataset.repeats, "weights": dataset.weights, "crops": crops, "focus": focus}


def _size(picture: Picture) -> tuple[int, int]:
    return picture.width, picture.height


def _digest(picture: Picture) -> str:
    try:
        digest = hashlib.sha256(picture.path.read_bytes())
        if mask := masks.found(picture.path):
            digest.update(mask.read_bytes())
    except OSError as error:
        raise DatasetError(f"{picture.path.name} cannot be opened ({error.strerror or error}).") from None
    return digest.hexdigest()


def _told(names: Iterable[str], what: str) -> str:
    """A sentence about pictures; empty if there are none."""
    found = sorted(names)
    if not found:
        return ""
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f"{what} ({len(found)}): {', '.join(found[:_NAMED])}{more}."
