"""What a base's name means, from its folder alone: a source is `starter`, a diffusers folder, or a Hub id. Knows no torch."""

from __future__ import annotations

import json
import re
from pathlib import Path

from trainer.errors import BaseModelError
from trainer.home import shipped
from trainer.settings import Family

STARTER = "starter"
"""The source that names the embedded base."""

MARK = "impasto.json"
"""A file in a diffusers folder that says which family the base is of, where it is not SDXL."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def folder_of(source: str) -> Path | None:
    """The folder of a source; None for a Hub id."""
    if source == STARTER:
        return shipped("assets", "starter")
    path = Path(source).expanduser()
    return path if path.is_dir() else None


def name_of(source: str) -> str:
    """A source as files may name it: without the path that it has on this machine."""
    folder = None if source == STARTER else folder_of(source)
    return folder.resolve().name if folder else source


def family_of(source: str) -> Family:
    """Which family a source is of."""
    folder = folder_of(source)
    if folder is None or not (folder / MARK).is_file():
        return "sdxl"
    mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
    return "starter" if mark.get("family") == "starter" else "sdxl"


def resolution_of(source: str) -> int:
    """Side in pixels of the pictures that a base was made for; SDXL's where its folder does not tell."""
    folder = folder_of(source)
    config = folder / "unet" / "config.json" if folder else None
    told = json.loads(config.read_text(encoding="utf-8")) if config and config.is_file() else {}
    return int(told.get("sample_size", 128)) * 8


def check_source(source: str) -> None:
    """Raise `BaseModelError` for a source that can be seen to be wrong without loading it."""
    folder = folder_of(source)
    if folder is not None and not (folder / "unet" / "config.json").is_file():
        raise BaseModelError(f"{folder} is not a diffusers folder of SDXL: it has no unet/config.json.")
    if folder is None and not _HUB_ID.fullmatch(source):
        raise BaseModelError(
            f"There is no base model {source}: give 'starter', a diffusers folder, or a Hub id such as name/model."
        )
