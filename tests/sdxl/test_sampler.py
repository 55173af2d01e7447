"""The first noise and the way from pixels to a picture. The steps themselves are tested against diffusers' pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from trainer.sdxl.base import load_base
from trainer.sdxl.sampler import Sampling, first_noise, sample, to_picture
from trainer.sdxl.text import encode_text, unconditional


def test_the_first_noise_is_torchs_for_the_seed() -> None:
    expected = torch.randn(4, 12, 8, generator=torch.Generator().manual_seed(5))
    assert torch.equal(first_noise((5,), 96, 64)[0], expected)


def test_each_row_of_the_noise_has_a_seed_of_its_own() -> None:
    both = first_noise((5, 6), 64, 64)
    assert torch.equal(both[1], first_noise((6,), 64, 64)[0])
    assert not torch.equal(both[0], both[1])


def test_pictures_of_a_batch_are_those_drawn_alone(toy_base: Path) -> None:
    base = load_base(str(toy_base), torch.device("cpu"), torch.float32)
    with torch.no_grad():
        text = encode_text(base, ["a house", "a house"])
        alone = encode_text(base, ["a house"])
    *_, both = sample(base, text, unconditional(text), Sampling(64, 64, 3, 4.0, (1, 2)))
    *_, second = sample(base, alone, unconditional(alone), Sampling(64, 64, 3, 4.0, (2,)))
    torch.testing.assert_close(both[1:], second, rtol=1e-4, atol=1e-4)


def test_there_is_one_yield_a_step(toy_base: Path) -> None:
    base = load_base(str(toy_base), torch.device("cpu"), torch.float32)
    with torch.no_grad():
        text = encode_text(base, ["a house"])
    steps = list(sample(base, text, unconditional(text), Sampling(64, 96, 5, 1.0, (1,))))
    assert [step.shape for step in steps] == [(1, 4, 12, 8)] * 5


def test_pixels_become_8_bit_by_rounding() -> None:
    pixels = torch.tensor([-1.5, -1.0, 0.0, 1.0, 1.5]).expand(3, 1, 5)
    assert np.asarray(to_picture(pixels))[0, :, 0].tolist() == [0, 0, 128, 255, 255]
