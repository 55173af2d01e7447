"""The changes that files tell, against LyCORIS' own modules, which write the files and change weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lycoris.modules.full import FullModule
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from safetensors.torch import save_file
from torch import nn

from trainer.lora.delta import Dora, Factors, Layer
from trainer.lora.file import LoraFile

LINEAR = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
CONV = "lora_unet_input_blocks_4_0_in_layers_2"
POINT = "lora_unet_input_blocks_4_0_skip_connection"
PLACES: dict[str, Callable[[], nn.Module]] = {
    LINEAR: lambda: nn.Linear(64, 48),
    CONV: lambda: nn.Conv2d(64, 48, 3),
    POINT: lambda: nn.Conv2d(64, 48, 1),
}


def peer_of(kind: Any, name: str, **how: Any) -> Any:
    """One of LyCORIS' modules beside a fresh layer, none of its tensors zero."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        peer = kind(name, PLACES[name](), 1.0, 3, 1.5, **how)
        for tensor in peer.parameters():
            torch.nn.init.normal_(tensor, std=0.3)
    return peer


def read(path: Path, name: str, tensors: dict[str, torch.Tensor], kind: torch.dtype | None = None) -> Layer:
    """The one layer of a file of these tensors."""
    save_file({f"{name}.{part}": tensor.detach().to(kind).contiguous() for part, tensor in tensors.items()}, path)
    return LoraFile.read(path).layers[name]


LYCORIS: dict[str, tuple[type[nn.Module], dict[str, Any], str]] = {
    "LoRA": (LoConModule, {}, ""),
    "tucker": (LoConModule, {"use_tucker": True}, ""),
    "LoHa": (LohaModule, {}, "loha"),
    "LoHa tucker": (LohaModule, {"use_tucker": True}, "loha"),
    "LoHa rsLoRA": (LohaModule, {"rs_lora": True}, "loha"),
    "LoKr": (LokrModule, {"factor": 2}, "lokr"),
    "LoKr both": (LokrModule, {"factor": -1, "decompose_both": True}, "lokr"),
    "LoKr tucker": (LokrModule, {"factor": 2, "use_tucker": True}, "lokr"),
    "LoKr whole": (LokrModule, {"factor": 2, "full_matrix": True}, "lokr"),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("what", LYCORIS)
def test_a_change_is_lycoris_own(tmp_path: Path, what: str, name: str) -> None:
    kind, how, called = LYCORIS[what]
    peer = peer_of(kind, name, **how)
    layer = read(tmp_path / "a.safetensors", name, peer.custom_state_dict())
    weight = peer.org_module[0].weight.detach()
    # Of LoHa and LoKr, `get_diff_weight` multiplies by the scale twice: what a layer of theirs computes is `get_weight`.
    expected = peer.get_diff_weight()[0] if kind is LoConModule else peer.get_weight(peer.shape)
    torch.testing.assert_close(layer.change(), expected.detach().view(weight.shape), rtol=1e-5, atol=1e-5)
    assert layer.shape == weight.shape
    assert layer.size() == pytest.approx(float(layer.change().double().norm()), rel=1e-5)
    assert layer.kind == (called or ("lora" if name == LINEAR else "locon"))
    assert layer.rank == (0 if what == "LoKr whole" else 3)


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("on_output", [True, False], ids=["out", "in"])
@pytest.mark.parametrize("kind", [LoConModule, LohaModule, LokrModule])
def test_a_dora_is_lycoris_own(tmp_path: Path, kind: type[nn.Module], on_output: bool, name: str) -> None:
    peer = peer_of(kind, name, weight_decompose=True, wd_on_out=on_output)
    weight = peer.org_module[0].weight.detach()
    layer = read(tmp_path / "a.safetensors", name, peer.custom_state_dict())
    assert isinstance(layer, Dora)
    assert layer.along == ("out" if on_output else "in")
    inner = peer.make_weight() * peer.scale if kind is LoConModule else peer.get_weight(peer.shape)
    expected = peer.apply_weight_decompose(weight + inner.detach()).detach() - weight
    torch.testing.assert_close(layer.change(weight), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.change(weight.half()), layer.change(weight.half().float()), rtol=0, atol=0)
    assert layer.shape == weight.shape
    with pytest.raises(ValueError, match="depends on the base's weight"):
        layer.change()


def test_the_axis_of_a_square_weights_magnitudes_is_told_by_their_shape(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    weight, down, up = (torch.randn(shape, generator=random) for shape in ((6, 6), (2, 6), (6, 2)))
    scale = torch.rand(6, generator=random) + 0.5
    for shape, dim in (((6, 1), 1), ((1, 6), 0)):
        tensors = {"lora_down.weight": down, "lora_up.weight": up, "dora_scale": scale.view(shape)}
        changed = weight + up @ down
        expected = scale.view(shape) * changed / changed.norm(dim=dim, keepdim=True) - weight
        torch.testing.assert_close(read(tmp_path / "a.safetensors", LINEAR, tensors).change(weight), expected)


@pytest.mark.parametrize("name", PLACES)
def test_a_whole_difference_is_lycoris_own_and_its_bias_is_left_aside(tmp_path: Path, name: str) -> None:
    peer = FullModule(name, PLACES[name]())
    peer.apply_to()
    torch.nn.init.normal_(peer.weight)
    tensors = peer.custom_state_dict()
    layer = read(tmp_path / "a.safetensors", name, tensors)
    torch.testing.assert_close(layer.change(), peer.get_diff_weight()[0], rtol=1e-5, atol=1e-5)
    assert (layer.kind, layer.rank) == ("full", 0)
    assert LoraFile.read(tmp_path / "a.safetensors").ignored == {f"{name}.diff_b": "a bias: only weights are mixed"}


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn], ids=str)
def test_every_type_of_numbers_is_read_and_reckoned_in_float32(tmp_path: Path, kind: torch.dtype) -> None:
    peer = peer_of(LoConModule, LINEAR)
    layer = read(tmp_path / "a.safetensors", LINEAR, peer.custom_state_dict(), kind)
    up, down = (matrix.detach().to(kind).float() for matrix in (peer.lora_up.weight, peer.lora_down.weight))
    assert layer.change().dtype == torch.float32
    torch.testing.assert_close(layer.change(), up @ down * 0.5, rtol=1e-5, atol=1e-5)


