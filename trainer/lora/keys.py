"""Module path <-> name in the file. The file's names are kohya's, with SGM block names: the only form that every tool reads.

    unet  down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0
          lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_out_0
          down_blocks.1.resnets.0.conv1
          lora_unet_input_blocks_4_0_in_layers_2
    te1   encoder.layers.0.self_attn.q_proj  (or with `text_model.` in front, as older transformers have it)
          lora_te1_text_model_encoder_layers_0_self_attn_q_proj

Knows names only: no tensors, no files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from trainer.settings import Targets

Component = Literal["unet", "te1", "te2"]
COMPONENTS: tuple[Component, ...] = ("unet", "te1", "te2")

_BLOCKS = {
    **{f"down_blocks.{i}.resnets.{j}": f"input_blocks_{1 + 3 * i + j}_0" for i in range(3) for j in range(2)},
    **{f"down_blocks.{i}.attentions.{j}": f"input_blocks_{1 + 3 * i + j}_1" for i in range(3) for j in range(2)},
    **{f"down_blocks.{i}.downsamplers.0": f"input_blocks_{3 + 3 * i}_0" for i in range(2)},
    "mid_block.resnets.0": "middle_block_0",
    "mid_block.attentions.0": "middle_block_1",
    "mid_block.resnets.1": "middle_block_2",
    **{f"up_blocks.{i}.resnets.{j}": f"output_blocks_{3 * i + j}_0" for i in range(3) for j in range(3)},
    **{f"up_blocks.{i}.attentions.{j}": f"output_blocks_{3 * i + j}_1" for i in range(3) for j in range(3)},
    **{f"up_blocks.{i}.upsamplers.0": f"output_blocks_{2 + 3 * i}_2" for i in range(2)},
}
"""diffusers' name of an SDXL block -> SGM's, as the field's converters number them."""

_LAYERS = {
    "resnets": {
        "conv1": "in_layers_2",
        "time_emb_proj": "emb_layers_1",
        "conv2": "out_layers_3",
        "conv_shortcut": "skip_connection",
    },
    "downsamplers": {"conv": "op"},
}
"""The same for layers of a block, by its kind; the others are called alike."""

_OUTER = {
    "conv_in": "input_blocks_0_0",
    "time_embedding.linear_1": "time_embed_0",
    "time_embedding.linear_2": "time_embed_2",
    "add_embedding.linear_1": "label_emb_0_0",
    "add_embedding.linear_2": "label_emb_0_2",
    "conv_out": "out_2",
}
"""The same for the layers outside the blocks: Impasto trains none of them, other trainers do."""

_FLAT = {ours.replace(".", "_"): (theirs, _LAYERS.get(ours.split(".")[-2], {})) for ours, theirs in _BLOCKS.items()}
_FLAT_OUTER = {ours.replace(".", "_"): theirs for ours, theirs in _OUTER.items()}
_THEIRS = re.compile(rf"({'|'.join(_BLOCKS.values())})_\w|({'|'.join(_OUTER.values())})$")
_OURS = re.compile(rf"({'|'.join(_FLAT)})_(\w+)$")
_ENCODER = re.compile(r"(?:text_model_)?(encoder_layers_\d+_(?:self_attn_(?:q|k|v|out)_proj|mlp_fc[12]))$")

_TEXT: dict[Targets, re.Pattern[str]] = {
    "attention": re.compile(r"\.self_attn\.(q_proj|k_proj|v_proj|out_proj)$"),
    "transformer": re.compile(r"\.mlp\.fc[12]$"),
}
_TAKEN: dict[Component, dict[Targets, re.Pattern[str]]] = {
    "unet": {
        "attention": re.compile(r"\.attn[12]\.(to_q|to_k|to_v|to_out\.0)$"),
        "transformer": re.compile(r"\.ff\.net\.(0\.proj|2)$|\.attentions\.\d+\.proj_(in|out)$"),
        "everything": re.compile(r"\.resnets\.\d+\.(conv1|time_emb_proj|conv2|conv_shortcut)$|\.(down|up)samplers\.0\.conv$"),
    },
    "te1": _TEXT,
    "te2": _TEXT,
}
_SLIDES = re.compile(r"\.resnets\.\d+\.conv[12]$|samplers\.0\.conv$")


def least_targets(component: Component, path: str) -> Targets | None:
    """The narrowest of `Targets` with which a module is adapted; None for what no LoRA adapts."""
    return next((targets for targets, taken in _TAKEN[component].items() if taken.search(path)), None)


def slides(path: str) -> bool:
    """Whether a module that is adapted is a 3 x 3 convolution."""
    return _SLIDES.search(path) is not None


def file_name(component: Component, path: str) -> str:
    """The name in the file, without `.lora_down.weight` and its like. Raises `ValueError` for a module SDXL has not."""
    if name := named(component, path.replace(".", "_")):
        return name
    raise ValueError(f"no SDXL block has a module {path}")


def named(component: Component, flat: str) -> str | None:
    """The name in the file of a module by its path with underscores for dots, in diffusers' spelling or in SGM's.

    None if SDXL has no such block. Whether the block has such a layer, a base alone can tell.
    """
    if component != "unet":
        if found := _ENCODER.match(flat):
            return f"lora_{component}_text_model_{found[1]}"
        return "lora_te2_text_projection" if (component, flat) == ("te2", "text_projection") else None
    if found := _OURS.match(flat):
        block, layers = _FLAT[found[1]]
        return f"lora_unet_{block}_{layers.get(found[2], found[2])}"
    if _THEIRS.match(flat):
        return f"lora_unet_{flat}"
    return f"lora_unet_{_FLAT_OUTER[flat]}" if flat in _FLAT_OUTER else None


def window_of(name: str) -> tuple[int, ...]:
    """The window of a module of that name: (3, 3) or (1, 1) for a convolution, () for a linear layer."""
    if name.endswith("_skip_connection"):
        return (1, 1)
    three = ("_in_layers_2", "_out_layers_3", "_op", "_2_conv", "lora_unet_input_blocks_0_0", "lora_unet_out_2")
    return (3, 3) if name.startswith("lora_unet_") and name.endswith(three) else ()


def table(component: Component, paths: Iterable[str]) -> dict[str, str]:
    """Name in the file -> module path, for the layers among a model's `paths` that a LoRA of any trainer may adapt."""
    return {file_name(component, path): path for path in paths if least_targets(component, path) or _elsewhere(component, path)}


def _elsewhere(component: Component, path: str) -> bool:
    """Whether a module is one that other trainers adapt, and Impasto does not."""
    return path in _OUTER if component == "unet" else (component, path) == ("te2", "text_projection")


def component_of(name: str) -> Component | None:
    """Which part of the base a name in a file speaks of."""
    return next((part for part in COMPONENTS if name.startswith(f"lora_{part}_")), None)
