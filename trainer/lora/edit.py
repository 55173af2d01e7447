"""What a LoRA file tells of itself, changed without touching a tensor: a new header, and behind it the old bytes.

The file is replaced whole or stays as it was, its hash of tensors (`sshs_model_hash`) is the same, and nothing is held in
memory but the header. Knows no torch.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import LoraFileError, UsageError, storing
from trainer.home import write_blocks
from trainer.lora.thumbnail import data_url
from trainer.tensorfile import LARGEST_HEADER, read_header

PREFERRED_WEIGHT = "impasto.preferred_weight"
"""The header's entry for it: the modelspec has none."""

_BLOCK = 2**22


@dataclass(frozen=True)
class Edit:
    """New texts; None leaves what is there, an empty text takes it out. Raises `UsageError`."""

    title: str | None = None
    trigger: str | None = None
    description: str | None = None
    thumbnail: Path | None = None
    weight: float | None = None

    def __post_init__(self) -> None:
        """A weight that mixes can have."""
        if self.weight is not None and not -10 <= self.weight <= 10:
            raise UsageError(f"The preferred weight must be a number from -10 to 10, not {self.weight:g}.")

    def texts(self) -> dict[str, str]:
        """Entries of the header. Raises `PictureError`."""
        wanted = {
            "modelspec.title": self.title,
            "modelspec.trigger_phrase": self.trigger,
            "modelspec.description": self.description,
            "modelspec.thumbnail": data_url(self.thumbnail) if self.thumbnail else None,
            PREFERRED_WEIGHT: None if self.weight is None else f"{self.weight:g}",
        }
        return {key: text for key, text in wanted.items() if text is not None}

    def fields(self) -> dict[str, str | float]:
        """Fields of the file beside it, which other programs read (see `sidecar.py`)."""
        wanted = {"description": self.description, "activation text": self.trigger, "preferred weight": self.weight}
        return {key: value for key, value in wanted.items() if value is not None}


def edit(path: Path, texts: Mapping[str, str]) -> None:
    """Set entries of a file's header; empty ones are taken out. Raises `LoraFileError`, `StorageError`."""
    begin = read_header(path, LoraFileError).size
    with path.open("rb") as file:
        table = json.loads(file.read(begin)[8:])
    told = {key: text for key, text in {**table.pop("__metadata__", {}), **texts}.items() if text}
    content = json.dumps({"__metadata__": told, **table}, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    content += b" " * (-len(content) % 8)  # tensors begin at a multiple of 8 bytes, as everywhere
    if len(content) > LARGEST_HEADER:
        raise LoraFileError(f"{path.name} would get a header too large to be read: shorten the texts.")
    with storing(path):
        write_blocks(path, _blocks(path, begin, content))


def _blocks(path: Path, begin: int, header: bytes) -> Iterator[bytes]:
    """A file with another header; its tensors begin at `begin`."""
    yield struct.pack("<Q", len(header))
    yield header
    with path.open("rb") as file:
        file.seek(begin)
        while block := file.read(_BLOCK):
            yield block