def test_a_point_convolution_without_its_window_is_read_too(tmp_path: Path) -> None:
    peer = peer_of(LoConModule, POINT)
    tensors = {part: tensor.flatten(1) if tensor.dim() else tensor for part, tensor in peer.custom_state_dict().items()}
    torch.testing.assert_close(read(tmp_path / "a.safetensors", POINT, tensors).change(), peer.get_diff_weight()[0].detach())


def test_a_linear_layer_with_a_point_window_is_read_too(tmp_path: Path) -> None:
    peer = peer_of(LoConModule, LINEAR)
    windows = {part: tensor[..., None, None] if tensor.dim() else tensor for part, tensor in peer.custom_state_dict().items()}
    layer = read(tmp_path / "a.safetensors", LINEAR, windows)
    assert isinstance(layer, Factors)
    torch.testing.assert_close(layer.change(), peer.get_diff_weight()[0].detach())


@pytest.mark.parametrize("kind", [LoConModule, LohaModule, LokrModule])
def test_every_tensor_of_a_layer_moves_to_another_device(tmp_path: Path, kind: type[nn.Module]) -> None:
    tensors = peer_of(kind, CONV, weight_decompose=True, use_tucker=True).custom_state_dict()
    layer = read(tmp_path / "a.safetensors", CONV, tensors).on(torch.device("meta"))
    assert layer.change(torch.empty(48, 64, 3, 3, device="meta")).is_meta
