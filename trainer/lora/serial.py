"""The bytes of a safetensors file, a tensor at a time, with the hashes that LoRA tools look for.

They are those of `safetensors.torch.save`, which would hold all of them three times; but texts go by the alphabet, so that the
same content always gives the same file. Knows neither names nor LoRAs.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping

import torch

Tensors = Mapping[str, torch.Tensor]

_TYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
"""In the order in which safetensors has them in a file."""
_LEGACY = (0x100000, 0x110000)
"""What kohya's older hash is of: 64 KiB at 1 MiB."""


def pieces(tensors: Tensors, texts: Mapping[str, str]) -> Iterator[bytes]:
    """The header with `texts` and hashes, then each tensor's numbers. Tensors are on the CPU, of 32 or 16 bits."""
    yield _header(tensors, {**texts, **hashes(tensors, texts)})
    yield from map(_numbers, _in_order(tensors).values())


def hashes(tensors: Tensors, texts: Mapping[str, str]) -> dict[str, str]:
    """kohya's two: of the tensors' bytes alone, and the older one, of a piece of a file that has of `texts` only kohya's."""
    header = _header(tensors, {key: text for key, text in texts.items() if key.startswith("ss_")})
    begin, end = (place - len(header) for place in _LEGACY)
    whole, legacy = hashlib.sha256(), hashlib.sha256(header[slice(*_LEGACY)])
    for piece in map(_numbers, _in_order(tensors).values()):
        whole.update(piece)
        legacy.update(piece[max(0, begin) : max(0, end)])
        begin, end = begin - len(piece), end - len(piece)
    return {"sshs_model_hash": whole.hexdigest(), "sshs_legacy_hash": legacy.hexdigest()[:8]}


def _in_order(tensors: Tensors) -> dict[str, torch.Tensor]:
    """As they lie in the file: by type, then by name."""
    types = [*_TYPES]
    return dict(sorted(tensors.items(), key=lambda item: (types.index(item[1].dtype), item[0])))


def _header(tensors: Tensors, texts: Mapping[str, str]) -> bytes:
    """Its length, and its JSON, with spaces up to a multiple of 8 bytes."""
    entries: dict[str, object] = {"__metadata__": dict(sorted(texts.items()))}
    begin = 0
    for name, tensor in _in_order(tensors).items():
        end = begin + tensor.nbytes
        entries[name] = {"dtype": _TYPES[tensor.dtype], "shape": [*tensor.shape], "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    return struct.pack("<Q", len(text)) + text


def _numbers(tensor: torch.Tensor) -> bytes:
    """A tensor's bytes."""
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
