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

from trainer.bases.layout import INDEX
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
        folder = _resolved(folder)
        if not os.path.isdir(folder):
            raise UsageError(f"There is no folder {folder}: give the folder that your base models lie in.")
        named = self.folders[1:]
        if folder not in named:
            self._keep([*named, folder])

    def remove(self, folder: Path) -> None:
        """Look there no more; its files stay as they are. Raises `UsageError`, `StorageError`."""
        folder, named = _resolved(folder), self.folders[1:]
        if folder not in named:
            raise UsageError(f"{folder} is not one of your folders of bases. They are: {', '.join(map(str, named)) or 'none'}.")
        self._keep([path for path in named if path != folder])

    def found(self) -> list[Found]:
        """Everything that could be a base, once and by name; bases first. Folders that are not there now are passed over."""
        paths = {os.path.realpath(path): path for folder in reversed(self.folders) for path in _candidates(folder)}
        found = [_looked_at(path) for path in paths.values() if _is_text(path)]
        return sorted(found, key=lambda each: (each.facts is None, each.path.name.lower(), str(each.path)))

    def _keep(self, folders: list[Path]) -> None:
        with storing(self._kept):
            write_atomically(self._kept, tomlkit.dumps({"folders": [str(path) for path in folders]}).encode())


def _resolved(folder: Path) -> Path:
    """The folder's one name; unlike Path's own, it takes whatever a person can type."""
    return Path(os.path.realpath(os.path.expanduser(folder)))


def _candidates(folder: Path) -> Iterator[Path]:
    """Diffusers folders and model files at any depth; what belongs to a diffusers folder is not named by itself.

    Links to other folders are followed, each folder is entered once.
    """
    seen = set()
    for place, inner, names in os.walk(folder, followlinks=True):
        here = os.path.realpath(place)
        if here in seen:
            inner.clear()
            continue
        seen.add(here)
        if INDEX in names:
            inner.clear()
            yield Path(place)
        else:
            yield from (Path(place, name) for name in names if name.lower().endswith(_FORMS))


def _is_text(path: Path) -> bool:
    """Whether the name can be shown and written down; Linux allows bytes that are no letters."""
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:
        return False


def _looked_at(path: Path) -> Found:
    """What a folder or file is. Configs are read each time: a folder's own time tells nothing of the files below it."""
    try:
        status = path.stat()
    except OSError:
        return _look(path)  # gone since it was listed, which the sentence says
    return _look(path) if path.is_dir() else _look_once(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _look_once(path: Path, _size: int, _time: int) -> Found:
    """Read the header once, for as long as the file stays as it is."""
    return _look(path)


def _look(path: Path) -> Found:
    try:
        return Found(path, facts_at(str(path), path))
    except BaseModelError as error:
        return Found(path, None, str(error))
