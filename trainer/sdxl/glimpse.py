"""A small live picture straight from latents: one pixel each, by a linear map that is fitted to the base's own VAE.

Latents are close to linear in the colours of what they stand for, so a few patches of colour through the encoder tell the map.
Far quicker than decoding, and only a glimpse: an eighth of the size, without texture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image

from trainer.sdxl.vae import encode

_PATCHES, _PATCH = 8, 32
"""Patches a side of the picture that the map is fitted to, and each patch's side in pixels."""


def fit(vae: AutoencoderKL) -> torch.Tensor:
    """The map (5, 3) from a latent and a one to red, green and blue in -1 … 1, by least squares; on the CPU."""
    colours = torch.rand(1, 3, _PATCHES, _PATCHES, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, _ = encode(vae, F.interpolate(colours, scale_factor=_PATCH, mode="nearest"))
    latents = F.pad(mean.cpu().flatten(2)[0].T, (0, 1), value=1.0)
    wanted = F.interpolate(colours, scale_factor=_PATCH // 8, mode="nearest").flatten(2)[0].T
    fitted: torch.Tensor = torch.linalg.lstsq(latents, wanted).solution
    return fitted


def glimpse(fitted: torch.Tensor, latents: torch.Tensor) -> Image.Image:
    """Scaled latents (4, h, w) as an RGB picture of w x h pixels; what is not a number is grey."""
    rows = F.pad(latents.float().cpu().permute(1, 2, 0), (0, 1), value=1.0)
    values = ((rows @ fitted).nan_to_num(0.0) + 1) * 127.5
    return Image.fromarray(values.round().clamp(0, 255).to(torch.uint8).numpy())
