"""The VAE: pixels <-> scaled latents, whole where memory allows, else in tiles.

SDXL's VAE overflows in float16 (black pictures, latents that are not numbers), so it stays in float32, and what it gives
is looked at. Knows nothing of the U-Net, prompts or files.

Tiles are of one size and evenly spaced, fade into each other, and are all normalised as the whole picture is, by what a sample
of it shows. (In diffusers' own tiling the last tile is whatever is over, and each is normalised by itself: the contrast of flat
areas changes from tile to tile.) A tiled picture is close to the whole one, not equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch.overrides import TorchFunctionMode

from trainer.errors import DrawingError
from trainer.sdxl.device import free_bytes, out_of_memory

Work = Callable[[torch.Tensor], torch.Tensor]
TILES = (96, 64, 48, 32)
"""Sides of tiles, in latents (8 pixels each): the larger, the closer to the whole."""
FADE = 4
"""Neighbouring tiles share a quarter of their side."""
PATCH = 8
"""Side in latents of the patches of which a sample is put together."""
WORKSPACE = 1.25
"""What convolutions may take beside their input and output."""


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels (n, 3, h, w) in -1 … 1 -> mean and standard deviation (n, 4, h/8, w/8) of the scaled latents.

    Raises `DrawingError` when they are not numbers, or memory runs out.
    """

    def work(part: torch.Tensor) -> torch.Tensor:
        posterior = vae.encode(part).latent_dist
        return cast(torch.Tensor, torch.cat([posterior.mean, posterior.std], dim=1) * vae.config.scaling_factor)

    made = _each(vae, work, pixels.to(vae.device, torch.float32), (8, 1))
    mean, deviation = made.chunk(2, dim=1)
    return mean, deviation


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Scaled latents (n, 4, h/8, w/8) -> pixels (n, 3, h, w) in -1 … 1. Raises `DrawingError` as `encode` does."""
    if not torch.isfinite(latents).all():
        raise DrawingError(
            "The picture broke down before it was finished: its latents are not numbers. "
            "Lower the weights of its LoRAs or its CFG scale."
        )

    def work(part: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, vae.decode(part).sample)

    return _each(vae, work, latents.to(vae.device, torch.float32) / vae.config.scaling_factor, (1, 8)).clamp(-1, 1)


def needed_bytes(vae: AutoencoderKL, height: int, width: int) -> int:
    """The most that encoding or decoding one picture of this size in pixels takes, in float32, beside the weights.

    The most tensors live at full resolution: three of the second level's width in the decoder's last block (its input, that
    normalised, and that through SiLU), five of the first level's in the encoder's first. Where attention is not fused, scores
    of every 8 x 8 pixels with every other, before and after the softmax, may be more.
    """
    first, second = vae.config.block_out_channels[:2]
    convolutions = 4 * max(3 * second, 5 * first) * height * width
    attention = 4 * 2 * (height // 8 * (width // 8)) ** 2
    return int(WORKSPACE * max(convolutions, attention))


def _each(vae: AutoencoderKL, work: Work, given: torch.Tensor, sides: tuple[int, int]) -> torch.Tensor:
    """`work` on one picture after another. `sides` are a latent's, in what goes in and in what comes out."""
    made = torch.cat([_whole_or_tiled(vae, work, picture, sides) for picture in given.split(1)])
    if not torch.isfinite(made).all():
        raise DrawingError("This base's VAE gives values that are not numbers: its weights are damaged. Choose another base.")
    return made


def _whole_or_tiled(vae: AutoencoderKL, work: Work, given: torch.Tensor, sides: tuple[int, int]) -> torch.Tensor:
    """Whole or in the largest tiles that fit; in smaller ones if memory runs out all the same."""
    height, width = given.shape[-2] // sides[0], given.shape[-1] // sides[0]
    free = free_bytes(given.device)
    tries = [max(height, width), *(side for side in TILES if side < max(height, width))]
    for side in tries:
        fits = needed_bytes(vae, 8 * min(side, height), 8 * min(side, width)) <= free
        if not fits and side != tries[-1]:
            continue
        try:
            return tiled(work, given, side, sides)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
    raise DrawingError(
        f"Memory ran out in the VAE, even in tiles, for a picture of {8 * width}x{8 * height}: "
        f"{free / 2**30:.1f} GiB are free. Close other programs that use the card, or choose a smaller size."
    )


def tiled(work: Work, given: torch.Tensor, side: int, sides: tuple[int, int]) -> torch.Tensor:
    """`work` on tiles of `side` latents, faded into each other; one that is as large as the picture is `work` itself."""
    height, width = given.shape[-2] // sides[0], given.shape[-1] // sides[0]
    if side >= max(height, width):
        return work(given)
    whole: torch.Tensor | None = None
    shares = given.new_zeros(height * sides[1], width * sides[1])
    with _OneNorm():
        work(_sample(given, side, sides[0]))
        for top in _starts(height, side):
            for left in _starts(width, side):
                made = work(given[..., _span(top, side, sides[0]), _span(left, side, sides[0])])
                if whole is None:
                    whole = made.new_zeros(*made.shape[:2], *shares.shape)
                rows, columns = _span(top, side, sides[1]), _span(left, side, sides[1])
                share = _fading(made, side * sides[1] // FADE)
                whole[..., rows, columns] += made * share
                shares[rows, columns] += share
    assert whole is not None
    return whole / shares


class _OneNorm(TorchFunctionMode):
    """Each group norm keeps the mean and variance of the first input that it gets, and normalises all later ones by them."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is not F.group_norm:
            return function(*args, **(kwargs or {}))
        x, groups, weight, bias, eps = args[0], args[1], kwargs["weight"], kwargs["bias"], kwargs["eps"]
        if id(weight) not in self._kept:
            variance, mean = torch.var_mean(x.reshape(groups, -1), dim=-1, correction=0)
            scale = weight * (variance + eps).rsqrt().repeat_interleave(len(weight) // groups)
            shift = bias - mean.repeat_interleave(len(weight) // groups) * scale
            self._kept[id(weight)] = scale, shift
        scale, shift = (kept.view(1, -1, *[1] * (x.dim() - 2)) for kept in self._kept[id(weight)])
        return torch.addcmul(shift, x, scale)


def _sample(given: torch.Tensor, side: int, scale: int) -> torch.Tensor:
    """Patches from all over the picture, put together to the size of a tile."""
    for dim in (-2, -1):
        length = given.shape[dim] // scale
        if length > side:
            starts = torch.linspace(0, length - PATCH, side // PATCH).round().long() * scale
            places = (starts[:, None] + torch.arange(PATCH * scale)).flatten()
            given = given.index_select(dim, places.to(given.device))
    return given


def _span(start: int, length: int, scale: int) -> slice:
    return slice(start * scale, (start + length) * scale)


def _starts(length: int, side: int) -> list[int]:
    """Where tiles begin along `length`, evenly spaced; the last one ends where the picture does."""
    if length <= side:
        return [0]
    shared = side // FADE
    steps = -(-(length - side) // (side - shared))
    return [(length - side) * step // steps for step in range(steps + 1)]


def _fading(made: torch.Tensor, over: int) -> torch.Tensor:
    """A tile's share in each of its pixels (h, w): 1 inside, falling over `over` pixels towards the edges."""
    ramps = []
    for length in made.shape[-2:]:
        distance = torch.arange(1, length + 1, device=made.device)
        ramps.append((torch.minimum(distance, distance.flip(0)) / over).clamp(max=1))
    return ramps[0][:, None] * ramps[1]
