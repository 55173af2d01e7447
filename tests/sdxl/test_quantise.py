"""Packed layers against plain ones with the same weights, against bitsandbytes' NF4, and against SDXL's true sizes."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from accelerate import init_empty_weights
from diffusers import UNet2DConditionModel
from torch import nn

from trainer.errors import BaseModelError
from trainer.home import shipped
from trainer.lora.adapter import Adapter
from trainer.lora.mix import Canvas
from trainer.lora.shape import Shape
from trainer.sdxl.base import Base, load_base
from trainer.sdxl.quantise import BLOCK, QuantisedLinear, pack, packing_of, precision_of, quantise, unpack
from trainer.sdxl.text import encode_text
from trainer.settings import Packing

CPU, META = torch.device("cpu"), torch.device("meta")
PACKINGS: tuple[Packing, ...] = ("int8", "nf4")

RAMP = (torch.arange(128) - 64).float().reshape(2, 64) / 64 * torch.tensor([[1.0], [0.25]])
"""Two blocks of NF4, exact in floats: -1 … -1/64, and 0 … 63/256."""

NF4_OF_RAMP = (
    "0000000000111111111111111222222222233333333444444555555566666677"
    "7778888899999aaaaaabbbbbbcccccccdddddddddeeeeeeeeeeeeeefffffffff"
)
"""What bitsandbytes 0.50.2 makes of it: `functional.quantize_4bit(…, blocksize=64, quant_type="nf4")`."""


def weight(rows: int = 48, columns: int = 128) -> torch.Tensor:
    """As a trained layer's: normal, and small."""
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(5)) * 0.03


def linear(bias: bool = True) -> nn.Linear:
    layer = nn.Linear(128, 48, bias=bias).requires_grad_(False)
    layer.weight.copy_(weight())
    return layer


