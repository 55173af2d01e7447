"""The files beside a LoRA that other programs show it by: `NAME.json` and `NAME.png`, as A1111, Forge and InvokeAI read them.

What a person has written into them stays. Knows no torch, no runs and no models.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from trainer.errors import storing
from trainer.home import write_atomically

SIDE = 512
"""Longest side of the picture in pixels."""

_MAKER = "Impasto"
"""Marks a picture as one that may be replaced."""


@dataclass(frozen=True)
class Card:
    """What is told of a LoRA."""

    description: str
    trigger: str
    """The word that calls the style."""
    starter: bool
    """Whether it is made for the starter base, and works in nothing else."""
    notes: str = ""

    def fields(self) -> dict[str, str | float]:
        """As the other programs name it. "Unknown" is their own word: without it they would take the file for SD1."""
        return {
            "description": self.description,
            "activation text": self.trigger,
            "preferred weight": 1.0,
            "negative text": "",
            "sd version": "Unknown" if self.starter else "SDXL",
            "notes": self.notes,
        }


def write(lora: Path, card: Card, picture: Path | None) -> None:
    """Write both beside `lora`, the picture if there is one. Fields that are there already stay. Raises `StorageError`."""
    _write_fields(lora.with_suffix(".json"), card)
    if picture and picture.is_file():
        _write_picture(lora.with_suffix(".png"), picture)


def revise(lora: Path, fields: Mapping[str, str | float]) -> None:
    """Set fields of the file beside `lora`, if there is one. Raises `StorageError`."""
    path = lora.with_suffix(".json")
    if fields and path.is_file():
        _merge_fields(path, lambda there: {**there, **fields})


def _write_fields(path: Path, card: Card) -> None:
    _merge_fields(path, lambda there: {**card.fields(), **there})


def _merge_fields(path: Path, merged: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    with storing(path):
        try:
            there = json.loads(path.read_text(encoding="utf-8-sig")) if path.exists() else {}
        except ValueError:
            return  # a person's file with a slip in it is still theirs
        if isinstance(there, dict):
            text = json.dumps(merged(there), ensure_ascii=False, indent=2)
            write_atomically(path, f"{text}\n".encode())


def _write_picture(path: Path, source: Path) -> None:
    """A small copy of `source` with its recipe, unless somebody has put a picture of their own there."""
    with storing(path):
        if path.exists() and not _ours(path):
            return
        with Image.open(source) as picture:
            info, content = PngInfo(), io.BytesIO()
            info.add_text("Software", _MAKER)
            info.add_text("parameters", picture.info.get("parameters", ""))
            small = picture.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        small.save(content, "PNG", pnginfo=info)
        write_atomically(path, content.getvalue())


def _ours(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            return picture.info.get("Software") == _MAKER
    except UnidentifiedImageError:
        return False
