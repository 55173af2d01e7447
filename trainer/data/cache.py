"""Encode each picture once. What is kept is named by everything it depends on, so that it can never be stale.

A cache entry holds the VAE posterior's mean and standard deviation (a latent is drawn anew at each step), for one
picture's bytes, placement and VAE. Entries are shared between runs and may be deleted at any time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from trainer.data import intake
from trainer.data.buckets import Placement
from trainer.data.dataset import Picture
from trainer.errors import PictureError, storing
from trainer.home import write_atomically

Encode = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Pixels (1, 3, h, w) in -1 … 1 -> mean and standard deviation (1, 4, h/8, w/8) of the scaled latent."""


@dataclass(frozen=True)
class Encoded:
    """A picture as the U-Net sees it: mean and deviation of its latent (4, h/8, w/8), float32, on the CPU."""

    picture: Picture
    placement: Placement
    mean: torch.Tensor
    deviation: torch.Tensor


def prepared(picture: Image.Image, placement: Placement) -> Image.Image:
    """The picture mirrored, scaled and cropped as `placement` says."""
    upright = ImageOps.mirror(picture) if placement.mirrored else picture
    return upright.resize(placement.scaled, Image.Resampling.LANCZOS).crop(placement.box)


def to_pixels(picture: Image.Image) -> torch.Tensor:
    """An RGB picture as (1, 3, h, w) in -1 … 1."""
    values = torch.from_numpy(np.array(picture, dtype=np.float32))
    return values.permute(2, 0, 1)[None] / 127.5 - 1


class LatentCache:
    """Encoded pictures in `folder`, for one VAE whose fingerprint is `vae`."""

    def __init__(self, folder: Path, vae: str, encode: Encode) -> None:
        self._folder = folder
        self._vae = vae
        self._encode = encode

    def get(self, picture: Picture, placement: Placement) -> Encoded:
        """The encoded picture, from the cache if it is there. Raises `PictureError`, `StorageError`."""
        path = self._folder / f"{self._name(picture.path, placement)}.safetensors"
        if path.is_file():
            try:
                kept = load_file(path)
                return Encoded(picture, placement, kept["mean"], kept["deviation"])
            except (SafetensorError, KeyError, OSError):
                path.unlink(missing_ok=True)  # cut off by a crash of the machine: encode it again
        pixels = to_pixels(prepared(intake.read_picture(picture.path), placement))
        mean, deviation = (part[0].float().cpu().contiguous() for part in self._encode(pixels))
        with storing(path):
            write_atomically(path, save({"mean": mean, "deviation": deviation}))
        return Encoded(picture, placement, mean, deviation)

    def _name(self, path: Path, placement: Placement) -> str:
        try:
            content = hashlib.sha256(path.read_bytes())
        except OSError as error:
            raise PictureError(f"{path.name} cannot be opened ({error.strerror or error}).") from None
        content.update(repr((placement, self._vae)).encode())
        return content.hexdigest()[:40]