def apart(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Length of the difference, relative to what is expected."""
    return float((got - expected).norm() / expected.norm())


# Packing ----------------------------------------------------------------------------------------------------------------


def test_nf4_is_that_of_bitsandbytes() -> None:
    packed, scale = pack(RAMP, "nf4")
    assert bytes(packed.flatten().tolist()).hex() == NF4_OF_RAMP
    assert scale.flatten().tolist() == [1.0, 0.24609375]


def test_int8_rounds_to_a_127th_of_the_rows_largest() -> None:
    packed, scale = pack(weight(), "int8")
    expected = weight().abs().amax(dim=1, keepdim=True) / 127
    assert torch.equal(scale, expected)
    assert (unpack(packed, scale, torch.float32) - weight()).abs().le(expected * 0.5001).all()
    assert packed.abs().amax(dim=1).eq(127).all()


@pytest.mark.parametrize(("packing", "bound"), [("int8", 0.01), ("nf4", 0.1)])
def test_little_is_lost(packing: Packing, bound: float) -> None:
    assert 0 < apart(unpack(*pack(weight(), packing), torch.float32), weight()) < bound


@pytest.mark.parametrize("packing", PACKINGS)
def test_what_was_unpacked_packs_to_the_same(packing: Packing) -> None:
    first = pack(weight(), packing)
    again = pack(unpack(*first, torch.float32), packing)
    assert torch.equal(first[0], again[0])
    torch.testing.assert_close(first[1], again[1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("packing", PACKINGS)
def test_zeros_stay_zeros(packing: Packing) -> None:
    rows = weight()
    rows[3] = 0
    got = unpack(*pack(rows, packing), torch.float32)
    assert got.isfinite().all()
    assert not got[3].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("packing", PACKINGS)
def test_the_type_asked_for_is_rounded_to(packing: Packing, dtype: torch.dtype) -> None:
    packed, scale = pack(weight(), packing)
    got = unpack(packed, scale, dtype)
    assert got.dtype == dtype
    assert apart(got.float(), unpack(packed, scale, torch.float32)) < 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("packing", "bits"), [("int8", 8), ("nf4", 4)])
def test_a_weight_takes_its_bits_and_its_share_of_a_scale(packing: Packing, bits: int, dtype: torch.dtype) -> None:
    rows, columns = 48, 128
    packed, scale = pack(weight(rows, columns).to(dtype), packing)
    assert packed.nbytes == rows * columns * bits / 8
    assert scale.nbytes == 4 * (rows if packing == "int8" else rows * columns / BLOCK)


# The layer --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("packing", PACKINGS)
def test_output_and_gradient_are_those_of_a_plain_layer_with_the_unpacked_weight(packing: Packing, bias: bool) -> None:
    plain = linear(bias)
    layer = QuantisedLinear(plain, packing, CPU)
    x = torch.randn(2, 7, 128, requires_grad=True)
    expected = F.linear(x, layer.weight, plain.bias)
    (wanted,) = torch.autograd.grad(expected.square().sum(), x)
    got = layer(x)
    (gradient,) = torch.autograd.grad(got.square().sum(), x)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(gradient, wanted)
    assert (layer.in_features, layer.out_features) == (128, 48)


@pytest.mark.parametrize("packing", PACKINGS)
def test_between_forward_and_backward_only_packed_weights_are_held(packing: Packing) -> None:
    layer = QuantisedLinear(linear(), packing, CPU)
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor.data_ptr()) or tensor, lambda it: it):  # type: ignore[func-returns-value]
        layer(torch.randn(7, 128, requires_grad=True))
    assert saved
    assert set(saved) <= {layer.packed.data_ptr(), layer.scale.data_ptr()}


@pytest.mark.parametrize("packing", PACKINGS)
def test_it_computes_in_the_type_of_its_input(packing: Packing) -> None:
    layer = QuantisedLinear(linear().bfloat16(), packing, CPU)
    assert layer.weight.dtype == torch.bfloat16
    assert layer(torch.randn(3, 128, dtype=torch.bfloat16)).dtype == torch.bfloat16


# A base -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", PACKINGS)
def test_the_attention_is_packed_and_what_is_touchy_is_not(toy_base: Path, packing: Packing) -> None:
    base = load_base(str(toy_base), CPU, torch.float32, packing)
    for part in base.parts.values():
        for path, layer in part.named_modules():
            if isinstance(layer, nn.Linear):
                inside = ".attentions." in f".{path}" or ".layers." in f".{path}"
                assert isinstance(layer, QuantisedLinear) == inside, path
    assert not any(isinstance(layer, QuantisedLinear) for layer in base.vae.modules())
    assert base.precision == packing
    assert base.unet.dtype == base.te1.dtype == torch.float32


def test_precision_is_told_from_the_model(toy_base: Path) -> None:
    unet = load_base(str(toy_base), CPU, torch.float32).unet
    told = [precision_of(unet.to(dtype)) for dtype in (torch.float32, torch.bfloat16, torch.float16)]
    assert told == ["fp32", "bf16", "fp16"]
    assert [packing_of(precision) for precision in ("auto", *told, "int8", "nf4")] == [None] * 4 + ["int8", "nf4"]


def test_only_packed_weights_reach_the_device(toy_base: Path) -> None:
    unet = load_base(str(toy_base), CPU, torch.float32).unet
    quantise(unet, "nf4", META)
    assert {tensor.device.type for name, tensor in unet.named_buffers() if name.endswith((".packed", ".scale"))} == {"meta"}
    assert {parameter.device.type for parameter in unet.parameters()} == {"cpu"}


def test_sdxls_unet_becomes_small() -> None:
    config = json.loads((shipped("assets", "sdxl") / "unet" / "config.json").read_text(encoding="utf-8"))
    with init_empty_weights():
        unet = UNet2DConditionModel(**{name: value for name, value in config.items() if not name.startswith("_")})
    unet.to(dtype=torch.bfloat16)
    sizes = {}
    for packing in PACKINGS:
        packed = deepcopy(unet)
        quantise(packed, packing, META)
        sizes[packing] = sum(tensor.nbytes for tensor in (*packed.parameters(), *packed.buffers())) / 2**30
    assert sizes == pytest.approx({"int8": 2.75, "nf4": 1.86}, rel=0.02)


def gradients(base: Base) -> dict[str, torch.Tensor]:
    """Of a LoRA on the base, by part, for noise and two prompts that are always the same."""
    adapter = Adapter.inject(base.parts, Shape(4, 4.0), seed=1)
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _, layer in adapter.named():
            layer.up.copy_(torch.randn(layer.up.shape, generator=random) * 0.02)
    text = encode_text(base, ["a red circle on a table", "two trees beside a house"])
    noisy, wanted = (torch.randn(2, 4, 16, 16, generator=random) for _ in range(2))
    told = {"text_embeds": text.pooled, "time_ids": torch.full((2, 6), 128.0)}
    answer = base.unet(noisy.to(base.unet.dtype), torch.tensor([200, 600]), text.context, added_cond_kwargs=told).sample
    F.mse_loss(answer.float(), wanted).backward()
    return {part: torch.cat([matrix.grad.flatten() for matrix in adapter.parameters(part)]) for part in base.parts}  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("packing", "bound"), [("int8", 0.999), ("nf4", 0.97)])
def test_gradients_point_where_those_of_the_full_base_do(packing: Packing, bound: float, dtype: torch.dtype) -> None:
    expected, got = gradients(load_base("starter", CPU, torch.float32)), gradients(load_base("starter", CPU, dtype, packing))
    for part, gradient in expected.items():
        assert bound < float(torch.cosine_similarity(got[part], gradient, dim=0)) < 0.999999, part


@pytest.mark.parametrize("packing", PACKINGS)
def test_nothing_can_be_mixed_into_a_packed_base(toy_base: Path, packing: Packing) -> None:
    base = load_base(str(toy_base), CPU, torch.float32, packing)
    with pytest.raises(BaseModelError, match="cannot be mixed"):
        Canvas(base.parts, base.version)
