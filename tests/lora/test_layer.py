"""Our layers against PEFT's and LyCORIS', and the promise that `eject` undoes `inject`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from lycoris.modules.locon import LoConModule
from torch import nn

from trainer.lora.adapter import ranks
from trainer.lora.keys import COMPONENTS, Component
from trainer.lora.layer import LoraConv, LoraLayer, LoraLinear, eject, inject
from trainer.lora.shape import Shape
from trainer.sdxl.base import load_base

SHAPES = {
    "plain": Shape(4, 3.0),
    "rslora": Shape(4, 3.0, rslora=True),
    "transformer": Shape(4, 3.0, targets="transformer", block_ranks={"mid_block": 2, "up_blocks.0.attentions.1": 6}),
    "everything": Shape(4, 3.0, rslora=True, targets="everything", conv_rank=3, block_ranks={"down_blocks.1": 2}),
}
PLAIN = SHAPES["plain"]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def part(folder: Path, component: Component, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A fresh copy of one model of the base."""
    return load_base(str(folder), torch.device("cpu"), torch.float32).parts[component].to(dtype)


def answer(component: Component, model: nn.Module) -> torch.Tensor:
    """What the model says to a fixed input, in one tensor."""
    dtype = next(model.parameters()).dtype
    random = torch.Generator().manual_seed(3)
    if component != "unet":
        tokens = torch.randint(0, 4000, (2, 77), generator=random)
        tokens[:, -1] = 4095
        out = model(tokens, output_hidden_states=True)
        last = out.text_embeds if component == "te2" else out.pooler_output
        return torch.cat([out.hidden_states[-2].flatten(), last.flatten()])
    out = model(
        torch.randn(2, 4, 8, 8, generator=random).to(dtype),
        torch.tensor([10, 800]),
        torch.randn(2, 77, 40, generator=random).to(dtype),
        added_cond_kwargs={"text_embeds": torch.randn(2, 24, generator=random).to(dtype), "time_ids": torch.ones(2, 6) * 64},
    )
    made: torch.Tensor = out.sample
    return made.flatten()


def adapted(component: Component, model: nn.Module, shape: Shape = PLAIN) -> dict[str, LoraLayer]:
    """Our layers, fresh."""
    return inject(model, ranks(component, model, shape), shape.scale, seed=1)


def with_peft(model: nn.Module, layers: dict[str, LoraLayer], shape: Shape) -> dict[str, Any]:
    """PEFT's layers in the same places; returns them by path.

    PEFT divides a layer's alpha by its own rank or, with rsLoRA, by its root: the alphas make up for it.
    """
    model.requires_grad_(False)
    others = {path: layer.rank / shape.rank for path, layer in layers.items()}
    config = peft.LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        use_rslora=shape.rslora,
        target_modules=list(layers),
        rank_pattern={path: layer.rank for path, layer in layers.items()},
        alpha_pattern={path: shape.alpha * (share**0.5 if shape.rslora else share) for path, share in others.items()},
    )
    peft.inject_adapter_in_model(config, model)
    return {path: model.get_submodule(path) for path in layers}


def checkpointed(component: Component, model: nn.Module) -> None:
    """Turn gradient checkpointing on, as the training does."""
    if component == "unet":
        model.enable_gradient_checkpointing()  # type: ignore[operator]
    else:
        model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        model.train()


def apart(ours: torch.Tensor | None, theirs: torch.Tensor | None) -> float:
    """Length of the difference, relative to what is expected."""
    assert ours is not None
    assert theirs is not None
    return float((ours.detach() - theirs.detach()).norm() / theirs.detach().norm())


@pytest.mark.parametrize(
    ("dtype", "checkpointing"),
    [(torch.float32, False), (torch.float64, False), (torch.float64, True)],
    ids=["fp32", "fp64", "checkpointed"],
)
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("component", COMPONENTS)
def test_output_and_gradients_are_pefts(
    toy_base: Path, component: Component, kind: str, dtype: torch.dtype, checkpointing: bool
) -> None:
    ours, theirs = part(toy_base, component, dtype), part(toy_base, component, dtype)
    layers = adapted(component, ours, SHAPES[kind])
    peers = with_peft(theirs, layers, SHAPES[kind])
    ours.to(dtype)
    theirs.to(dtype)
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for path, layer in layers.items():
            layer.up.copy_(torch.randn(layer.up.shape, generator=random) * 0.3)
            peers[path].lora_A.default.weight.copy_(layer.down)
            peers[path].lora_B.default.weight.copy_(layer.up)
    if checkpointing:
        checkpointed(component, ours)
    expected, got = answer(component, theirs), answer(component, ours)
    expected.square().sum().backward()
    got.square().sum().backward()
    assert apart(got, expected) <= TOLERANCE[dtype]
    gradients = [
        (mine.grad, peer.grad)
        for path, layer in layers.items()
        for mine, peer in ((layer.down, peers[path].lora_A.default.weight), (layer.up, peers[path].lora_B.default.weight))
    ]
    assert apart(*(torch.cat([one.flatten() for one in side]) for side in zip(*gradients, strict=True))) <= TOLERANCE[dtype]
    assert max(apart(mine, theirs) for mine, theirs in gradients) <= 10 * TOLERANCE[dtype]


@pytest.mark.parametrize("component", COMPONENTS)
def test_gradient_checkpointing_computes_layers_twice(toy_base: Path, component: Component) -> None:
    model = part(toy_base, component)
    layers = adapted(component, model)
    checkpointed(component, model)
    calls: list[int] = []
    next(iter(layers.values())).register_forward_hook(lambda *_: calls.append(1))
    answer(component, model).square().sum().backward()
    assert len(calls) == 2


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_fresh_layer_changes_no_bit(toy_base: Path, component: Component) -> None:
    model = part(toy_base, component)
    before = answer(component, model)
    adapted(component, model, SHAPES["everything"])
    assert torch.equal(answer(component, model), before)


