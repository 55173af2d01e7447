"""Which modules are adapted, how they are called in a file, and what an adapter says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from torch import nn

from tests.lora.test_keys import GOLDEN
from trainer.lora.adapter import Adapter, targets
from trainer.lora.file import serialise
from trainer.lora.keys import COMPONENTS
from trainer.sdxl.base import Base, load_base

LAST_OF_TE1 = "lora_te1_text_model_encoder_layers_11_"


@pytest.fixture
def base(toy_base: Path) -> Base:
    return load_base(str(toy_base), torch.device("cpu"), torch.float32)


@pytest.fixture
def adapter(base: Base) -> Adapter:
    """An adapter whose change is not zero."""
    adapter = Adapter.inject(base.parts, rank=4, alpha=2.0, seed=1)
    for _, layer in adapter.named():
        nn.init.normal_(layer.up)
    return adapter


def test_every_attention_of_sdxl_is_adapted_but_the_one_it_never_reads(full_base: Path) -> None:
    parts = load_base(str(full_base), torch.device("cpu"), torch.float32).parts
    names = {name for name, _ in Adapter.inject(parts, rank=2, alpha=1.0, seed=1).named()}
    assert names == {name for name in GOLDEN if not name.startswith(LAST_OF_TE1)}
    assert len(names) == 560 + 44 + 128


def test_the_file_has_three_tensors_a_module_with_the_shapes_in_use(full_base: Path) -> None:
    parts = load_base(str(full_base), torch.device("cpu"), torch.float32).parts
    adapter = Adapter.inject(parts, rank=2, alpha=1.0, seed=1)
    layers = dict(adapter.named())
    tensors = load(serialise(adapter.factors(), {}))
    assert len(tensors) == 3 * len(layers)
    for name, layer in layers.items():
        assert tensors[f"{name}.lora_down.weight"].shape == (2, layer.base.in_features)
        assert tensors[f"{name}.lora_up.weight"].shape == (layer.base.out_features, 2)
        assert tensors[f"{name}.alpha"].shape == ()
        assert tensors[f"{name}.alpha"].item() == 1.0


def test_the_last_layer_of_text_encoder_1_is_left_alone(base: Base) -> None:
    assert len(targets("te1", base.te1)) == 4 * (3 - 1)
    assert not any(".layers.2." in f".{path}" for path in targets("te1", base.te1))


def test_the_last_layer_of_text_encoder_2_is_adapted(base: Base) -> None:
    assert sum(".layers.1." in f".{path}" for path in targets("te2", base.te2)) == 4


def test_size_of_change_is_the_norm_of_all_changes(adapter: Adapter) -> None:
    for component in COMPONENTS:
        changes = [layer.change().double().flatten() for layer in adapter.layers[component].values()]
        assert adapter.size_of_change(component) == pytest.approx(float(torch.cat(changes).norm()), rel=1e-5)


def test_a_part_that_is_not_trained_has_not_changed(base: Base) -> None:
    adapter = Adapter.inject({"unet": base.unet}, rank=4, alpha=2.0, seed=1)
    assert adapter.size_of_change("te1") == 0
    assert adapter.parameters("te2") == []


def test_state_comes_back(adapter: Adapter, toy_base: Path) -> None:
    state = {name: matrix.detach().clone() for name, matrix in adapter.state().items()}
    again = load_base(str(toy_base), torch.device("cpu"), torch.float32)
    other = Adapter.inject(again.parts, rank=4, alpha=2.0, seed=2)
    other.load_state(state)
    assert all(torch.equal(matrix, state[name]) for name, matrix in other.state().items())


def test_a_state_that_lacks_a_matrix_is_refused(adapter: Adapter) -> None:
    state = dict(adapter.state())
    name, _ = state.popitem()
    with pytest.raises(KeyError, match=name):
        adapter.load_state(state)


def test_eject_leaves_no_layer_behind(adapter: Adapter, base: Base) -> None:
    adapter.eject()
    kinds = {type(module).__name__ for part in base.parts.values() for module in part.modules()}
    assert "LoraLinear" not in kinds
