"""What a micro-batch holds: pictures, noise, captions, masks and weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.tiny import save_dataset, short_run
from tests.training.begun import begun
from trainer.home import Home
from trainer.training.batch import Batch, drawn, fixed


def same(one: Batch, other: Batch) -> bool:
    tensors = ("clean", "noise", "shown", "times", "keep", "sizes", "weights")
    return one.captions == other.captions and all(torch.equal(getattr(one, name), getattr(other, name)) for name in tensors)


def test_a_micro_batch_depends_on_its_number_alone(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    asked = {"noise_offset": 0.1, "ip_noise_gamma": 0.1, "multires_noise": 3, "caption_dropout": 0.5, "shuffle_tags": True}
    training = begun(short_run(tmp_path / "run", dataset, toy_base, **asked), home)
    first, second = drawn(training, 0), drawn(training, 1)
    training.step = 3
    torch.manual_seed(5)
    assert same(drawn(training, 0), first)
    assert not torch.equal(first.noise, second.noise)
    assert not torch.equal(first.noise, first.shown)


def test_a_picture_that_is_held_out_is_always_shown_alike(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    asked = {"validation_share": 0.25, "caption_dropout": 1.0, "tag_dropout": 0.5, "ip_noise_gamma": 0.2}
    training = begun(short_run(tmp_path / "run", dataset, toy_base, **asked), home)
    batch = fixed(training, 0, 500)
    assert same(batch, fixed(training, 0, 500))
    assert not torch.equal(batch.noise, fixed(training, 0, 700).noise)
    assert torch.equal(batch.clean[0], training.held_out[0].mean), "not drawn from the posterior"
    assert batch.keep.all()
    assert torch.equal(batch.noise, batch.shown)


@pytest.mark.parametrize("asked", [{"flip": True, "resolutions": [96]}, {"crops": 3, "masked_loss": True}], ids=str)
def test_a_picture_that_is_cut_is_trained_as_a_file_that_was(
    toy_base: Path, home: Home, tmp_path: Path, asked: dict[str, Any]
) -> None:
    """Latents, sizes, masks and order are those of a dataset whose pictures and masks Pillow has cropped."""
    cut = save_dataset(tmp_path / "set", ((160, 100), (90, 200)))
    by_hand = tmp_path / "by hand"
    shutil.copytree(cut, by_hand)
    (cut / "dataset.toml").write_text('[crops]\n"00.png" = [0.25, 0.1, 0.75, 0.9]\n"01.png" = [0, 0.5, 1, 1]\n')
    for folder, boxes in ((cut, (None, None)), (by_hand, ((40, 10, 120, 90), (0, 100, 90, 200)))):
        (folder / "masks").mkdir()
        for name, box in zip(("00", "01"), boxes, strict=True):
            picture = Image.open(folder / f"{name}.png")
            mask = Image.linear_gradient("L").resize(picture.size)
            picture.crop(box).save(folder / f"{name}.png")
            mask.crop(box).save(folder / "masks" / f"{name}.mask.png")
    one, other = (
        begun(short_run(tmp_path / f"of {folder.name}", folder, toy_base, **asked), home) for folder in (cut, by_hand)
    )
    for micro in range(6):
        assert same(drawn(one, micro), drawn(other, micro))
        masks = drawn(one, micro).mask, drawn(other, micro).mask
        assert masks == (None, None) or torch.equal(*[mask for mask in masks if mask is not None])
    assert one.plan.buckets == other.plan.buckets
    assert (drawn(one, 0).mask is None) != ("masked_loss" in asked)


def test_masks_lie_where_the_pictures_do(toy_base: Path, home: Home, tmp_path: Path) -> None:
    folder = save_dataset(tmp_path / "set", ((64, 64), (64, 64)))
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))  # the left half is to be learnt
    mask.save(folder / "00-masklabel.png")
    training = begun(short_run(tmp_path / "run", folder, toy_base, masked_loss=True, mask_floor=0.25), home)
    batch = drawn(training, 0)
    assert batch.mask is not None
    masked = batch.captions.index("a picture of number 0, on paper")
    assert batch.mask.shape == (2, 1, 8, 8)
    assert batch.mask[masked, 0].tolist() == [[1.0] * 4 + [0.25] * 4] * 8
    assert batch.mask[1 - masked].eq(1).all(), "without a mask everything counts"
    assert drawn(begun(short_run(tmp_path / "off", folder, toy_base), home), 0).mask is None


def test_prior_pictures_are_shown_in_turn_without_the_trigger(toy_base: Path, home: Home, tmp_path: Path) -> None:
    folder, prior = (save_dataset(tmp_path / name, ((64, 64),) * 2) for name in ("set", "prior"))
    (folder / "dataset.toml").write_text('[weights]\n"00.png" = 0.5\n')
    asked = {"trigger": "glassy", "prior_dataset": str(prior), "prior_weight": 2.0}
    training = begun(short_run(tmp_path / "run", folder, toy_base, **asked), home)
    for micro in range(4):
        batch = drawn(training, micro)
        if micro % 2:
            assert all(caption.startswith("a picture") for caption in batch.captions)
            assert batch.weights.tolist() == [2.0, 2.0]
        else:
            assert all(caption.startswith("glassy, a picture") for caption in batch.captions)
            assert sorted(batch.weights.tolist()) == [0.5, 1.0]


@pytest.mark.parametrize("cached", [True, False])
def test_captions_vary_with_and_without_kept_text(
    cached: bool, toy_base: Path, dataset: Path, home: Home, tmp_path: Path
) -> None:
    asked = {"te1_lr": 0.0, "te2_lr": 0.0, "tag_dropout": 0.5, "caption_variants": 6, "cache_text": cached}
    training = begun(short_run(tmp_path / "run", dataset, toy_base, **asked), home)
    assert training.texts.kept is cached
    said = {caption for micro in range(60) for caption in drawn(training, micro).captions}
    possible = {variant for entry in training.plan.pictures for variant in entry.variants(training.run.settings)}
    assert len(said) > 4
    if cached:
        assert said <= possible, "only what was encoded beforehand"
