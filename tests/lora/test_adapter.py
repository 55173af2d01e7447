"""Which modules are adapted, how they are called in a file, and what an adapter says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load
from torch import nn

from tests.lora.test_keys import GOLDEN, OUTER, locon
from tests.lora.test_layer import answer, apart
from trainer.errors import SettingsError
from trainer.lora.adapter import Adapter, ranks
from trainer.lora.file import LoraFile, serialise, write
from trainer.lora.keys import COMPONENTS
from trainer.lora.shape import Shape
from trainer.sdxl.base import Base, load_base
from trainer.settings import Targets

LAST_OF_TE1 = "lora_te1_text_model_encoder_layers_11_"


@pytest.fixture
def base(toy_base: Path) -> Base:
    return load_base(str(toy_base), torch.device("cpu"), torch.float32)


@pytest.fixture
def adapter(base: Base) -> Adapter:
    """An adapter whose change is not zero."""
    adapter = Adapter.inject(base.parts, Shape(4, 2.0), seed=1)
    for _, layer in adapter.named():
        nn.init.normal_(layer.up)
    return adapter


# Which modules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("targets", "count"), [("attention", 732), ("transformer", 732 + 248), ("everything", 732 + 248 + 66)])
def test_all_that_is_asked_for_is_adapted_but_the_layer_that_sdxl_never_reads(
    full_base: Path, targets: Targets, count: int
) -> None:
    parts = load_base(str(full_base), torch.device("cpu"), torch.float32).parts
    names = {name for name, _ in Adapter.inject(parts, Shape(2, 1.0, targets=targets), seed=1).named()}
    wanted = {
        "attention": {name for name in GOLDEN if "_attn" in name},
        "transformer": GOLDEN.keys(),
        "everything": GOLDEN.keys() | locon().keys() - OUTER,
    }
    assert names == {name for name in wanted[targets] if not name.startswith(LAST_OF_TE1)}
    assert len(names) == count


def test_the_file_has_three_tensors_a_module_with_the_shapes_in_use(full_base: Path) -> None:
    parts = load_base(str(full_base), torch.device("cpu"), torch.float32).parts
    adapter = Adapter.inject(parts, Shape(2, 1.0, targets="everything", conv_rank=3), seed=1)
    layers = dict(adapter.named())
    tensors = load(serialise(adapter.factors(), {}))
    assert len(tensors) == 3 * len(layers)
    for name, layer in layers.items():
        out, inward, *window = layer.base.weight.shape
        rank = 3 if window == [3, 3] else 2
        assert tensors[f"{name}.lora_down.weight"].shape == (rank, inward, *window)
        assert tensors[f"{name}.lora_up.weight"].shape == (out, rank, *(1 for _ in window))
        assert tensors[f"{name}.alpha"].shape == ()
        assert tensors[f"{name}.alpha"].item() == 1.0


@pytest.mark.parametrize(("targets", "each"), [("attention", 4), ("everything", 6)])
def test_of_the_text_encoders_only_the_last_layer_of_the_first_is_left_alone(base: Base, targets: Targets, each: int) -> None:
    shape = Shape(4, 2.0, targets=targets)
    first, second = ranks("te1", base.te1, shape), ranks("te2", base.te2, shape)
    assert len(first) == each * (3 - 1)
    assert not any(".layers.2." in f".{path}" for path in first)
    assert sum(".layers.1." in f".{path}" for path in second) == each


def test_a_block_that_the_base_has_not_is_named(base: Base) -> None:
    with pytest.raises(SettingsError, match=r"^This base's U-Net has no block up_blocks\.0\.attentions\.9: correct .*\.$"):
        Adapter.inject(base.parts, Shape(4, 2.0, block_rates={"up_blocks.0.attentions.9": 2}), seed=1)


def test_a_part_with_nothing_to_train_is_named(base: Base) -> None:
    with pytest.raises(SettingsError, match=r"^The settings leave nothing of unet to train: set unet_lr to 0, or change"):
        Adapter.inject(base.parts, Shape(4, 2.0, style_blocks_only=True, block_ranks={"up_blocks": 0}), seed=1)
    kinds = {type(module).__name__ for part in base.parts.values() for module in part.modules()}
    assert "LoraLinear" not in kinds


# What is trained, and what the file holds -------------------------------------------------------------------------------

SHAPES = {
    "rslora": Shape(16, 3.0, rslora=True),
    "style alone": Shape(4, 3.0, style_blocks_only=True, block_ranks={"up_blocks.0.attentions.1": 8}),
    "blocks": Shape(4, 3.0, block_ranks={"down_blocks": 0, "mid_block": 2, "up_blocks.0.attentions.1": 8}),
    "transformer": Shape(4, 3.0, targets="transformer", block_ranks={"up_blocks": 2}),
    "everything": Shape(4, 3.0, rslora=True, targets="everything", conv_rank=2, block_ranks={"down_blocks.1": 8}),
}
"""Ranks are powers of two times the general one, so that nothing is rounded where scales are folded."""


@pytest.mark.parametrize("kind", SHAPES)
def test_diffusers_draws_with_the_file_what_was_trained(base: Base, toy_base: Path, tmp_path: Path, kind: str) -> None:
    adapter = Adapter.inject(base.parts, SHAPES[kind], seed=1)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, layer in adapter.named():
            layer.down.copy_(layer.down.half())
            layer.up.copy_((torch.randn(layer.up.shape, generator=random) * 0.1).half())
    write(tmp_path / "style.safetensors", adapter.factors(), {})
    pipeline = StableDiffusionXLPipeline.from_pretrained(toy_base)
    fresh = answer("unet", pipeline.unet)
    pipeline.load_lora_weights(tmp_path, weight_name="style.safetensors")
    theirs = {"unet": pipeline.unet, "te1": pipeline.text_encoder, "te2": pipeline.text_encoder_2}
    for component, model in base.parts.items():
        assert apart(answer(component, theirs[component]), answer(component, model)) <= 1e-5
    assert apart(answer("unet", base.unet), fresh) > 1e-3


def test_a_file_has_one_alpha_and_the_trained_changes(base: Base, tmp_path: Path) -> None:
    adapter = Adapter.inject(base.parts, SHAPES["everything"], seed=1)
    for _, layer in adapter.named():
        nn.init.normal_(layer.up)
    write(tmp_path / "style.safetensors", adapter.factors(), {})
    found = LoraFile.read(tmp_path / "style.safetensors").factors
    assert {factors.alpha for factors in found.values()} == {6.0}
    assert {factors.rank for factors in found.values()} == {2, 4, 8}
    assert max(apart(found[name].change(), layer.change()) for name, layer in adapter.named()) < 1e-3


def test_an_ordinary_lora_is_written_as_it_is(adapter: Adapter) -> None:
    factors = adapter.factors()
    assert {one.alpha for one in factors.values()} == {2.0}
    for name, layer in adapter.named():
        assert torch.equal(factors[name].down, layer.down)
        assert torch.equal(factors[name].up, layer.up)


def test_text_encoders_alone_leave_the_u_net_as_it_is(base: Base) -> None:
    before = answer("unet", base.unet)
    adapter = Adapter.inject({"te2": base.te2}, Shape(4, 2.0), seed=1)
    for _, layer in adapter.named():
        nn.init.normal_(layer.up)
    assert torch.equal(answer("unet", base.unet), before)
    assert {name.split("_")[1] for name in adapter.factors()} == {"te2"}
    assert adapter.size_of_change("unet") == 0 < adapter.size_of_change("te2")


@pytest.mark.parametrize("targets", ["attention", "everything"])
def test_size_of_change_is_the_norm_of_all_changes(base: Base, targets: Targets) -> None:
    adapter = Adapter.inject(base.parts, Shape(4, 2.0, targets=targets, conv_rank=3), seed=1)
    for _, layer in adapter.named():
        nn.init.normal_(layer.up)
    for component in COMPONENTS:
        changes = [layer.change().double().flatten() for layer in adapter.layers[component].values()]
        assert adapter.size_of_change(component) == pytest.approx(float(torch.cat(changes).norm()), rel=1e-5)


def test_a_part_that_is_not_trained_has_not_changed(base: Base) -> None:
    adapter = Adapter.inject({"unet": base.unet}, Shape(4, 2.0), seed=1)
    assert adapter.size_of_change("te1") == 0
    assert adapter.parameters("te2") == []


def test_state_comes_back(adapter: Adapter, toy_base: Path) -> None:
    state = {name: matrix.detach().clone() for name, matrix in adapter.state().items()}
    again = load_base(str(toy_base), torch.device("cpu"), torch.float32)
    other = Adapter.inject(again.parts, Shape(4, 2.0), seed=2)
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
