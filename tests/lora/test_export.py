"""Exported LoRAs as diffusers and PEFT read them, and as we do; no form loses anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors import safe_open
from torch import nn

from tests.lora.test_layer import answer, apart
from trainer.errors import LoraFileError
from trainer.lora.adapter import Adapter
from trainer.lora.delta import Difference, Dora, Factors
from trainer.lora.export import export
from trainer.lora.file import LoraFile, write
from trainer.lora.keys import COMPONENTS, Component, component_of
from trainer.lora.lineage import model_hash
from trainer.lora.mix import Canvas
from trainer.lora.shape import Shape
from trainer.lora.ways import Only
from trainer.lora.weights import Weighted
from trainer.sdxl.base import Base, load_base

LINEAR = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"

SHAPES = {
    "attention": Shape(4, 2.0),
    "an alpha that is no power of two": Shape(4, 3.0),
    "everything": Shape(4, 3.0, targets="everything", conv_rank=3, block_ranks={"up_blocks.0.attentions.1": 6}),
}


def loaded(folder: Path) -> Base:
    return load_base(str(folder), torch.device("cpu"), torch.float32)


def a_file(base: Base, shape: Shape, path: Path, parts: tuple[Component, ...] = COMPONENTS) -> LoraFile:
    """A LoRA with random layers, as it is written after a training."""
    adapter = Adapter.inject({part: base.parts[part] for part in parts}, shape, seed=1)
    random = torch.Generator().manual_seed(1)
    for _, layer in adapter.named():
        nn.init.normal_(layer.up, std=0.1, generator=random)
    write(path, adapter.factors(), {"modelspec.trigger_phrase": "glassy"})
    adapter.eject()
    return LoraFile.read(path)


def answers(parts: Any) -> torch.Tensor:
    return torch.cat([answer(component, parts[component]) for component in COMPONENTS])


def drawn_by_diffusers(folder: Path, file: Path) -> torch.Tensor:
    """What a pipeline's three models say with the file loaded."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder)
    pipeline.load_lora_weights(file.parent, weight_name=file.name)
    return answers({"unet": pipeline.unet, "te1": pipeline.text_encoder, "te2": pipeline.text_encoder_2})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["an alpha that is no power of two", "everything"])
def test_diffusers_draws_the_same_with_either_form(full_base: Path, tmp_path: Path, kind: str) -> None:
    base = loaded(full_base)
    plain = answers(base.parts)
    lora = a_file(base, SHAPES[kind], tmp_path / "style.safetensors")
    assert export(lora, "diffusers", None, tmp_path / "peft.safetensors") == len(lora.layers)
    Canvas(base.parts, base.version).lay([Weighted(lora, 1.0, 1.0)])
    ours = answers(base.parts)
    assert apart(plain, ours) > 1e-2
    assert apart(drawn_by_diffusers(full_base, tmp_path / "peft.safetensors"), ours) <= 1e-4
    assert apart(drawn_by_diffusers(full_base, tmp_path / "style.safetensors"), ours) <= 1e-4


@pytest.mark.parametrize("part", COMPONENTS)
def test_each_part_alone_is_drawn_by_diffusers(toy_base: Path, tmp_path: Path, part: Component) -> None:
    base = loaded(toy_base)
    plain = answers(base.parts)
    lora = a_file(base, SHAPES["everything"], tmp_path / "style.safetensors", (part,))
    export(lora, "diffusers", None, tmp_path / "peft.safetensors")
    Canvas(base.parts, base.version).lay([Weighted(lora, 1.0, 1.0)])
    assert apart(plain, answers(base.parts)) > 1e-3
    assert apart(drawn_by_diffusers(toy_base, tmp_path / "peft.safetensors"), answers(base.parts)) <= 1e-4


