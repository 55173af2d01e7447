"""The bytes of a file, against safetensors' own."""

from __future__ import annotations

import hashlib
import json
import struct

import pytest
import torch
from safetensors.torch import save

from trainer.lora.serial import hashes, pieces

ODD = 'a "word" \\ \u2028 \x7f \x01 \n, 東京 🐟'
FEW = {
    "b": torch.arange(6.0).view(2, 3).half(), "a": torch.tensor(3.0), "c.é": torch.ones(3, dtype=torch.bfloat16),
    "B": torch.ones(4, 2).T, ODD: torch.ones(1).half(), "none": torch.empty(0, 3),
}  # fmt: skip
MANY = {f"layer_{number}": torch.randn(64, 3000, generator=torch.Generator().manual_seed(number)) for number in range(3)}
LONG = {f"layer_{number}_{'x' * 2000}": torch.ones(number).half() for number in range(700)}
"""Whose header is longer than the piece that kohya's older hash is of."""


def split(content: bytes) -> tuple[bytes, bytes]:
    """Header and tensors."""
    end = 8 + struct.unpack("<Q", content[:8])[0]
    return content[:end], content[end:]


@pytest.mark.parametrize("tensors", [FEW, MANY, LONG, {}], ids=["few", "many", "long", "none"])
def test_the_bytes_are_safetensors_own(tensors: dict[str, torch.Tensor]) -> None:
    texts = {"ss_note": ODD, "modelspec.title": "Glass"}
    header, body = split(b"".join(pieces(tensors, texts)))
    told = json.loads(header[8:])["__metadata__"]
    assert told.items() >= texts.items()
    theirs = save({name: tensor.contiguous() for name, tensor in tensors.items()}, told)
    assert body == split(theirs)[1]
    assert len(header) == len(split(theirs)[0])
    assert list(json.loads(header[8:])) == list(json.loads(split(theirs)[0][8:]))
    assert json.loads(header[8:]) == json.loads(split(theirs)[0][8:])


@pytest.mark.parametrize("tensors", [FEW, MANY, LONG], ids=["few", "many", "long"])
def test_the_hashes_are_of_a_file_with_kohyas_texts_alone(tensors: dict[str, torch.Tensor]) -> None:
    file = save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"ss_note": ODD})
    assert hashes(tensors, {"ss_note": ODD, "modelspec.title": "Glass"}) == {
        "sshs_model_hash": hashlib.sha256(split(file)[1]).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(file[0x100000:0x110000]).hexdigest()[:8],
    }


def test_texts_go_by_the_alphabet() -> None:
    texts = {"b": "1", "a": "2", "c": "3"}
    assert b"".join(pieces(FEW, texts)) == b"".join(pieces(dict(reversed(FEW.items())), dict(reversed(texts.items()))))


def test_a_type_that_no_lora_is_written_in_is_no_silent_loss() -> None:
    with pytest.raises(ValueError, match="float64"):
        list(pieces({"a": torch.ones(1, dtype=torch.float64)}, {}))
