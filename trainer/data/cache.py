"""Encode each picture once. What is kept is named by everything it depends on, so that it can never be stale.

A cache entry holds the VAE posterior's mean and standard deviation (a latent is drawn anew at each step), for one
picture's bytes, placement and VAE; and the picture's mask, where masks are asked for. Entries are shared between runs and may
be deleted at any time.
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
from safetensors.torch import load, save

from trainer.data import intake, masks
from trainer.data.buckets import Placement
from trainer.data.shown import Shown
from trainer.errors import PictureError, storing
from trainer.home import write_atomically

Encode = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Pixels (1, 3, h, w) in -1 … 1 -> mean and standard deviation (1, 4, h/8, w/8) of the scaled latent."""


@dataclass(frozen=True)
class Encoded:
    """A picture as the U-Net sees it: mean and deviation of its latent (4, h/8, w/8), float32, on the CPU."""

    shown: Shown
    mean: torch.Tensor
    deviation: torch.Tensor
    mask: torch.Tensor | None = None
    """How much each place counts: (1, h/8, w/8) in 0 … 1; None if all count alike."""


def prepared(
    picture: Image.Image, placement: Placement, resampling: Image.Resampling = Image.Resampling.LANCZOS
) -> Image.Image:
    """The picture cut, mirrored, scaled and cropped as `placement` says."""
    picture = _cut_out(picture, placement, resampling)
    upright = ImageOps.mirror(picture) if placement.mirrored else picture
    return upright.resize(placement.scaled, resampling).crop(placement.box)


def _cut_out(picture: Image.Image, placement: Placement, resampling: Image.Resampling) -> Image.Image:
    """What is left of the picture, or of its mask, which may be smaller, where it is cut."""
    if placement.cut is None:
        return picture
    whole = picture if picture.size == placement.whole else picture.resize(placement.whole, resampling)
    return whole.crop(placement.cut.box)


def to_pixels(picture: Image.Image) -> torch.Tensor:
    """An RGB picture as (1, 3, h, w) in -1 … 1."""
    values = torch.from_numpy(np.array(picture, dtype=np.float32))
    return values.permute(2, 0, 1)[None] / 127.5 - 1


class LatentCache:
    """Encoded pictures in `folder`, for one VAE whose fingerprint is `vae`; with their masks if `masked`."""

    def __init__(self, folder: Path, vae: str, encode: Encode, masked: bool = False) -> None:
        self._folder = folder
        self._vae = vae
        self._encode = encode
        self._masked = masked

    def get(self, shown: Shown) -> Encoded:
        """The encoded picture, from the cache if it is there. Raises `PictureError`, `StorageError`."""
        path = self._folder / f"{self._name(shown)}.safetensors"
        if path.is_file():
            try:
                kept = load(path.read_bytes())  # not mapped: the file may be deleted while it is used
                return Encoded(shown, kept["mean"], kept["deviation"], kept.get("mask"))
            except (SafetensorError, KeyError, OSError):
                path.unlink(missing_ok=True)  # cut off by a crash of the machine: encode it again
        made = self._made(shown.picture.path, shown.placement)
        with storing(path):
            write_atomically(path, save(made))
        return Encoded(shown, made["mean"], made["deviation"], made.get("mask"))

    def _made(self, path: Path, placement: Placement) -> dict[str, torch.Tensor]:
        """What a cache entry holds. Raises `PictureError`."""
        picture = intake.read_picture(path)
        if picture.size != placement.whole:
            raise PictureError(
                f"{path.name} has {picture.width} x {picture.height} pixels and had {placement.whole[0]} x "
                f"{placement.whole[1]} when the training was planned: put the picture back, or start a new training."
            )
        mask = masks.read(path) if self._masked else None
        if mask is not None and not _cut_out(mask, placement, Image.Resampling.BILINEAR).getbbox():
            raise PictureError(
                f"{path.name} is cut in dataset.toml to a part of which its mask shows nothing, so that nothing of it would be "
                "learnt: move the crop or paint the mask anew."
            )
        mean, deviation = (part[0].float().cpu().contiguous() for part in self._encode(to_pixels(prepared(picture, placement))))
        made = {"mean": mean, "deviation": deviation}
        if mask is not None:
            # not Lanczos, which overshoots at the edges that masks are full of
            made["mask"] = torch.from_numpy(masks.of_latent(prepared(mask, placement, Image.Resampling.BILINEAR)))
        return made

    def _name(self, shown: Shown) -> str:
        path = shown.picture.path
        try:
            content = hashlib.sha256(path.read_bytes())
        except OSError as error:
            raise PictureError(f"{path.name} cannot be opened ({error.strerror or error}).") from None
        content.update(repr((shown.placement, self._vae)).encode())
        if shown.placement.cut:
            content.update(repr(shown.placement.cut).encode())
        if self._masked:
            content.update(masks.tag(path))
        return content.hexdigest()[:40]
