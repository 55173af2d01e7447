"""The LoRA files that the page offers: the library's, and those that the runs have made. Reads headers only, no layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.bases.origin import STARTER_VERSION
from trainer.bases.source import STARTER
from trainer.errors import ImpastoError, LoraFileError
from trainer.home import Home, safe_name
from trainer.lora.facts import facts_of
from trainer.training.run import Run


@dataclass(frozen=True)
class Entry:
    """A LoRA file. `key` is its path below the home folder, which the page names it by."""

    key: str
    path: Path

    @property
    def label(self) -> str:
        """How it is called in a list."""
        return self.path.stem if self.key.startswith("loras/") else f"{self.path.stem} (run)"

    @property
    def trigger(self) -> str:
        """The word that calls the style; empty if the file names none. Raises `LoraFileError`."""
        return facts_of(self.path).trigger

    @property
    def only_starter(self) -> bool:
        """Whether the file is made for the starter base. Raises `LoraFileError`."""
        return facts_of(self.path).base == STARTER_VERSION

    @property
    def base(self) -> str:
        """The base it was made on, as far as that can be told; else empty. Raises `LoraFileError`."""
        if self.only_starter:
            return STARTER
        try:
            return Run.open(self.path.parent).base
        except ImpastoError:
            return ""


def entries(home: Home) -> list[Entry]:
    """What is on the shelf, newest first."""
    library = home.loras.glob("*.safetensors") if home.loras.is_dir() else ()
    runs = [folder for folder in home.runs.iterdir() if folder.is_dir()] if home.runs.is_dir() else []
    made = (folder / f"{safe_name(folder.name, 'style')}.safetensors" for folder in runs)
    files = [path for path in (*library, *made) if path.is_file()]
    files.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return [Entry(path.relative_to(home.root).as_posix(), path) for path in files]


def find(home: Home, key: str) -> Entry:
    """The file of that key. Raises `LoraFileError`."""
    for entry in entries(home):
        if entry.key == key:
            return entry
    raise LoraFileError(f"There is no LoRA {key} any more: choose another one.")
