"""Encoded pictures: encoded once, named by everything they depend on."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from trainer.data.buckets import Bucket, place
from trainer.data.cache import LatentCache, prepared, to_pixels
from trainer.data.dataset import Dataset, Picture
from trainer.errors import PictureError, StorageError


class Encoder:
    """A stand-in for the VAE that counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        mean = torch.nn.functional.avg_pool2d(pixels, 8)
        return mean, torch.full_like(mean, 0.5)


@pytest.fixture
def picture(tmp_path: Path) -> Picture:
    Image.linear_gradient("L").resize((80, 64)).convert("RGB").save(tmp_path / "a.png")
    return Dataset.open(tmp_path).pictures[0]


BUCKETS = (Bucket(64, 64), Bucket(96, 64))


def test_a_picture_is_encoded_once(tmp_path: Path, picture: Picture) -> None:
    encoder, placement = Encoder(), place(80, 64, BUCKETS)
    first = LatentCache(tmp_path / "cache", "vae", encoder).get(picture, placement)
    second = LatentCache(tmp_path / "cache", "vae", encoder).get(picture, placement)
    assert encoder.calls == 1
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.deviation, second.deviation)


def test_another_vae_encodes_anew(tmp_path: Path, picture: Picture) -> None:
    encoder, placement = Encoder(), place(80, 64, BUCKETS)
    LatentCache(tmp_path / "cache", "one", encoder).get(picture, placement)
    LatentCache(tmp_path / "cache", "other", encoder).get(picture, placement)
    assert encoder.calls == 2


def test_another_placement_encodes_anew(tmp_path: Path, picture: Picture) -> None:
    encoder, placement = Encoder(), place(80, 64, BUCKETS)
    cache = LatentCache(tmp_path / "cache", "vae", encoder)
    cache.get(picture, placement)
    cache.get(picture, replace(placement, left=placement.left + 1))
    assert encoder.calls == 2


def test_a_picture_that_was_painted_over_is_encoded_anew(tmp_path: Path, picture: Picture) -> None:
    encoder, placement = Encoder(), place(80, 64, BUCKETS)
    cache = LatentCache(tmp_path / "cache", "vae", encoder)
    before = cache.get(picture, placement)
    Image.new("RGB", (80, 64), "blue").save(picture.path)
    assert not torch.equal(cache.get(picture, placement).mean, before.mean)


def test_a_damaged_entry_is_made_anew(tmp_path: Path, picture: Picture) -> None:
    encoder, placement = Encoder(), place(80, 64, BUCKETS)
    cache = LatentCache(tmp_path / "cache", "vae", encoder)
    before = cache.get(picture, placement)
    entry = next((tmp_path / "cache").iterdir())
    entry.write_bytes(entry.read_bytes()[:50])
    assert torch.equal(cache.get(picture, placement).mean, before.mean)
    assert encoder.calls == 2


def test_a_picture_that_cannot_be_decoded_is_told_of(tmp_path: Path, picture: Picture) -> None:
    picture.path.write_bytes(picture.path.read_bytes()[:-60])
    with pytest.raises(PictureError, match=r"a\.png is damaged"):
        LatentCache(tmp_path / "cache", "vae", Encoder()).get(picture, place(80, 64, BUCKETS))


def test_a_picture_that_vanished_is_told_of(tmp_path: Path, picture: Picture) -> None:
    picture.path.unlink()
    with pytest.raises(PictureError, match=r"a\.png cannot be opened"):
        LatentCache(tmp_path / "cache", "vae", Encoder()).get(picture, place(80, 64, BUCKETS))


def test_a_full_disk_is_told_of(tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        LatentCache(tmp_path / "cache", "vae", Encoder()).get(picture, place(80, 64, BUCKETS))


def test_a_prepared_picture_is_scaled_and_cropped_as_placed() -> None:
    picture = Image.new("RGB", (128, 64), "red")
    picture.paste("blue", (64, 0, 128, 64))
    placement = place(128, 64, (Bucket(64, 64),))
    got = prepared(picture, placement)
    assert got.size == (64, 64)
    assert got.getpixel((5, 5)) == (255, 0, 0)
    assert got.getpixel((60, 5)) == (0, 0, 255)


def test_a_mirrored_picture_is_the_other_way_round_before_it_is_cropped() -> None:
    ramp = Image.linear_gradient("L").rotate(90).resize((131, 64)).convert("RGB")
    placement = replace(place(131, 64, (Bucket(64, 64),)), mirrored=True)
    other = ImageOps.mirror(ramp)
    assert prepared(ramp, placement).tobytes() == prepared(other, replace(placement, mirrored=False)).tobytes()
    assert prepared(ramp, placement).tobytes() != prepared(ramp, replace(placement, mirrored=False)).tobytes()


def test_a_picture_and_its_mirror_image_are_encoded_separately(tmp_path: Path) -> None:
    Image.linear_gradient("L").rotate(90).resize((64, 64)).convert("RGB").save(tmp_path / "a.png")
    picture, placement = Dataset.open(tmp_path).pictures[0], place(64, 64, BUCKETS)
    cache = LatentCache(tmp_path / "cache", "vae", Encoder())
    for _ in range(2):
        plain, mirrored = (cache.get(picture, replace(placement, mirrored=which)) for which in (False, True))
        torch.testing.assert_close(mirrored.mean, plain.mean.flip(-1))
        assert not torch.allclose(mirrored.mean, plain.mean)


def test_pixels_go_from_minus_one_to_one() -> None:
    values = np.zeros((2, 3, 3), dtype=np.uint8)
    values[0, 1] = (255, 128, 0)
    pixels = to_pixels(Image.fromarray(values))
    assert pixels.shape == (1, 3, 2, 3)
    assert pixels[0, :, 0, 1].tolist() == pytest.approx([1.0, 128 / 127.5 - 1, -1.0], abs=1e-6)
    assert pixels[0, :, 1, 1].tolist() == [-1.0, -1.0, -1.0]
