"""The live picture: what a VAE made of latents that are known, and the starter's own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from trainer.home import shipped
from trainer.sdxl import glimpse as module
from trainer.sdxl.base import load_base
from trainer.sdxl.glimpse import fit, glimpse


def test_a_linear_vae_is_seen_through_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    mixing = torch.tensor([[0.5, -1.0, 2.0], [1.0, 1.0, 0.0], [0.0, 3.0, 1.0], [-1.0, 0.5, 0.5]])

    def encode(vae: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = torch.einsum("lc,nchw->nlhw", mixing, F.avg_pool2d(pixels, 8)) + 0.25
        return mean, torch.zeros_like(mean)

    monkeypatch.setattr(module, "encode", encode)
    fitted = fit(cast(Any, SimpleNamespace()))
    pixels = torch.tensor([[-1.0, 0.2, 0.8], [1.0, 0.0, -0.4]]).T.reshape(3, 1, 2)
    seen = glimpse(fitted, torch.einsum("lc,chw->lhw", mixing, pixels) + 0.25)
    assert seen.size == (2, 1)
    expected = ((pixels + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(seen, dtype=float) - expected).max() <= 1


def test_what_is_not_a_number_is_grey() -> None:
    seen = glimpse(torch.ones(5, 3), torch.full((4, 2, 2), float("nan")))
    assert seen.getcolors() == [(4, (128, 128, 128))]


def test_the_starters_pictures_can_be_told_by_their_glimpse() -> None:
    """Each glimpse is closest to the small picture that it is of."""
    base = load_base("starter", torch.device("cpu"), torch.float32)
    fitted = fit(base.vae)
    folder: Path = sorted(path for path in shipped("assets", "styles").iterdir() if path.is_dir())[0]
    small, seen = [], []
    for path in sorted(folder.glob("*.png"))[:6]:
        with Image.open(path) as opened:
            pixels = torch.tensor(np.asarray(opened.convert("RGB").resize((128, 128)))).permute(2, 0, 1)[None] / 127.5 - 1
        small.append(F.avg_pool2d((pixels + 1) * 127.5, 8)[0].permute(1, 2, 0).numpy())
        seen.append(np.asarray(glimpse(fitted, base.encode(pixels)[0][0]), dtype=float))
    distances = np.array([[np.abs(one - other).mean() for other in small] for one in seen])
    assert distances.argmin(axis=1).tolist() == list(range(6))
    assert distances.diagonal().mean() < 30, "of 255"
