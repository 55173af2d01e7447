"""Files of other programs' own writers: what they change is what those programs change. And tensors that make no layer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers
from diffusers.utils import convert_state_dict_to_kohya
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn

from trainer.errors import LoraFileError
from trainer.lora.delta import Dora, Factors
from trainer.lora.file import LoraFile
from trainer.lora.keys import Component, file_name

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
ALL = [*ATTENTION, "proj_in", "net.0.proj", "conv1", "time_emb_proj", "conv_shortcut"]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


@pytest.fixture
def pipe(toy_base: Path) -> Any:
    return StableDiffusionXLPipeline.from_pretrained(toy_base)


def randomised(model: nn.Module) -> None:
    """Give every matrix of the adapter numbers, so that none is zero."""
    random = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if any(part in name for part in ("lora_A", "lora_B", "hada_", "lokr_")):
            parameter.data = torch.randn(parameter.shape, generator=random) * 0.3
        elif "lora_magnitude" in name:
            parameter.data *= 1.5


def changed(component: Component, model: nn.Module) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """PEFT's own change of every weight that it adapts, by our name, with the weight as it was."""
    for path, layer in model.named_modules():
        if hasattr(layer, "merge") and hasattr(layer, "base_layer"):
            before = layer.base_layer.weight.detach().clone()
            layer.merge()
            yield (
                file_name(component, path.removeprefix("base_model.model.")),
                layer.base_layer.weight.detach() - before,
                before,
            )


def same_as(lora: LoraFile, *parts: tuple[Component, nn.Module]) -> LoraFile:
    """Hold a file against PEFT's own changes: all of them, and nothing else."""
    expected = [entry for component, model in parts for entry in changed(component, model)]
    assert {name for name, _, _ in expected} == set(lora.layers)
    assert not lora.unknown
    for name, change, before in expected:
        layer = lora.layers[name]
        assert change.abs().max() > 1e-3
        torch.testing.assert_close(layer.change(before), change, rtol=1e-5, atol=1e-5)
        assert layer.shape == change.shape
    return lora


CONFIGS: dict[str, dict[str, Any]] = {
    "alpha is not the rank": {"r": 4, "lora_alpha": 3},
    "ranks and alphas by layer": {
        "r": 4, "lora_alpha": 3, "rank_pattern": {"to_q": 2, "mid_block.attentions.0.proj_in": 5},
        "alpha_pattern": {"to_q": 7, "conv1": 1.5},
    },
    "rsLoRA": {"r": 4, "lora_alpha": 3, "use_rslora": True},
    "DoRA": {"r": 4, "lora_alpha": 3, "use_dora": True},
}  # fmt: skip


@pytest.mark.parametrize("what", CONFIGS)
def test_a_file_of_diffusers_with_its_settings_is_read_as_peft_reckons(pipe: Any, tmp_path: Path, what: str) -> None:
    pipe.unet.add_adapter(LoraConfig(target_modules=ALL, **CONFIGS[what]))
    text = {key: value for key, value in CONFIGS[what].items() if not key.endswith("_pattern")}
    for encoder in (pipe.text_encoder, pipe.text_encoder_2):
        encoder.add_adapter(LoraConfig(target_modules=TEXT, **{**text, "lora_alpha": 5}))
    models: dict[Component, Any] = {"unet": pipe.unet, "te1": pipe.text_encoder, "te2": pipe.text_encoder_2}
    for model in models.values():
        randomised(model)
    names = {"unet": "unet", "te1": "text_encoder", "te2": "text_encoder_2"}
    layers = {f"{names[part]}_lora_layers": get_peft_model_state_dict(model) for part, model in models.items()}
    texts = {f"{names[part]}_lora_adapter_metadata": model.peft_config["default"].to_dict() for part, model in models.items()}
    pipe.save_lora_weights(tmp_path, weight_name="a.safetensors", **layers, **texts)
    lora = same_as(LoraFile.read(tmp_path / "a.safetensors"), *models.items())
    assert {type(layer) for layer in lora.layers.values()} == {Dora if what == "DoRA" else Factors}


def test_a_file_of_diffusers_without_settings_has_the_ranks_for_alphas(pipe: Any, tmp_path: Path) -> None:
    pipe.unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=ALL))
    randomised(pipe.unet)
    pipe.save_lora_weights(tmp_path, unet_lora_layers=get_peft_model_state_dict(pipe.unet), weight_name="a.safetensors")
    same_as(LoraFile.read(tmp_path / "a.safetensors"), ("unet", pipe.unet))


