"""Our layer against PEFT's, and the promise that `eject` undoes `inject`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import nn

from trainer.lora.adapter import targets
from trainer.lora.keys import COMPONENTS, Component
from trainer.lora.layer import LoraLinear, eject, inject
from trainer.sdxl.base import load_base

RANK, ALPHA = 4, 3.0
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


def with_peft(model: nn.Module, paths: list[str]) -> dict[str, Any]:
    """PEFT's layers in the same places; returns them by path."""
    model.requires_grad_(False)
    peft.inject_adapter_in_model(peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=paths), model)
    return {path: model.get_submodule(path) for path in paths}


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


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("component", COMPONENTS)
def test_output_and_gradients_are_pefts(toy_base: Path, component: Component, dtype: torch.dtype, checkpointing: bool) -> None:
    ours, theirs = part(toy_base, component, dtype), part(toy_base, component, dtype)
    paths = targets(component, ours)
    layers, peers = inject(ours, paths, RANK, ALPHA, seed=1), with_peft(theirs, paths)
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
    layers = inject(model, targets(component, model), RANK, ALPHA, seed=1)
    checkpointed(component, model)
    calls: list[int] = []
    next(iter(layers.values())).register_forward_hook(lambda *_: calls.append(1))
    answer(component, model).square().sum().backward()
    assert len(calls) == 2


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_fresh_layer_changes_no_bit(toy_base: Path, component: Component) -> None:
    model = part(toy_base, component)
    before = answer(component, model)
    inject(model, targets(component, model), RANK, ALPHA, seed=1)
    assert torch.equal(answer(component, model), before)


@pytest.mark.parametrize("component", COMPONENTS)
def test_eject_puts_the_very_same_layers_back(toy_base: Path, component: Component) -> None:
    model = part(toy_base, component)
    before, modules = answer(component, model), dict(model.named_modules())
    layers = inject(model, targets(component, model), RANK, ALPHA, seed=1)
    for layer in layers.values():
        nn.init.normal_(layer.up)
    assert not torch.equal(answer(component, model), before)
    eject(model, layers)
    after = dict(model.named_modules())
    assert after.keys() == modules.keys()
    assert all(after[path] is modules[path] for path in modules)
    assert torch.equal(answer(component, model), before)


def tiny_model() -> nn.Module:
    """Two linear layers and something else."""
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))


def test_the_same_seed_begins_alike_and_another_does_not() -> None:
    one, same, other = (inject(tiny_model(), ["0"], 2, 2.0, seed)["0"].down for seed in (7, 7, 8))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_where_a_layer_begins_does_not_depend_on_the_others() -> None:
    alone = inject(tiny_model(), ["2"], 2, 2.0, seed=7)["2"].down
    both = inject(tiny_model(), ["0", "2"], 2, 2.0, seed=7)["2"].down
    assert torch.equal(alone, both)


def test_only_the_lora_is_trained() -> None:
    model = tiny_model()
    layers = inject(model, ["0", "2"], 2, 2.0, seed=7)
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert trained == {id(matrix) for layer in layers.values() for matrix in (layer.down, layer.up)}


def test_change_is_what_the_layer_adds() -> None:
    base = nn.Linear(6, 5)
    layer = LoraLinear(base, rank=2, alpha=3.0, generator=torch.Generator().manual_seed(1))
    nn.init.normal_(layer.up)
    x = torch.randn(7, 6)
    torch.testing.assert_close(layer(x), x @ (base.weight + layer.change()).T + base.bias)


def test_the_input_keeps_its_type() -> None:
    layer = inject(tiny_model().bfloat16(), ["0"], 2, 2.0, seed=7)["0"]
    assert layer.down.dtype == torch.float32
    assert layer(torch.randn(3, 6, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_only_linear_layers_are_taken() -> None:
    with pytest.raises(TypeError, match="1 is a ReLU"):
        inject(tiny_model(), ["1"], 2, 2.0, seed=7)
