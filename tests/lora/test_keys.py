"""The names in the file against a list of the names that are in use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.tiny import unet_config
from trainer.lora.keys import Component, component_of, file_name, least_targets, slides, table, window_of

GOLDEN: dict[str, list[int]] = json.loads(
    Path(__file__).parents[1].joinpath("golden", "sdxl_lora_modules.json").read_text(encoding="utf-8")
)
TENSORS: dict[str, list[int]] = json.loads(
    Path(__file__).parents[1].joinpath("golden", "sdxl_checkpoint_tensors.json").read_text(encoding="utf-8")
)


OUTER = {
    "lora_unet_input_blocks_0_0", "lora_unet_out_2", "lora_unet_time_embed_0", "lora_unet_time_embed_2",
    "lora_unet_label_emb_0_0", "lora_unet_label_emb_0_2",
}  # fmt: skip
"""What other trainers adapt outside the U-Net's blocks, and Impasto does not."""


def locon() -> dict[str, list[int]]:
    """The U-Net's weights by the names that a checkpoint gives its layers, with their shapes; without norms."""
    start = "model.diffusion_model."
    found = {key.removeprefix(start).removesuffix(".weight"): shape for key, shape in TENSORS.items() if key.startswith(start)}
    return {f"lora_unet_{path.replace('.', '_')}": shape for path, shape in found.items() if len(shape) > 1}


def sdxl() -> Iterator[tuple[Component, nn.Module]]:
    """The three models at their true size, without memory for their weights."""
    from tests.tiny import FULL

    wide = {
        **unet_config(FULL), "sample_size": 128, "block_out_channels": (320, 640, 1280), "attention_head_dim": [5, 10, 20],
        "norm_num_groups": 32, "cross_attention_dim": 2048, "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }  # fmt: skip
    with torch.device("meta"):
        yield "unet", UNet2DConditionModel(**wide)
        yield "te1", CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12))
        yield (
            "te2",
            CLIPTextModelWithProjection(
                CLIPTextConfig(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20)
            ),
        )


def test_names_and_shapes_are_those_in_use() -> None:
    found: dict[str, list[int]] = {}
    for component, model in sdxl():
        linears = {path: layer for path, layer in model.named_modules() if isinstance(layer, nn.Linear)}
        for name, path in table(component, linears).items():
            if least_targets(component, path) in ("attention", "transformer"):
                found[name] = [linears[path].in_features, linears[path].out_features]
    assert found == GOLDEN


def test_attention_is_what_it_was() -> None:
    projections = ("_to_q", "_to_k", "_to_v", "_to_out_0", "_self_attn_q_proj", "_k_proj", "_v_proj", "_out_proj")
    found = {
        name
        for component, model in sdxl()
        for name, path in table(component, dict(model.named_modules())).items()
        if least_targets(component, path) == "attention"
    }
    assert found == {name for name in GOLDEN if name.endswith(projections)}
    assert len(found) == 560 + 48 + 128


def test_all_of_the_u_net_has_the_names_of_a_checkpoint() -> None:
    _, unet = next(sdxl())
    layers = {path: layer for path, layer in unet.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    found = table("unet", layers)
    assert {name: list(layers[path].weight.shape) for name, path in found.items()} == locon()
    three = {name for name, path in found.items() if slides(path)}
    assert three == {name for name, shape in locon().items() if shape[2:] == [3, 3]} - OUTER
    assert {name for name, path in found.items() if not least_targets("unet", path)} == OUTER
    assert {name: window_of(name) for name in found} == {name: tuple(shape[2:]) for name, shape in locon().items()}


def test_no_name_of_a_linear_layer_is_taken_for_a_convolutions() -> None:
    assert {window_of(name) for name in GOLDEN} == {()}


@pytest.mark.parametrize(
    ("component", "path", "name"),
    [
        ("unet", "down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_out.0",
         "lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_out_0"),
        ("unet", "mid_block.attentions.0.transformer_blocks.9.attn2.to_k",
         "lora_unet_middle_block_1_transformer_blocks_9_attn2_to_k"),
        ("unet", "up_blocks.1.attentions.2.transformer_blocks.0.attn1.to_q",
         "lora_unet_output_blocks_5_1_transformer_blocks_0_attn1_to_q"),
        ("unet", "down_blocks.1.resnets.0.conv1", "lora_unet_input_blocks_4_0_in_layers_2"),
        ("unet", "mid_block.resnets.1.conv2", "lora_unet_middle_block_2_out_layers_3"),
        ("unet", "up_blocks.2.resnets.2.time_emb_proj", "lora_unet_output_blocks_8_0_emb_layers_1"),
        ("unet", "up_blocks.0.resnets.0.conv_shortcut", "lora_unet_output_blocks_0_0_skip_connection"),
        ("unet", "down_blocks.0.downsamplers.0.conv", "lora_unet_input_blocks_3_0_op"),
        ("unet", "up_blocks.0.upsamplers.0.conv", "lora_unet_output_blocks_2_2_conv"),
        ("unet", "up_blocks.0.attentions.1.transformer_blocks.9.ff.net.0.proj",
         "lora_unet_output_blocks_1_1_transformer_blocks_9_ff_net_0_proj"),
        ("te2", "encoder.layers.3.mlp.fc1", "lora_te2_text_model_encoder_layers_3_mlp_fc1"),
        ("te1", "encoder.layers.0.self_attn.q_proj", "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"),
        ("te1", "text_model.encoder.layers.0.self_attn.q_proj", "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"),
        ("te2", "text_model.encoder.layers.31.self_attn.out_proj", "lora_te2_text_model_encoder_layers_31_self_attn_out_proj"),
    ],
)  # fmt: skip
def test_a_path_and_its_name(component: Component, path: str, name: str) -> None:
    assert file_name(component, path) == name
    assert component_of(name) == component


def test_a_block_that_sdxl_has_not_has_no_name() -> None:
    with pytest.raises(ValueError, match=r"down_blocks\.3"):
        file_name("unet", "down_blocks.3.attentions.0.transformer_blocks.0.attn1.to_q")


@pytest.mark.parametrize(
    "path", ["time_embedding.linear_1", "add_embedding.linear_2", "conv_in", "conv_out", "mid_block.attn1.to_qkv", "mid_block"]
)
def test_other_layers_are_not_adapted(path: str) -> None:
    assert least_targets("unet", path) is None


@pytest.mark.parametrize("name", ["lora_te_text_model_encoder_layers_0", "transformer.single_blocks.0", "lora_te3_x", ""])
def test_foreign_names_belong_to_no_part(name: str) -> None:
    assert component_of(name) is None