def kohyas(pipe: Any, targets: list[str]) -> dict[str, torch.Tensor]:
    """diffusers' own conversion of an adapter to kohya's form, with diffusers' block names."""
    pipe.unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=targets))
    randomised(pipe.unet)
    state = {f"unet.{key}": tensor for key, tensor in get_peft_model_state_dict(pipe.unet).items()}
    return {key: tensor.contiguous() for key, tensor in convert_state_dict_to_kohya(state).items()}


def test_a_file_with_diffusers_block_names_is_read(pipe: Any, tmp_path: Path) -> None:
    tensors = kohyas(pipe, ALL)
    assert any(key.startswith("lora_unet_down_blocks_1_attentions_0") for key in tensors)
    save_file(tensors, tmp_path / "a.safetensors")
    same_as(LoraFile.read(tmp_path / "a.safetensors"), ("unet", pipe.unet))


def test_a_file_of_old_diffusers_is_read(pipe: Any, tmp_path: Path) -> None:
    old, _ = _convert_non_diffusers_lora_to_diffusers(kohyas(pipe, ATTENTION))
    assert any(key.endswith("attn1.processor.to_out_lora.down.weight") for key in old)
    save_file(old, tmp_path / "a.safetensors")
    same_as(LoraFile.read(tmp_path / "a.safetensors"), ("unet", pipe.unet))


KINDS = {
    "LoRA": LoraConfig(
        r=4,
        lora_alpha=3,
        target_modules=ALL,
        alpha_pattern={"^mid_block.attentions.0.proj_in": 9, r"resnets\.0\.conv1$": 2, "to_q": 7},
    ),
    "DoRA": LoraConfig(r=4, lora_alpha=3, target_modules=ALL, use_dora=True),
    "LoHa": LoHaConfig(r=4, alpha=3, target_modules=ALL),
    "LoHa in convolutions": LoHaConfig(r=4, alpha=3, target_modules=["conv1"], use_effective_conv2d=True),
    "LoKr": LoKrConfig(r=4, alpha=3, target_modules=ALL),
    "LoKr in two": LoKrConfig(r=1, alpha=3, target_modules=ALL, decompose_both=True),
    "LoKr in convolutions": LoKrConfig(r=1, alpha=3, target_modules=["conv1"], use_effective_conv2d=True),
}


@pytest.mark.parametrize("what", KINDS)
def test_a_folder_of_pefts_is_read_with_the_settings_beside_it(pipe: Any, tmp_path: Path, what: str) -> None:
    model = get_peft_model(pipe.unet, KINDS[what])
    randomised(model)
    model.save_pretrained(tmp_path)
    same_as(LoraFile.read(tmp_path / "adapter_model.safetensors"), ("unet", model))


@pytest.mark.parametrize("text", ["[1", "7", "[]" * 3], ids=["cut off", "number", "lists"])
def test_settings_that_are_damaged_are_told_of(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.safetensors"
    key = "unet.down_blocks.1.attentions.0.proj_in.lora_"
    tensors = {f"{key}A.weight": torch.ones(2, 6), f"{key}B.weight": torch.ones(6, 2)}
    save_file(tensors, path, {"lora_adapter_metadata": text})
    with pytest.raises(LoraFileError, match=r"^The settings that tell the scales in a\.safetensors are damaged"):
        LoraFile.read(path)


def patterned(path: Path, pattern: object, alpha: object = "x") -> LoraFile:
    """A file whose settings are these."""
    key = "unet.down_blocks.1.attentions.0.proj_in.lora_"
    tensors = {f"{key}A.weight": torch.ones(2, 6), f"{key}B.weight": torch.ones(6, 2)}
    settings = {"unet.lora_alpha": alpha, "unet.r": 2, "unet.alpha_pattern": pattern}
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(settings)})
    return LoraFile.read(path)


@pytest.mark.parametrize("pattern", [None, ["proj_in"], "proj_in", {"proj_in": "x"}], ids=str)
def test_settings_without_sense_leave_the_rank_for_alpha(tmp_path: Path, pattern: object) -> None:
    (layer,) = patterned(tmp_path / "a.safetensors", pattern).factors.values()
    assert layer.alpha == 2


