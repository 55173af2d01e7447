"""A mix of every kind of layer against the kinds' formulas in float64: right to the last place, and gone without a trace."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from tests.lora.test_mix import a_lora, adapted, factors_of, same, weights
from trainer.lora.delta import Difference, Dora, Factors, Hadamard, Kronecker, Layer, Pair, Tucker
from trainer.lora.file import LoraFile
from trainer.lora.keys import component_of
from trainer.lora.mix import Canvas
from trainer.lora.weights import Weighted
from trainer.sdxl.base import Base, load_base

Both = tuple[torch.Tensor, torch.Tensor]
"""A change, and what its rounding is measured by: the same with nothing cancelled."""


def of_kind(number: int, layer: Factors, random: torch.Generator) -> Layer:
    """A layer of the same shape, of one kind after the other."""
    out, inward, *window = layer.shape
    pair = Pair(layer.up.flatten(1), layer.down.flatten(1))
    match number % 8:
        case 1:
            return Dora(layer, torch.rand(out, generator=random) + 0.5, "out")
        case 2:
            return Hadamard(pair, pair, layer.alpha, layer.shape)
        case 3:
            return Difference(torch.randn(layer.shape, generator=random).half())
        case 4:
            small = Pair(pair.a[: out // 2], layer.down[:, : inward // 2].flatten(1))
            return Kronecker(torch.randn(2, 2, generator=random), small, layer.alpha, layer.shape)
        case 5 if window:
            down, core = layer.down[..., 0, 0], torch.randn(layer.rank, layer.rank, *window, generator=random)
            return Tucker(down, core, layer.up.flatten(1), layer.alpha)
        case 6:
            inner = Hadamard(pair, pair, layer.alpha, layer.shape)
            return Dora(inner, torch.rand(inward, generator=random) + 0.5, "in")
    return layer


def mixed_kinds(base: Base, seed: int, every: int) -> LoraFile:
    """A LoRA of all kinds, on linear layers and on convolutions."""
    random, plain = torch.Generator().manual_seed(seed), factors_of(a_lora(base, seed, alpha=0.1 * seed, every=every))
    return LoraFile(f"kinds{seed}", {name: of_kind(at, layer, random) for at, (name, layer) in enumerate(plain.items())}, {})


def in_float64(layer: Layer, weight: torch.Tensor) -> Both:
    """A layer's change by its kind's formula."""
    match layer:
        case Difference():
            return layer.diff.double(), layer.diff.double().abs()
        case Dora():
            return _dora(layer, weight)
        case Hadamard():
            a, b = layer.first.a.double(), layer.first.b.double()
            change, most = (a @ b) ** 2, (a.abs() @ b.abs()) ** 2
        case Kronecker(first=torch.Tensor() as first, second=Pair(a=a, b=b)):
            change = torch.kron(first.double(), a.double() @ b.double())
            most = torch.kron(first.double().abs(), a.double().abs() @ b.double().abs())
        case Tucker():
            three = layer.up.double(), layer.mid.double(), layer.down.double()
            change = torch.einsum("om,mnhw,ni->oihw", *three)
            most = torch.einsum("om,mnhw,ni->oihw", *(matrix.abs() for matrix in three))
        case Factors():
            up, down = layer.up.double().flatten(1), layer.down.double().flatten(1)
            change, most = up @ down, up.abs() @ down.abs()
        case _:
            raise AssertionError(layer)
    scale = layer.alpha / layer.rank
    return (scale * change).view(weight.shape), (abs(scale) * most).view(weight.shape)


def _dora(layer: Dora, weight: torch.Tensor) -> Both:
    change, most = in_float64(layer.inner, weight)
    turned, ones = weight + change, [1] * (weight.dim() - 2)
    if layer.along == "out":
        by = (layer.magnitude.double() / turned.flatten(1).norm(dim=1)).view(-1, 1, *ones)
    else:
        by = (layer.magnitude.double() / turned.transpose(0, 1).flatten(1).norm(dim=1)).view(1, -1, *ones)
    return turned * by - weight, (weight.abs() + most) * by + weight.abs()


def assert_exact(base: Base, before: dict[str, torch.Tensor], mix: list[Weighted]) -> None:
    """Every weight is W0 + sum in float64: within one step of float16, or 1e-6 of all that was added up in float32."""
    now, places = weights(base), adapted(base)
    exact = {name: value.double() for name, value in before.items() if value.is_floating_point()}
    scale = {name: value.abs() for name, value in exact.items()}
    for part in mix:
        for name, layer in part.lora.layers.items():
            weight = part.unet if component_of(name) == "unet" else part.text
            change, most = in_float64(layer, before[places[name]].double())
            exact[places[name]] = exact[places[name]] + weight * change
            scale[places[name]] = scale[places[name]] + abs(weight) * most
    for name, wanted in exact.items():
        step = 1e-6 * scale[name]
        if now[name].dtype == torch.float16:
            step = torch.from_numpy(np.spacing(wanted.abs().half().numpy()).astype(np.float64))
        assert bool(((now[name].double() - wanted).abs() <= step).all()), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
def test_after_a_thousand_moves_of_six_sliders_every_bit_is_back(toy_base: Path, dtype: torch.dtype) -> None:
    base = load_base(str(toy_base), torch.device("cpu"), dtype)
    canvas, before = Canvas(base.parts, base.version), weights(base)
    files = [a_lora(base, seed, rank=seed + 1, alpha=0.1 * seed, every=9 + seed) for seed in range(1, 6)]
    files.append(mixed_kinds(base, 6, every=11))
    random = Random(1)
    mix = [Weighted(file, 0.0, 0.0) for file in files]
    for move in range(1000):
        slider = random.randrange(6)
        both = [random.choice([0.0, random.uniform(-2, 2)]) for _ in range(2)]
        mix[slider] = Weighted(files[slider], both[0], both[1])
        canvas.lay(mix)
        if move % 50 == 49:
            assert_exact(base, before, mix)
    canvas.lay([Weighted(file, 0.0, 0.0) for file in files])
    assert same(before, weights(base))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
def test_every_kind_is_exact_at_a_negative_weight_and_leaves_no_trace(toy_base: Path, dtype: torch.dtype) -> None:
    base = load_base(str(toy_base), torch.device("cpu"), dtype)
    canvas, before, lora = Canvas(base.parts, base.version), weights(base), mixed_kinds(base, 3, every=1)
    kinds = {(type(layer), len(layer.shape)) for layer in lora.layers.values()}
    assert kinds >= {(kind, sides) for kind in (Dora, Hadamard, Difference, Kronecker, Factors) for sides in (2, 4)}
    assert (Tucker, 4) in kinds
    for weight in (-1.7, 0.9):
        mix = [Weighted(lora, weight, -weight)]
        canvas.lay(mix)
        assert_exact(base, before, mix)
    canvas.lay([Weighted(lora, 0.0, 0.0)])
    assert same(before, weights(base))


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "kinds"])
def test_what_cancels_is_right_to_the_last_place_of_float16(toy_base: Path, plain: bool) -> None:
    base = load_base(str(toy_base), torch.device("cpu"), torch.float16)
    before, files = weights(base), [a_lora(base, 1) if plain else mixed_kinds(base, 1, every=1) for _ in range(3)]
    mix = [Weighted(file, weight, weight) for file, weight in zip(files, (0.7, 0.6, -1.3), strict=True)]
    Canvas(base.parts, base.version).lay(mix)
    assert_exact(base, before, mix)


def test_the_size_of_a_lora_is_the_norm_of_its_change_in_the_unet(toy_base: Path) -> None:
    base = load_base(str(toy_base), torch.device("cpu"), torch.float32)
    canvas, before, places, lora = Canvas(base.parts, base.version), weights(base), adapted(base), mixed_kinds(base, 1, every=1)
    changes = [
        in_float64(layer, before[places[name]].double())[0]
        for name, layer in lora.layers.items()
        if component_of(name) == "unet"
    ]
    canvas.lay([Weighted(a_lora(base, 2), 1.0, 1.0)])
    assert canvas.size(lora) == pytest.approx(float(torch.cat([change.flatten() for change in changes]).norm()), rel=1e-5)
