"""Presets: named sets of settings (`presets/*.toml`), one table per kind of base.

`[sdxl]` values are for real SDXL and its descendants. `[starter]` values were measured on the starter base, whose learning
rates are some forty times higher: they would ruin an SDXL LoRA, so a preset is always read for one family.

A file of one's own (`own`) has one table, `[settings]`, for on top of a preset's; a run's `settings.toml` is such a file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from trainer.errors import SettingsError, UsageError, storing
from trainer.home import shipped, write_atomically
from trainer.settings import Family, Settings
from trainer.settings_text import validated

DEFAULT = "balanced"


@dataclass(frozen=True)
class Preset:
    """One file of `presets/`."""

    name: str
    title: str
    description: str
    tables: Mapping[str, Mapping[str, Any]]

    def settings(self, family: Family, overrides: Mapping[str, Any] | None = None) -> Settings:
        """This preset's settings for one family of base, with `overrides` on top."""
        return validated({**self.tables["starter" if family == "starter" else "sdxl"], **(overrides or {})})


def names() -> list[str]:
    """The presets that ship, from quick to careful."""
    found = [load(path.stem) for path in shipped("presets").glob("*.toml")]
    return [preset.name for preset in sorted(found, key=lambda preset: preset.settings("sdxl").passes)]


def load(name: str) -> Preset:
    """The preset of that name. Raises `SettingsError` with the names there are."""
    path = shipped("presets") / f"{name}.toml"
    if path.stem != name or not path.is_file():
        there = ", ".join(sorted(found.stem for found in shipped("presets").glob("*.toml")))
        raise SettingsError(f"There is no preset named {name!r}. The presets are: {there}.")
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return Preset(name, table["title"], table["description"], {family: table[family] for family in ("sdxl", "starter")})


def own(path: Path) -> dict[str, Any]:
    """The `[settings]` of a file of one's own, for on top of a preset's. Raises `SettingsError`."""
    if not path.exists():
        raise SettingsError(f"There is no file {path}.")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} cannot be read as TOML ({error}): give a file with a [settings] table.") from None
    if not isinstance(table.get("settings"), dict):
        raise SettingsError(f"{path} has no [settings] table; another trainer's config becomes one with `impasto import`.")
    return dict(table["settings"])


def keep(path: Path, settings: Mapping[str, Any]) -> None:
    """Write a new file that `own` reads. Raises `UsageError` if there is one, `StorageError`."""
    if path.exists():
        raise UsageError(f"{path} is there already: choose another name.")
    with storing(path):
        write_atomically(path, tomlkit.dumps({"settings": dict(settings)}).encode("utf-8"))
