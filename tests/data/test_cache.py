"""Encoded pictures: encoded once, named by everything they depend on."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from trainer.data import captions
from trainer.data.buckets import Bucket, Cut, Placement, place
from trainer.data.cache import LatentCache, prepared, to_pixels
from trainer.data.dataset import Dataset, Picture
from trainer.data.shown import Shown
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
    first = LatentCache(tmp_path / "cache", "vae", encoder).get(Shown(picture, placement))
    second = LatentCache(tmp_path / "cache", "vae", encoder).get(Shown(picture, placement))
    assert encoder.calls == 1
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.deviation, second.deviation)


def test_another_vae_encodes_anew(tmp_path: Path, picture: Picture) -> None:
    encoder, placement = Encoder(), place(80, 64, BUCKETS)
    LatentCache(tmp_path / "cache", "one", encoder).get(Shown(picture, placement))
    LatentCache(tmp_path / "cache", "other", encoder).get(Shown(picture, placement))
    assert encoder.calls == 2


def test_another_placement_encodes_anew(tmp_path: Path, picture: Picture) -> None:
    encoder, placement = Encoder(), place(80, 64, BUCKETS)
    cache = LatentCache(tmp_path / "cache", "vae", encoder)
    cache.get(Shown(picture, placement))
    cache.get(Shown(picture, replace(placement, left=placement.left + 1)))
    assert encoder.calls == 2


def test_an_entry_is_named_as_in_earlier_versions(tmp_path: Path, picture: Picture) -> None:
    """What is encoded already is not encoded again."""
    LatentCache(tmp_path / "cache", "vae", Encoder()).get(Shown(picture, place(80, 64, BUCKETS)))
    placed = "Placement(bucket=Bucket(width=96, height=64), original=(80, 64), scaled=(96, 77), left=0, top=6, mirrored=False)"
    name = hashlib.sha256(picture.path.read_bytes() + f"({placed}, 'vae')".encode()).hexdigest()[:40]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"{name}.safetensors"]


def cut(whole: tuple[int, int], *box: int) -> Placement:
    """How a part of a picture is placed."""
    left, top, right, bottom = box
    return replace(place(right - left, bottom - top, (Bucket(64, 64),)), cut=Cut(whole, (left, top, right, bottom)))


def test_several_parts_of_one_picture_are_encoded_separately(tmp_path: Path) -> None:
    """Parts of the same size, so that all the rest of their placements is the same."""
    noise = np.random.default_rng(1).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    picture = Dataset.open(tmp_path).pictures[0]
    for _ in range(2):  # the second time from the cache
        for left, top in ((0, 0), (64, 0), (0, 64), (32, 32)):
            part = cut((128, 128), left, top, left + 64, top + 64)
            got = LatentCache(tmp_path / "cache", "vae", Encoder()).get(Shown(picture, part)).mean
            by_hand = torch.from_numpy(noise[top : top + 64, left : left + 64].astype(np.float32)).permute(2, 0, 1)
            torch.testing.assert_close(got, torch.nn.functional.avg_pool2d(by_hand / 127.5 - 1, 8))
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_nothing_beside_a_cut_bleeds_into_it() -> None:
    picture = Image.new("RGB", (200, 120), "white")
    picture.paste("blue", (50, 30, 150, 90))
    assert prepared(picture, cut((200, 120), 50, 30, 150, 90)).getcolors() == [(64 * 64, (0, 0, 255))]


def test_a_picture_that_was_painted_over_is_encoded_anew(tmp_path: Path, picture: Picture) -> None:
    encoder, placement = Encoder(), place(80, 64, BUCKETS)
    cache = LatentCache(tmp_path / "cache", "vae", encoder)
    before = cache.get(Shown(picture, placement))
    Image.new("RGB", (80, 64), "blue").save(picture.path)
    assert not torch.equal(cache.get(Shown(picture, placement)).mean, before.mean)


def test_a_damaged_entry_is_made_anew(tmp_path: Path, picture: Picture) -> None:
    encoder, placement = Encoder(), place(80, 64, BUCKETS)
    cache = LatentCache(tmp_path / "cache", "vae", encoder)
    before = cache.get(Shown(picture, placement))
    entry = next((tmp_path / "cache").iterdir())
    entry.write_bytes(entry.read_bytes()[:50])
    assert torch.equal(cache.get(Shown(picture, placement)).mean, before.mean)
    assert encoder.calls == 2


def test_a_picture_that_cannot_be_decoded_is_told_of(tmp_path: Path, picture: Picture) -> None:
    picture.path.write_bytes(picture.path.read_bytes()[:-60])
    with pytest.raises(PictureError, match=r"a\.png is damaged"):
        LatentCache(tmp_path / "cache", "vae", Encoder()).get(Shown(picture, place(80, 64, BUCKETS)))


def test_a_picture_that_vanished_is_told_of(tmp_path: Path, picture: Picture) -> None:
    picture.path.unlink()
    with pytest.raises(PictureError, match=r"a\.png cannot be opened"):
        LatentCache(tmp_path / "cache", "vae", Encoder()).get(Shown(picture, place(80, 64, BUCKETS)))


def test_a_full_disk_is_told_of(tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        LatentCache(tmp_path / "cache", "vae", Encoder()).get(Shown(picture, place(80, 64, BUCKETS)))


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
        plain, mirrored = (cache.get(Shown(picture, replace(placement, mirrored=which))) for which in (False, True))
        torch.testing.assert_close(mirrored.mean, plain.mean.flip(-1))
        assert not torch.allclose(mirrored.mean, plain.mean)


def test_pixels_go_from_minus_one_to_one() -> None:
    values = np.zeros((2, 3, 3), dtype=np.uint8)
    values[0, 1] = (255, 128, 0)
    pixels = to_pixels(Image.fromarray(values))
    assert pixels.shape == (1, 3, 2, 3)
    assert pixels[0, :, 0, 1].tolist() == pytest.approx([1.0, 128 / 127.5 - 1, -1.0], abs=1e-6)
    assert pixels[0, :, 1, 1].tolist() == [-1.0, -1.0, -1.0]


def test_a_picture_of_another_size_than_planned_is_told_of(tmp_path: Path, picture: Picture) -> None:
    Image.new("RGB", (64, 80)).save(picture.path)
    with pytest.raises(PictureError, match=r"a\.png has 64 x 80 pixels and had 80 x 64 when the training was planned"):
        LatentCache(tmp_path / "cache", "vae", Encoder()).get(Shown(picture, place(80, 64, BUCKETS)))


def test_the_caption_is_the_one_that_was_noted(tmp_path: Path, picture: Picture) -> None:
    captions.write(picture.caption_path, "a boat")
    shown = Shown(replace(picture, noted="a house"), place(80, 64, BUCKETS))
    assert LatentCache(tmp_path / "cache", "vae", Encoder()).get(shown).shown.caption == "a house"


# Masks ------------------------------------------------------------------------------------------------------------------


def left_half(path: Path, size: tuple[int, int] = (80, 64), share: float = 0.5) -> None:
    """A mask that shows the left of a picture."""
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, round(size[0] * share), size[1]))
    mask.save(path)


def masked(folder: Path, encoder: Encoder, masked: bool = True) -> LatentCache:
    return LatentCache(folder / "cache", "vae", encoder, masked)


def area_means(mask: np.ndarray, placement: Placement) -> np.ndarray:
    """A mask in the scaled size -> what each place of the latent should hold, reckoned cell by cell."""
    if placement.mirrored:
        mask = mask[:, ::-1]
    left, top, right, bottom = placement.box
    cropped = mask[top:bottom, left:right] / 255
    cells = [[cropped[y : y + 8, x : x + 8].mean() for x in range(0, right - left, 8)] for y in range(0, bottom - top, 8)]
    return np.array(cells)[None]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("left", [0, 5, 16])
def test_a_mask_goes_the_way_of_its_picture(tmp_path: Path, picture: Picture, mirrored: bool, left: int) -> None:
    left_half(tmp_path / "a-masklabel.png", share=0.6)
    placement = replace(place(80, 64, (Bucket(64, 64),)), left=left, mirrored=mirrored)
    mask = masked(tmp_path, Encoder()).get(Shown(picture, placement)).mask
    assert mask is not None
    assert (mask.shape, mask.dtype) == ((1, 8, 8), torch.float32)
    whole = np.zeros((64, 80))
    whole[:, :48] = 255
    np.testing.assert_allclose(mask.numpy(), area_means(whole, placement), atol=1e-6)


@pytest.mark.parametrize("size", [(320, 256), (160, 128)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_mask_is_cut_with_its_picture(tmp_path: Path, size: tuple[int, int], mirrored: bool) -> None:
    """Of the whole the left half is learnt, of the part its left quarter; also where the mask is smaller than the picture."""
    Image.new("RGB", (320, 256)).save(tmp_path / "a.png")
    (tmp_path / "masks").mkdir()
    left_half(tmp_path / "masks" / "a.mask.png", size)
    part = replace(cut((320, 256), 128, 100, 256, 228), mirrored=mirrored)
    mask = masked(tmp_path, Encoder()).get(Shown(Dataset.open(tmp_path).pictures[0], part)).mask
    assert mask is not None
    expected = [0, 0, 0, 0, 0, 0, 1, 1] if mirrored else [1, 1, 0, 0, 0, 0, 0, 0]
    np.testing.assert_allclose(mask[0, 3].numpy(), expected, atol=0.03)


def test_a_part_of_which_nothing_is_to_be_learnt_is_told_of(tmp_path: Path) -> None:
    Image.new("RGB", (128, 64)).save(tmp_path / "a.png")
    left_half(tmp_path / "a-masklabel.png", (128, 64))
    of, hidden = Dataset.open(tmp_path).pictures[0], cut((128, 64), 64, 0, 128, 64)
    with pytest.raises(PictureError, match=r"^a\.png is cut in dataset\.toml to a part of which its mask shows nothing, so "):
        masked(tmp_path, Encoder()).get(Shown(of, hidden))
    assert masked(tmp_path, Encoder()).get(Shown(of, cut((128, 64), 63, 0, 127, 64))).mask is not None
    assert masked(tmp_path, Encoder(), masked=False).get(Shown(of, hidden)).mask is None


def test_a_mask_is_scaled_with_its_picture(tmp_path: Path) -> None:
    Image.new("RGB", (320, 256)).save(tmp_path / "a.png")
    left_half(tmp_path / "a-masklabel.png", (320, 256))
    placement = place(320, 256, (Bucket(64, 64),))
    assert placement.scaled == (80, 64)
    mask = masked(tmp_path, Encoder()).get(Shown(Dataset.open(tmp_path).pictures[0], placement)).mask
    assert mask is not None
    np.testing.assert_allclose(mask[0, 3].numpy(), [1, 1, 1, 1, 0, 0, 0, 0], atol=0.02)


def test_what_is_transparent_is_not_learnt(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (64, 64), (255, 0, 0, 255))
    picture.paste((0, 255, 0, 0), (0, 0, 64, 32))
    picture.save(tmp_path / "a.png")
    shown = Shown(Dataset.open(tmp_path).pictures[0], place(64, 64, BUCKETS))
    mask = masked(tmp_path, Encoder()).get(shown).mask
    assert mask is not None
    assert mask[0, :, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    left_half(tmp_path / "a-masklabel.png", (64, 64))
    painted = masked(tmp_path, Encoder()).get(shown).mask
    assert painted is not None
    assert painted[0, 0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0], "the file does not count before transparency"


def test_latents_do_not_depend_on_masks(tmp_path: Path, picture: Picture) -> None:
    shown = Shown(picture, place(80, 64, BUCKETS))
    plain = LatentCache(tmp_path / "other", "vae", Encoder()).get(shown)
    left_half(tmp_path / "a-masklabel.png")
    assert torch.equal(masked(tmp_path, Encoder()).get(shown).mean, plain.mean)


def test_without_masked_loss_a_mask_changes_nothing(tmp_path: Path, picture: Picture) -> None:
    encoder, shown = Encoder(), Shown(picture, place(80, 64, BUCKETS))
    masked(tmp_path, encoder, masked=False).get(shown)
    left_half(tmp_path / "a-masklabel.png")
    assert masked(tmp_path, encoder, masked=False).get(shown).mask is None
    assert encoder.calls == 1
    assert masked(tmp_path / "other", encoder, masked=False).get(shown).mask is None


def test_a_picture_without_a_mask_is_not_encoded_again_for_masked_loss(tmp_path: Path, picture: Picture) -> None:
    encoder, shown = Encoder(), Shown(picture, place(80, 64, BUCKETS))
    masked(tmp_path, encoder, masked=False).get(shown)
    assert masked(tmp_path, encoder).get(shown).mask is None
    assert encoder.calls == 1


def test_a_mask_that_was_painted_over_counts_anew(tmp_path: Path, picture: Picture) -> None:
    encoder, shown = Encoder(), Shown(picture, place(80, 64, BUCKETS))
    seen = []
    for share in (0.5, 0.2, 0.5):
        left_half(tmp_path / "a-masklabel.png", share=share)
        mask = masked(tmp_path, encoder).get(shown).mask
        assert mask is not None
        seen.append(mask)
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
    assert encoder.calls == 2