def test_the_beginning_of_a_path_is_not_its_end(tmp_path: Path) -> None:
    """As PEFT has it: behind ^ stands the whole path."""
    for pattern, alpha in (("proj_in", 3), ("^proj_in", 4), ("^down_blocks.1.attentions.0.proj_in", 3), ("0.proj_in$", 3)):
        (layer,) = patterned(tmp_path / "a.safetensors", {pattern: 3}, alpha=4).factors.values()
        assert layer.alpha == alpha, pattern


def test_alphas_by_an_expression_are_refused_rather_than_guessed(tmp_path: Path) -> None:
    with pytest.raises(LoraFileError, match=r"cannot be used: it tells alphas by a pattern that is not read .*\(\.\*proj\)\.$"):
        patterned(tmp_path / "a.safetensors", {".*proj": 3}, alpha=4)


# Tensors that make no layer ---------------------------------------------------------------------------------------------

LINEAR = "lora_unet_input_blocks_4_1_proj_in"
CONV = "lora_unet_input_blocks_4_0_in_layers_2"
WHOLE: dict[str, tuple[int, ...]] = {
    f"hada_w{one}_{side}": (4, 2) if side == "a" else (2, 5) for one in (1, 2) for side in "ab"
}
LOW: dict[str, tuple[int, ...]] = {"lora_down.weight": (2, 4), "lora_up.weight": (5, 2)}
MISFITS: dict[str, tuple[str, dict[str, tuple[int, ...]], str]] = {
    "LoHa lacks a matrix": (LINEAR, {**WHOLE, "hada_w2_b": ()}, "fit"),
    "LoHa of two sizes": (LINEAR, {**WHOLE, "hada_w2_b": (2, 6)}, "fit"),
    "LoHa of two ranks": (LINEAR, {**WHOLE, "hada_w1_a": (4, 3)}, "fit"),
    "LoHa outside its window": (CONV, WHOLE, "fit"),
    "LoHa with a flat core": (LINEAR, {**WHOLE, "hada_t1": (2, 2)}, "fit"),
    "LoKr lacks half": (LINEAR, {"lokr_w1": (2, 2)}, "lacks"),
    "LoKr lacks a factor": (LINEAR, {"lokr_w1": (2, 2), "lokr_w2_a": (2, 2)}, "lacks"),
    "LoKr of no size": (LINEAR, {"lokr_w1": (2, 0), "lokr_w2": (2, 2)}, "fit"),
    "LoKr of three sides": (LINEAR, {"lokr_w1": (2, 2, 2), "lokr_w2": (2, 2)}, "fit"),
    "LoRA and LoHa": (LINEAR, {**LOW, **WHOLE}, "in several ways (hada, lora)"),
    "LoRA and a difference": (LINEAR, {**LOW, "diff": (5, 4)}, "in several ways (diff, lora)"),
    "tucker of another rank": (CONV, {**LOW, "lora_mid.weight": (3, 2, 3, 3)}, "fit"),
    "tucker in a linear layer": (LINEAR, {**LOW, "lora_mid.weight": (2, 2, 3, 3)}, "fit"),
    "difference of three sides": (LINEAR, {"diff": (4, 4, 4)}, "fit"),
    "difference outside its window": (CONV, {"diff": (4, 4, 5, 5)}, "fit"),
    "magnitudes of another size": (LINEAR, {**LOW, "dora_scale": (3, 1)}, "magnitudes"),
    "magnitudes for each number": (LINEAR, {**LOW, "dora_scale": (5, 4)}, "magnitudes"),
    "scalar for a matrix": (LINEAR, {**LOW, "lora_down.weight": ()}, "fit"),
}  # fmt: skip


@pytest.mark.parametrize("what", MISFITS)
def test_tensors_that_make_no_layer_are_told_of(tmp_path: Path, what: str) -> None:
    name, shapes, word = MISFITS[what]
    save_file({f"{name}.{part}": torch.ones(shape) for part, shape in shapes.items()}, tmp_path / "a.safetensors")
    with pytest.raises(LoraFileError, match=rf"^a\.safetensors cannot be used: .*{name}.*\.$") as caught:
        LoraFile.read(tmp_path / "a.safetensors")
    assert word in str(caught.value)
