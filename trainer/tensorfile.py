"""The header of a safetensors file: which tensors it lists and what it tells about itself, without reading a tensor.

Knows neither torch nor what the tensors are for; what else a file can be, it tells from the first bytes, not from the name.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from trainer.errors import ImpastoError

LARGEST_HEADER = 32 * 2**20
_ORDINARY = 2 * 2**20
"""Bytes of a header that cannot cost much, whatever is in it."""
_MOST_TENSORS = 30_000
"""Ten times as many as a model of SDXL has; each has three brackets in a header, and texts have some too."""
_MOST_COMMAS = 500_000
"""In a header: each tensor has eight at most, and texts the others, such as how often each tag occurs."""
_SAME = "download or copy it again"
_FOREIGN = {
    b"GGUF": "is a GGUF file: Impasto reads .safetensors, so get the model in that form",
    b"version https://git-lfs": f"is only a pointer to the file (git LFS), not the file itself: {_SAME}, with git lfs",
    b"<!DOCTYPE": f"is a web page that was saved in place of the file: {_SAME}, logged in if the site asks for it",
    b"<html": f"is a web page that was saved in place of the file: {_SAME}, logged in if the site asks for it",
    b"\x89PNG": "is a picture: choose a .safetensors file",
    b"\xff\xd8\xff": "is a picture: choose a .safetensors file",
    b"RIFF": "is a picture: choose a .safetensors file",
    b"GIF8": "is a picture: choose a .safetensors file",
    b"Rar!": "is an archive: unpack it",
    b"7z\xbc\xaf": "is an archive: unpack it",
}
_METADATA = re.compile(rb'"__metadata__"\s*:\s*')
_PICKLES = (b"PK", *(bytes((0x80, protocol)) for protocol in range(2, 6)))
"""How torch's files and bare pickles begin."""


class TensorInfo(NamedTuple):
    """One tensor as the header lists it; `dtype` in safetensors' spelling: F16, BF16, F32, F8_E4M3 …"""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    """Where it lies, in bytes after the header."""


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    size: int
    """Bytes before the first tensor's."""


def read_header(path: Path, refusal: type[ImpastoError]) -> Header:
    """The header of a file, checked against the file's size. Raises `refusal` with a sentence that says what the file is."""
    text = header_text(path, refusal)
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):  # no JSON, no text, or a number of more digits than Python reads
        raise refusal(f"{path.name} has a damaged header: {_SAME}.") from None
    tensors, metadata = _parsed(path.name, table, refusal)
    content = max((tensor.end for tensor in tensors.values()), default=0)
    if sum(tensor.end - tensor.begin for tensor in tensors.values()) > content:  # they lie in each other
        raise refusal(f"{path.name} has a damaged header: {_SAME}.")
    size, end = path.stat().st_size, 8 + len(text) + content
    if size < end:
        raise refusal(f"{path.name} is cut off: {size:,} of {end:,} bytes are there. {_SAME.capitalize()}.")
    return Header(tensors, metadata, 8 + len(text))


def header_text(path: Path, refusal: type[ImpastoError]) -> bytes:
    """The header of a file as it is written, unread. Raises `refusal` with a sentence that says what the file is."""
    try:
        if path.is_dir():
            raise refusal(f"{path} is a folder, not a file.")
        with path.open("rb") as file:
            length = _length(path.name, file.read(24), path.stat().st_size, refusal)
            file.seek(8)
            text = file.read(length)
    except FileNotFoundError:
        raise refusal(f"There is no file {path}.") from None
    except (OSError, ValueError) as error:
        raise refusal(f"{path} cannot be opened ({getattr(error, 'strerror', None) or error}).") from None
    if len(text) > _ORDINARY and (text.count(b"[") + text.count(b"{") > 4 * _MOST_TENSORS or text.count(b",") > _MOST_COMMAS):
        raise refusal(f"{path.name} lists more than any model for SDXL holds: choose another file.")  # before it costs memory
    return text


def metadata_of(name: str, text: bytes, refusal: type[ImpastoError]) -> dict[str, str]:
    """The text entries of a header, found without reading what it says of tensors. Raises `refusal`."""
    begin = _METADATA.search(text) if b'"__metadata__"' in text else None
    try:
        entries = json.JSONDecoder().raw_decode(text[begin.end() :].decode())[0] if begin else {}
        return {str(key): str(value) for key, value in entries.items()}
    except (AttributeError, ValueError, RecursionError):
        raise refusal(f"{name} has a damaged header: {_SAME}.") from None


def _length(name: str, start: bytes, size: int, refusal: type[ImpastoError]) -> int:
    """The header's length, from the first bytes of a file."""
    if size == 0:
        raise refusal(f"{name} is empty: {_SAME}.")
    for magic, what in _FOREIGN.items():
        if start.lstrip().lower().startswith(magic.lower()) and start[8:9] != b"{":  # a header's length is any bytes
            raise refusal(f"{name} {what}.")
    if start[:2] in _PICKLES and start[8:9] != b"{":  # a header of 640 bytes begins with b"\x80\x02" as well
        raise refusal(f"{name} is a pickle, which can run code when it is opened: get the model as .safetensors.")
    length: int = struct.unpack("<Q", start[:8])[0] if len(start) >= 10 else 0
    if start[8:9] != b"{" or not 2 <= length <= LARGEST_HEADER:
        raise refusal(f"{name} is not a safetensors file, or it is damaged: {_SAME}.")
    if length > size - 8:
        raise refusal(f"{name} is cut off, even its header is not whole: {_SAME}.")
    return length


def _parsed(name: str, table: Any, refusal: type[ImpastoError]) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """The tensors and the text entries of a header's JSON."""
    try:
        found = dict(table)
        metadata = {str(key): str(text) for key, text in found.pop("__metadata__", {}).items()}
        tensors = {key: _tensor(entry) for key, entry in found.items()}
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise refusal(f"{name} has a damaged header: {_SAME}.") from None
    return tensors, metadata


def _tensor(entry: Mapping[str, Any]) -> TensorInfo:
    begin, end = entry["data_offsets"]
    shape = tuple(map(int, entry["shape"]))
    if not 0 <= begin <= end or min(shape, default=0) < 0:
        raise ValueError
    return TensorInfo(str(entry["dtype"]), shape, int(begin), int(end))
