"""The header of a safetensors file: which layers it lists and what it tells about itself, without reading the layers.

Knows neither torch nor what a LoRA is made of; the page reads trigger words with it.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from trainer.errors import LoraFileError

LARGEST_HEADER = 4 * 2**20
MOST_TENSORS = 20_000
_PICKLES = (b"PK", *(bytes((0x80, protocol)) for protocol in range(2, 6)))
"""How torch's files and bare pickles begin."""


def read_header(path: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file, checked for size before it is parsed. Raises `LoraFileError`."""
    if not path.is_file():
        raise LoraFileError(f"There is no LoRA file {path}.")
    with path.open("rb") as file:
        start = file.read(9)
        if start[:2] in _PICKLES and start[8:] != b"{":  # a header of 640 bytes begins with b"\x80\x02" as well
            raise LoraFileError(f"{path.name} is a pickle, which can run code: ask its author for a .safetensors file.")
        length = struct.unpack("<Q", start[:8])[0] if len(start) == 9 else 0
        if not 2 <= length <= min(LARGEST_HEADER, path.stat().st_size - 8):
            raise LoraFileError(f"{path.name} is not a safetensors file, or it is cut off: download or copy it again.")
        try:
            file.seek(8)
            header = json.loads(file.read(length))
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
            raise LoraFileError(f"{path.name} has a damaged header: download or copy it again.") from None
    if not isinstance(header, dict) or len(header) > MOST_TENSORS:
        raise LoraFileError(f"{path.name} is no LoRA: its header does not list the layers of one.")
    return header


def read_metadata(path: Path) -> dict[str, str]:
    """The header's text entries alone. Raises `LoraFileError`."""
    found = read_header(path).get("__metadata__", {})
    return {str(key): str(text) for key, text in found.items()} if isinstance(found, dict) else {}
