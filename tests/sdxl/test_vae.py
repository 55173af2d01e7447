"""The VAE whole and in tiles, with memory that is said to be short, and with numbers that float16 cannot hold."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.data.cache import to_pixels
from trainer.errors import DrawingError
from trainer.home import shipped
from trainer.sdxl import vae
from trainer.sdxl.base import Base, load_base
from trainer.sdxl.vae import decode, encode, needed_bytes

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def starter() -> AutoencoderKL:
    return load_base("starter", CPU, torch.float32).vae


@pytest.fixture
def toy(toy_base: Path) -> Base:
    return load_base(str(toy_base), CPU, torch.float16)


@dataclass(frozen=True)
class Whole:
    """A picture (1, 3, 352, 512), its latents and what is decoded from them, all in one piece."""

    pixels: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor
    decoded: torch.Tensor


@pytest.fixture(scope="module", params=["blueprint", "risograph", "stained-glass"])
def whole(request: pytest.FixtureRequest, starter: AutoencoderKL) -> Whole:
    path = sorted(Path(str(shipped("assets", "styles", request.param))).glob("*.png"))[2]
    with Image.open(path) as picture:
        pixels = to_pixels(picture.convert("RGB").resize((512, 352), Image.Resampling.LANCZOS))
    mean, deviation = encode(starter, pixels)
    return Whole(pixels, mean, deviation, decode(starter, mean))


def room(monkeypatch: pytest.MonkeyPatch, bytes_free: int) -> None:
    monkeypatch.setattr(vae, "free_bytes", lambda _: bytes_free)


def decibels(one: torch.Tensor, other: torch.Tensor) -> float:
    """PSNR of values in -1 … 1."""
    return float(10 * torch.log10(4 / (one - other).square().mean()))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def watched(model: AutoencoderKL, monkeypatch: pytest.MonkeyPatch, most: int = 10**9) -> list[tuple[int, int]]:
    """The sizes in latents that are decoded; more than `most` latents is more than the memory holds."""
    sizes: list[tuple[int, int]] = []
    real = model.decode

    def watch(latents: torch.Tensor) -> Any:
        sizes.append((latents.shape[-2], latents.shape[-1]))
        if latents[0, 0].numel() > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(latents)

    monkeypatch.setattr(model, "decode", watch)
    return sizes


def test_with_room_the_whole_is_the_models_own_to_the_bit(toy: Base) -> None:
    latents, pixels = noise(2, 4, 12, 8), noise(2, 3, 96, 64).clamp(-1, 1)
    with torch.no_grad():
        expected = [toy.vae.decode(one / 0.13025).sample.clamp(-1, 1) for one in latents.split(1)]
        posteriors = [toy.vae.encode(one).latent_dist for one in pixels.split(1)]
    assert torch.equal(decode(toy.vae, latents), torch.cat(expected))
    mean, deviation = encode(toy.vae, pixels)
    assert torch.equal(mean, torch.cat([one.mean for one in posteriors]) * 0.13025)
    assert torch.equal(deviation, torch.cat([one.std for one in posteriors]) * 0.13025)


@pytest.mark.parametrize(("side", "least"), [(32, 34.0), (48, 44.0)])
def test_tiles_come_close_to_the_whole_and_leave_no_seam(
    starter: AutoencoderKL, whole: Whole, side: int, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seam would be a row or a column in which the difference to the whole jumps."""
    room(monkeypatch, needed_bytes(starter, 8 * side, 8 * side))
    sizes = watched(starter, monkeypatch)
    tiled = decode(starter, whole.mean)
    assert len(sizes) > 2
    assert max(max(size) for size in sizes) == side
    assert least < decibels(tiled, whole.decoded) < 80
    difference = (tiled - whole.decoded).mean(dim=(0, 1))
    for profile in (difference.mean(dim=0), difference.mean(dim=1)):
        assert profile.diff().abs().max() < 2 / 127.5


