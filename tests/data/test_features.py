"""Encoded texts: encoded once, named by everything they depend on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from trainer.data.features import TextCache
from trainer.errors import StorageError


class Encoder:
    """A stand-in for the text encoders that remembers what it is asked."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.asked: list[str] = []
        self.dtype = dtype

    def __call__(self, caption: str) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked.append(caption)
        generator = torch.Generator().manual_seed(hash(caption) % 2**32)
        return torch.randn(77, 12, generator=generator).to(self.dtype), torch.randn(8, generator=generator).to(self.dtype)


def read(folder: Path, captions: list[str], encoder: Encoder, fingerprint: str = "clip") -> list[torch.Tensor]:
    """What a new cache on the same folder says of captions."""
    cache = TextCache(folder / "text", fingerprint, encoder)
    return [part for caption in captions for part in cache.get(caption)]


def test_editing_one_caption_encodes_one_caption(tmp_path: Path) -> None:
    encoder, captions = Encoder(), [f"a house, number {number}" for number in range(20)]
    read(tmp_path, captions, encoder)
    assert encoder.asked == captions
    captions[7] = "a boat"
    read(tmp_path, captions, encoder)
    assert encoder.asked[20:] == ["a boat"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_kept_is_what_was_said_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    made, kept = (read(tmp_path, ["a house", ""], Encoder(dtype)) for _ in range(2))
    fresh = [part for caption in ("a house", "") for part in Encoder(dtype)(caption)]
    for one, other, third in zip(made, kept, fresh, strict=True):
        assert one.dtype == other.dtype == dtype
        assert torch.equal(one, third)
        assert torch.equal(other, third)


def test_other_encoders_encode_anew(tmp_path: Path) -> None:
    encoder = Encoder()
    read(tmp_path, ["a house"], encoder, "one")
    read(tmp_path, ["a house"], encoder, "other")
    assert encoder.asked == ["a house", "a house"]


@pytest.mark.parametrize("one", ["a house", "", "größe 東京", "a\nb", "\ud800"])
def test_texts_are_told_apart(tmp_path: Path, one: str) -> None:
    encoder = Encoder()
    read(tmp_path, [one, f"{one} ", f"{one},"], encoder)
    assert encoder.asked == [one, f"{one} ", f"{one},"]


@pytest.mark.parametrize("content", [b"", b"not safetensors", None], ids=["empty", "other", "cut off"])
def test_a_damaged_entry_is_made_anew(tmp_path: Path, content: bytes | None) -> None:
    encoder = Encoder()
    before = read(tmp_path, ["a house"], encoder)
    entry = next((tmp_path / "text").iterdir())
    entry.write_bytes(entry.read_bytes()[:90] if content is None else content)
    after = read(tmp_path, ["a house"], encoder)
    assert len(encoder.asked) == 2
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    read(tmp_path, ["a house"], encoder)
    assert len(encoder.asked) == 2, "the entry was not written anew"


def test_what_is_kept_has_no_gradient(tmp_path: Path) -> None:
    matrix = torch.ones(3, requires_grad=True)
    made = TextCache(tmp_path / "text", "clip", lambda _: (matrix.expand(77, 3), matrix * 2)).get("a house")
    assert [part.requires_grad for part in made] == [False, False]


def test_a_full_disk_is_told_of_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        read(tmp_path, ["a house"], Encoder())
    assert list((tmp_path / "text").iterdir()) == []
