"""What `dataset.toml` is to say of pictures that are being added, by the names that they have got."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from trainer.data.arrival.pile import Entry
from trainer.data.dataset import ABOUT, Dataset
from trainer.data.editing.edits import Edits, Table, Value
from trainer.errors import DatasetError, StorageError

EVERY = 200
"""It is written after so many pictures, for each time the whole file is."""


class About:
    """What is known of a dataset's new pictures and not written yet."""

    def __init__(self, folder: Path, trigger: str) -> None:
        self._folder, self._trigger = folder, trigger
        self._tables: dict[Table, dict[str, Value]] = defaultdict(dict)
        self._problems: list[str] = []

    def note(self, name: str, entry: Entry) -> None:
        """Keep in mind what was said of the picture that is now called `name`; written every now and then."""
        if entry.repeats != 1:
            self._tables["repeats"][name] = entry.repeats
        for table, value in entry.about.items():
            self._tables[table][name] = value
        if sum(map(len, self._tables.values())) >= EVERY:
            self.write()

    def write(self) -> list[str]:
        """Write it. Returns a sentence for each thing that could not be written until now."""
        edits, tables = Edits(self._folder), self._tables
        self._tables = defaultdict(dict)
        try:
            for table, values in tables.items():
                edits.set(table, values)
            self._take_trigger(edits)
        except (DatasetError, StorageError) as error:
            self._problems.append(f"What {ABOUT} was to say of the pictures could not be kept. {error}")
        return self._problems

    def _take_trigger(self, edits: Edits) -> None:
        """Write the trigger word, unless the dataset has another one. Raises `DatasetError`, `StorageError`."""
        new, self._trigger = self._trigger, ""
        there = Dataset(self._folder, (), ()).trigger if new else ""
        if new and not there:
            edits.trigger("", new)
        elif new != there:
            self._problems.append(
                f"The trigger word “{new}” of what was added was not taken, for the dataset's own is “{there}”: "
                "where captions hold the other one, replace it."
            )