@pytest.mark.parametrize("kind", SHAPES)
def test_there_and_back_nothing_is_lost(toy_base: Path, tmp_path: Path, kind: str) -> None:
    lora = a_file(loaded(toy_base), SHAPES[kind], tmp_path / "style.safetensors")
    export(lora, "diffusers", None, tmp_path / "peft.safetensors")
    there = LoraFile.read(tmp_path / "peft.safetensors")
    assert there.trigger == "glassy"
    assert there.layers.keys() == lora.layers.keys()
    for name, layer in lora.layers.items():
        assert apart(there.layers[name].change(), layer.change()) <= 1e-6
    export(lora, "kohya", None, tmp_path / "again.safetensors")
    assert model_hash(tmp_path / "again.safetensors") == model_hash(tmp_path / "style.safetensors")
    if kind == "attention":  # alpha / rank is a half
        assert {layer.down.dtype for layer in there.layers.values() if isinstance(layer, Factors)} == {torch.float16}
        export(there, "kohya", None, tmp_path / "back.safetensors")
        back = LoraFile.read(tmp_path / "back.safetensors")
        assert max(apart(back.layers[name].change(), layer.change()) for name, layer in lora.layers.items()) <= 1e-6


@pytest.mark.parametrize(("form", "only"), [(form, only) for form in ("kohya", "diffusers") for only in ("unet", "text")])
def test_a_part_can_be_exported(toy_base: Path, tmp_path: Path, form: Any, only: Only) -> None:
    lora = a_file(loaded(toy_base), SHAPES["attention"], tmp_path / "style.safetensors")
    export(lora, form, only, tmp_path / "part.safetensors")
    found = LoraFile.read(tmp_path / "part.safetensors")
    wanted = {name for name in lora.layers if (component_of(name) == "unet") == (only == "unet")}
    assert found.layers.keys() == wanted
    assert max(apart(found.layers[name].change(), lora.layers[name].change()) for name in wanted) <= 1e-6


def test_the_names_are_diffusers(tmp_path: Path) -> None:
    names = [LINEAR, "lora_te1_text_model_encoder_layers_0_mlp_fc1", "lora_te2_text_projection"]
    one = Factors(torch.ones(2, 8).half(), torch.ones(8, 2).half(), 2.0)
    export(LoraFile("style", dict.fromkeys(names, one), {}), "diffusers", None, tmp_path / "peft.safetensors")
    with safe_open(tmp_path / "peft.safetensors", "pt") as file:
        assert set(file.keys()) == {
            f"{module}.lora_{letter}.weight"
            for module in (
                "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
                "text_encoder.text_model.encoder.layers.0.mlp.fc1",
                "text_encoder_2.text_projection",
            )
            for letter in "AB"
        }
        assert file.metadata()["sshs_model_hash"] == model_hash(tmp_path / "peft.safetensors")


def test_alphas_that_differ_become_one(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(1)
    layers = {}
    for name, rank, alpha in ((LINEAR, 4, 1.0), (LINEAR.replace("_q", "_k"), 8, 8.0), (LINEAR.replace("_q", "_v"), 2, 3.0)):
        layers[name] = Factors(torch.randn(rank, 12, generator=random), torch.randn(20, rank, generator=random), alpha)
    export(LoraFile("style", layers, {}), "kohya", None, tmp_path / "out.safetensors")
    found = LoraFile.read(tmp_path / "out.safetensors").layers
    assert len({layer.alpha for layer in found.values() if isinstance(layer, Factors)}) == 1
    for name, layer in layers.items():
        assert apart(found[name].change(), layer.change()) <= 1e-3


def test_a_part_that_is_not_there_is_told(tmp_path: Path) -> None:
    lora = LoraFile("style", {LINEAR: Factors(torch.ones(2, 8), torch.ones(8, 2), 2.0)}, {})
    with pytest.raises(LoraFileError, match=r"^style has no layers of the text encoders to export\.$"):
        export(lora, "kohya", "text", tmp_path / "out.safetensors")
    assert not any(tmp_path.iterdir())


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    lora = LoraFile("style", {LINEAR: Difference(torch.ones(8, 8))}, {})
    with pytest.raises(LoraFileError, match=r"^style holds full layers, .*`impasto resize` makes a plain LoRA of it"):
        export(lora, "diffusers", None, tmp_path / "out.safetensors")
    dora = Dora(Factors(torch.ones(2, 8), torch.ones(8, 2), 2.0), torch.ones(8), "out")
    with pytest.raises(LoraFileError, match=r"^style is a DoRA, .* bake it into a base\.$"):
        export(LoraFile("style", {LINEAR: dora}, {}), "diffusers", None, tmp_path / "out.safetensors")
