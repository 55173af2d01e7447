"""The bases that a person has: in `bases/` of the home folder, and in the folders that were named once, such as another
program's `Stable-diffusion` or `checkpoints`. What each file is, is told from headers alone. Knows no torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from trainer.bases.source import Facts, facts_at
from trainer.errors import BaseModelError, UsageError, storing
from trainer.home import Home, write_atomically

_FORMS = (".safetensors", ".ckpt")
"""Files that are looked at: pickles are listed too, with what to do about them."""


@dataclass(frozen=True)
class Found:
    """A folder or file that may be a base: its facts, or the sentence that says why it is none."""

    path: Path
    facts: Facts | None
    refusal: str = ""


class Bases:
    """What lies in the folders of bases."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._kept = home.root / "bases.toml"

    @property
    def folders(self) -> list[Path]:
        """The home's own folder, and those that were named. Raises `BaseModelError` if their list is damaged."""
        if not self._kept.is_file():
            return [self._home.bases]
        try:
            named = tomlkit.parse(self._kept.read_text(encoding="utf-8")).unwrap()["folders"]
            return [self._home.bases, *map(Path, named)]
        except (OSError, UnicodeDecodeError, TOMLKitError, KeyError, TypeError):
            raise BaseModelError(f"{self._kept} is damaged: delete it, and name your folders of bases again.") from None

    def add(self, folder: Path) -> None:
        """Look for bases there too, from now on. Raises `UsageError`, `StorageError`."""
        folder = folder.expanduser().resolve()
        if not folder.is_dir():
            raise UsageError(f"There is no folder {folder}: give the folder that your base models lie in.")
        named = self.folders[1:]
        if folder not in named:
            self._keep([*named, folder])

    def remove(self, folder: Path) -> None:
        """Look there no more; its files stay as they are. Raises `UsageError`, `StorageError`."""
        folder, named = folder.expanduser().resolve(), self.folders[1:]
        if folder not in named:
            raise UsageError(f"{folder} is not one of your folders of bases. They are: {', '.join(map(str, named)) or 'none'}.")
        self._keep([path for path in named if path != folder])

    def found(self) -> list[Found]:
        """Everything that could be a base, by name; bases first. Folders that are not there now are passed over."""
        paths = {path for folder in self.folders for path in _candidates(folder)}
        found = [_look(path, _state(path)) for path in paths]
        return sorted(found, key=lambda each: (each.facts is None, each.path.name.lower(), str(each.path)))

    def _keep(self, folders: list[Path]) -> None:
        with storing(self._kept):
            write_atomically(self._kept, tomlkit.dumps({"folders": [str(path) for path in folders]}).encode())


def _candidates(folder: Path) -> Iterator[Path]:
    """Diffusers folders and model files at any depth; what belongs to a diffusers folder is not named by itself."""
    for place, inner, names in os.walk(folder):
        if "model_index.json" in names:
            inner.clear()
            yield Path(place)
        else:
            yield from (Path(place, name) for name in names if name.lower().endswith(_FORMS))


def _state(path: Path) -> tuple[int, int]:
    """Changes when the file does."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0)  # gone since it was listed
    return (status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _look(path: Path, _: tuple[int, int]) -> Found:
    """Read the headers once, for as long as the file stays as it is."""
    try:
        return Found(path, facts_at(str(path), path))
    except BaseModelError as error:
        return Found(path, None, str(error))