def test_latents_from_tiles_come_close_to_the_whole(
    starter: AutoencoderKL, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    room(monkeypatch, 0)
    mean, deviation = encode(starter, whole.pixels)
    assert 0.001 < float((mean - whole.mean).square().mean().sqrt() / whole.mean.std()) < 0.06
    torch.testing.assert_close(deviation.mean(), whole.deviation.mean(), rtol=0.05, atol=0)


@pytest.mark.parametrize("whole", ["stained-glass"], indirect=True)
def test_tiles_are_nearer_than_diffusers_own(starter: AutoencoderKL, whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = copy.deepcopy(starter)
    theirs.enable_tiling()
    theirs.tile_sample_min_size, theirs.tile_latent_min_size = 256, 32
    with torch.no_grad():
        expected = theirs.decode(whole.mean / theirs.config.scaling_factor).sample.clamp(-1, 1)
    room(monkeypatch, 0)
    assert decibels(decode(starter, whole.mean), whole.decoded) > decibels(expected, whole.decoded) + 3


@pytest.mark.parametrize(
    ("free", "sides"),
    [(lambda need: need(128, 112), {(128, 112)}), (lambda need: need(128, 112) - 1, {(96, 96)}),
     (lambda need: need(96, 96) - 1, {(64, 64)}), (lambda need: need(64, 64) - 1, {(48, 48)}), (lambda _: 0, {(32, 32)})],
    ids=["enough", "little", "less", "hardly", "nothing"],
)  # fmt: skip
def test_the_largest_tiles_that_fit_are_taken(
    toy: Base, free: Callable[[Any], int], sides: set[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    room(monkeypatch, free(lambda height, width: needed_bytes(toy.vae, 8 * height, 8 * width)))
    sizes = watched(toy.vae, monkeypatch)
    assert decode(toy.vae, noise(1, 4, 128, 112)).shape == (1, 3, 1024, 896)
    assert set(sizes) == sides


def test_when_memory_runs_out_all_the_same_smaller_tiles_are_tried(toy: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = watched(toy.vae, monkeypatch, most=48 * 48)
    assert torch.isfinite(decode(toy.vae, noise(1, 4, 80, 72))).all()
    assert list(dict.fromkeys(sizes)) == [(80, 72), (64, 64), (48, 48)]


def test_when_no_tile_fits_a_sentence_says_so(toy: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    watched(toy.vae, monkeypatch, most=0)
    with pytest.raises(DrawingError, match=r"Memory ran out .* 576x640: .* GiB are free\. Close other programs"):
        decode(toy.vae, noise(1, 4, 80, 72))


def trapped(base: Base) -> AutoencoderKL:
    """The base's VAE with first layers so strong that float16 cannot hold what they give; the norms after them can."""
    with torch.no_grad():
        base.vae.decoder.conv_in.weight *= 1e6
        base.vae.encoder.conv_in.weight *= 1e6
    return base.vae


def test_a_vae_that_overflows_in_float16_draws_right(toy: Base) -> None:
    model, latents, pixels = trapped(toy), noise(1, 4, 8, 8), noise(1, 3, 64, 64).clamp(-1, 1)
    half, double = copy.deepcopy(model).half(), copy.deepcopy(model).double()
    with torch.no_grad():
        assert not torch.isfinite(half.decode(latents.half() / 0.13025).sample).all()
        assert not torch.isfinite(half.encode(pixels.half()).latent_dist.mean).all()
        expected = double.decode(latents.double() / 0.13025).sample.clamp(-1, 1)
        mean = double.encode(pixels.double()).latent_dist.mean * 0.13025
    torch.testing.assert_close(decode(model, latents.half()).double(), decode(model, latents.half().float()).double())
    torch.testing.assert_close(decode(model, latents).double(), expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(encode(model, pixels)[0].double(), mean, rtol=0, atol=1e-3)


def test_latents_that_are_not_numbers_are_no_black_picture(toy: Base) -> None:
    latents = noise(1, 4, 8, 8)
    latents[0, 0, 3, 3] = torch.nan
    with pytest.raises(DrawingError, match=r"latents are not numbers\. Lower the weights of its LoRAs"):
        decode(toy.vae, latents)


def test_a_damaged_vae_is_told_of(toy: Base) -> None:
    with torch.no_grad():
        toy.vae.decoder.conv_out.weight[0, 0, 0, 0] = torch.inf
        toy.vae.encoder.conv_out.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(DrawingError, match=r"This base's VAE gives values that are not numbers.* Choose another base"):
        decode(toy.vae, noise(1, 4, 8, 8))
    with pytest.raises(DrawingError, match="This base's VAE"):
        encode(toy.vae, noise(1, 3, 64, 64))


class Living(TorchDispatchMode):
    """Counts the bytes of the tensors that live at the same time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._known:
                    self._known.add(storage._cdata)
                    self.now += storage.nbytes()
                    self.most = max(self.most, self.now)
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return made

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


@pytest.mark.parametrize(("height", "width"), [(512, 512), (1024, 1024), (832, 1216), (2048, 2048)])
def test_the_memory_that_is_counted_on_is_what_sdxls_vae_takes(height: int, width: int) -> None:
    """On the meta device, which allocates nothing and does not fuse attention."""
    config = AutoencoderKL.load_config(shipped("assets", "sdxl", "vae"))
    with torch.device("meta"):
        model = AutoencoderKL.from_config(config).eval()
    most = 0
    for work in (
        lambda: model.decode(torch.empty(1, 4, height // 8, width // 8, device="meta")).sample,
        lambda: model.encode(torch.empty(1, 3, height, width, device="meta")).latent_dist.mean,
    ):
        living = Living()
        with torch.no_grad(), living:
            work()  # type: ignore[no-untyped-call]
        most = max(most, living.most)
    assert 0.75 * needed_bytes(model, height, width) < most <= needed_bytes(model, height, width)