@pytest.mark.parametrize("component", COMPONENTS)
def test_eject_puts_the_very_same_layers_back(toy_base: Path, component: Component) -> None:
    model = part(toy_base, component)
    before, modules = answer(component, model), dict(model.named_modules())
    layers = adapted(component, model)
    for layer in layers.values():
        nn.init.normal_(layer.up)
    assert not torch.equal(answer(component, model), before)
    eject(model, layers)
    after = dict(model.named_modules())
    assert after.keys() == modules.keys()
    assert all(after[path] is modules[path] for path in modules)
    assert torch.equal(answer(component, model), before)


# One layer --------------------------------------------------------------------------------------------------------------


def tiny_model() -> nn.Module:
    """Two linear layers and something else."""
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))


CONVS = {
    "3 x 3": nn.Conv2d(6, 5, 3, padding=1),
    "every other": nn.Conv2d(6, 5, 3, stride=2, padding=1),
    "apart": nn.Conv2d(6, 5, (3, 2), padding=2, dilation=2, bias=False),
    "1 x 1": nn.Conv2d(6, 5, 1),
}


@pytest.mark.parametrize("kind", CONVS)
def test_a_convolution_learns_as_lycoris_do(kind: str) -> None:
    base = CONVS[kind].requires_grad_(False)
    layer = inject(nn.Sequential(base), {"0": 3}, 0.5, seed=7)["0"]
    nn.init.normal_(layer.up)
    peer = LoConModule("", base, lora_dim=3, alpha=1.5)
    peer.lora_down.weight.data.copy_(layer.down)
    peer.lora_up.weight.data.copy_(layer.up)
    answers = []
    x = torch.randn(2, 6, 8, 8)
    for one in (layer, peer):
        seen = x.clone().requires_grad_()
        answers.append((one(seen), seen))
        answers[-1][0].square().sum().backward()
    assert apart(answers[0][0], answers[1][0]) <= 1e-5
    assert apart(answers[0][1].grad, answers[1][1].grad) <= 1e-5
    assert apart(layer.down.grad, peer.lora_down.weight.grad) <= 1e-5
    assert apart(layer.up.grad, peer.lora_up.weight.grad) <= 1e-5
    assert apart(layer.change(), peer.get_diff_weight()[0]) <= 1e-5


@pytest.mark.parametrize("base", [nn.Linear(18, 5), nn.Conv2d(2, 5, 3)], ids=["linear", "convolution"])
def test_a_layer_begins_as_torchs_do(base: nn.Linear | nn.Conv2d) -> None:
    layer = inject(nn.Sequential(base), {"0": 4000}, 1.0, seed=7)["0"]
    wide = nn.Linear(18, 4000) if isinstance(base, nn.Linear) else nn.Conv2d(2, 4000, 3)
    assert layer.down.shape == wide.weight.shape
    assert layer.down.abs().max().item() == pytest.approx(wide.weight.abs().max().item(), rel=1e-2)
    assert layer.down.std().item() == pytest.approx(wide.weight.std().item(), rel=1e-2)


def test_the_same_seed_begins_alike_and_another_does_not() -> None:
    one, same, other = (inject(tiny_model(), {"0": 2}, 1.0, seed)["0"].down for seed in (7, 7, 8))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_where_a_layer_begins_does_not_depend_on_the_others() -> None:
    alone = inject(tiny_model(), {"2": 2}, 1.0, seed=7)["2"].down
    both = inject(tiny_model(), {"0": 3, "2": 2}, 1.0, seed=7)["2"].down
    assert torch.equal(alone, both)


def test_only_the_lora_is_trained() -> None:
    model = tiny_model()
    layers = inject(model, {"0": 2, "2": 2}, 1.0, seed=7)
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert trained == {id(matrix) for layer in layers.values() for matrix in (layer.down, layer.up)}


def test_change_is_what_the_layer_adds() -> None:
    base = nn.Linear(6, 5)
    layer = LoraLinear(base, rank=2, scale=1.5, generator=torch.Generator().manual_seed(1))
    nn.init.normal_(layer.up)
    x = torch.randn(7, 6)
    torch.testing.assert_close(layer(x), x @ (base.weight + layer.change()).T + base.bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_convolution_keeps_type_and_order_of_its_input(dtype: torch.dtype) -> None:
    base = CONVS["every other"].to(dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    layer = LoraConv(base, rank=2, scale=1.5, generator=torch.Generator().manual_seed(1))
    nn.init.normal_(layer.up)
    x = torch.randn(2, 6, 8, 8, dtype=dtype).to(memory_format=torch.channels_last)
    y = layer(x)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    whole = torch.nn.functional.conv2d(x.float(), base.weight.float() + layer.change(), base.bias.float(), 2, 1)
    assert apart(y.float(), whole) <= (1e-5 if dtype == torch.float32 else 2e-2)
    y.float().square().sum().backward()
    assert layer.down.grad is not None
    assert layer.down.grad.dtype == torch.float32
    assert layer.down.grad.stride() == layer.down.stride()


def test_the_input_keeps_its_type() -> None:
    layer = inject(tiny_model().bfloat16(), {"0": 2}, 1.0, seed=7)["0"]
    assert layer.down.dtype == torch.float32
    assert layer(torch.randn(3, 6, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_other_layers_are_not_taken() -> None:
    with pytest.raises(TypeError, match="1 is a ReLU"):
        inject(tiny_model(), {"1": 2}, 1.0, seed=7)
