"""What mixing costs on this machine, beside diffusers' two ways, in one run: `impasto bench mix`.

Random LoRAs on the attention of the U-Net. diffusers' ways need PEFT; without it, only ours is measured.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers.utils.import_utils import is_peft_available
from torch import nn

from trainer.bases.source import Facts
from trainer.lora.delta import Factors
from trainer.lora.file import LoraFile
from trainer.lora.keys import least_targets, table
from trainer.lora.mix import Canvas
from trainer.lora.weights import Weighted
from trainer.sdxl.base import Base, load_base
from trainer.sdxl.device import best_device, drawing_dtype
from trainer.sdxl.sampler import Sampling, sample
from trainer.sdxl.text import encode_prompt, unconditional

RANK, MOVED, DRAWN, STEPS = 16, 4, 8, 4
"""The LoRAs' rank; how many are mixed anew, and drawn with; denoising steps at a time."""

REPEATS, PATIENCE = 24, 40.0
"""The quickest of so many times counts, or of those that fit into so many seconds, but of two at least."""

Mix = Callable[[Sequence[float]], None]
"""Makes a U-Net that of LoRAs with these weights."""


@dataclass(frozen=True)
class Way:
    """A way to mix: its U-Net, and how weights are set in it; the base alone sets none."""

    name: str
    base: Base
    mix: Mix


def mixing(source: str | Facts) -> dict[str, Any]:
    """Seconds for mixing `MOVED` LoRAs anew and for a denoising step with `DRAWN`, by each way. Raises `BaseModelError`."""
    device = best_device()
    base = load_base(source, device, drawing_dtype(device))
    loras = [_lora(base, seed) for seed in range(DRAWN)]
    ways = [Way("the base alone", base, lambda weights: None), _ours(base, loras)]
    if is_peft_available():
        ways += [_adapters(base, loras), _fused(base, loras)]
    moves = _quickest([_moves(way) for way in ways[1:]], device)
    steps = [seconds / STEPS for seconds in _quickest([_drawing(way) for way in ways], device)]
    return {
        "base": base.facts.name, "device": str(device), "rank": RANK, "mixed": MOVED, "drawn": DRAWN,
        "ways": [
            {
                "way": way.name, "remix": move, "remix_in_steps": None if move is None else move / steps[0],
                "step": step, "step_ratio": step / steps[0],
            }
            for way, step, move in zip(ways, steps, [None, *moves], strict=True)
        ],
    }  # fmt: skip


def _lora(base: Base, seed: int) -> LoraFile:
    """A random LoRA for the U-Net's attention, in float16 as files are, weak enough to leave the base able to draw."""
    random, layers = torch.Generator().manual_seed(seed), {}
    for name, path in table("unet", _linears(base.unet)).items():
        out, inward = base.unet.get_submodule(path).weight.shape
        down = torch.randn(RANK, inward, generator=random) / inward**0.5
        layers[name] = Factors(down.half(), (torch.randn(out, RANK, generator=random) * 0.01).half(), float(RANK))
    return LoraFile(f"lora{seed}", layers, {})


def _linears(unet: nn.Module) -> list[str]:
    """The paths of the attention's layers."""
    return [path for path, layer in unet.named_modules() if least_targets("unet", path) == "attention"]


def _ours(base: Base, loras: Sequence[LoraFile]) -> Way:
    own = replace(base, unet=copy.deepcopy(base.unet))
    canvas = Canvas(own.parts, own.version)
    return Way(
        "Impasto",
        own,
        lambda weights: canvas.lay([Weighted(lora, weight, 0.0) for lora, weight in zip(loras, weights, strict=False)]),
    )


def _adapters(base: Base, loras: Sequence[LoraFile]) -> Way:
    unet = _with_adapters(base, loras)
    return Way("set_adapters", replace(base, unet=unet), lambda weights: unet.set_adapters(_names(weights), list(weights)))


def _fused(base: Base, loras: Sequence[LoraFile]) -> Way:
    unet = _with_adapters(base, loras)
    unet.fuse_lora(adapter_names=["lora0"])  # so that there is something to take off

    def mix(weights: Sequence[float]) -> None:
        unet.unfuse_lora()
        unet.set_adapters(_names(weights), list(weights))
        unet.fuse_lora(adapter_names=_names(weights))

    return Way("fuse_lora", replace(base, unet=unet), mix)


def _names(weights: Sequence[float]) -> list[str]:
    return [f"lora{number}" for number in range(len(weights))]


def _with_adapters(base: Base, loras: Sequence[LoraFile]) -> Any:
    """A copy of the U-Net with the LoRAs as PEFT's adapters."""
    unet, paths = copy.deepcopy(base.unet), table("unet", _linears(base.unet))
    for lora in loras:
        weights = {}
        for name, layer in lora.layers.items():
            assert isinstance(layer, Factors)
            weights[f"{paths[name]}.lora_A.weight"] = layer.down
            weights[f"{paths[name]}.lora_B.weight"] = layer.up
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are what is wanted
            unet.load_lora_adapter(weights, prefix=None, adapter_name=lora.name)
    return unet


@torch.no_grad()
def _drawing(way: Way) -> Callable[[], None]:
    """`STEPS` denoising steps with guidance, with `DRAWN` LoRAs."""
    way.mix([0.2 + 0.05 * number for number in range(DRAWN)])
    side, prompt = way.base.resolution, encode_prompt(way.base, ["a red house"])
    how = Sampling(side, side, STEPS, 3.5, (1,))

    def draw() -> None:
        for _ in sample(way.base, prompt, unconditional(prompt), how):
            pass

    return draw


def _moves(way: Way) -> Callable[[], None]:
    """Gives `MOVED` LoRAs other weights, all of them."""
    weights = [0.5]

    def move() -> None:
        weights[0] = 1.2 - weights[0]
        way.mix(weights * MOVED)

    return move


def _quickest(works: Sequence[Callable[[], None]], device: torch.device) -> list[float]:
    """Each one's shortest time in seconds, taken in turns, after a first round that does not count."""
    shortest, start = [math.inf] * len(works), time.perf_counter()
    for turn in range(REPEATS + 1):
        if turn > 2 and time.perf_counter() - start > PATIENCE:
            break
        for number, work in enumerate(works):
            began = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:
                shortest[number] = min(shortest[number], time.perf_counter() - began)
    return shortest
