"""Module path <-> name in the file. The file's names are kohya's, with SGM block names: the only form that every tool reads.

    unet  down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0
          lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_out_0
    te1   encoder.layers.0.self_attn.q_proj  (or with `text_model.` in front, as older transformers have it)
          lora_te1_text_model_encoder_layers_0_self_attn_q_proj

Knows names only: no tensors, no files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

Component = Literal["unet", "te1", "te2"]
COMPONENTS: tuple[Component, ...] = ("unet", "te1", "te2")

_BLOCKS = {
    **{f"down_blocks.{i}.attentions.{j}": f"input_blocks_{1 + 3 * i + j}_1" for i in range(3) for j in range(2)},
    "mid_block.attentions.0": "middle_block_1",
    **{f"up_blocks.{i}.attentions.{j}": f"output_blocks_{3 * i + j}_1" for i in range(3) for j in range(3)},
}
"""diffusers' name of an SDXL block -> SGM's, as the field's converters number them."""

_ATTENTION = {
    "unet": re.compile(r"\.attn[12]\.(to_q|to_k|to_v|to_out\.0)$"),
    "te1": re.compile(r"\.self_attn\.(q_proj|k_proj|v_proj|out_proj)$"),
    "te2": re.compile(r"\.self_attn\.(q_proj|k_proj|v_proj|out_proj)$"),
}


def is_attention(component: Component, path: str) -> bool:
    """Whether the module is one of an attention's four projections."""
    return _ATTENTION[component].search(path) is not None


def file_name(component: Component, path: str) -> str:
    """The name in the file, without `.lora_down.weight` and its like. Raises `ValueError` for a block SDXL has not."""
    if component != "unet":
        return f"lora_{component}_text_model_{path.removeprefix('text_model.').replace('.', '_')}"
    for ours, theirs in _BLOCKS.items():
        if path.startswith(f"{ours}."):
            return f"lora_unet_{theirs}_{path[len(ours) + 1 :].replace('.', '_')}"
    raise ValueError(f"no SDXL block has a module {path}")


def table(component: Component, paths: Iterable[str]) -> dict[str, str]:
    """Name in the file -> module path, for the attention projections among a model's `paths`."""
    return {file_name(component, path): path for path in paths if is_attention(component, path)}


def component_of(name: str) -> Component | None:
    """Which part of the base a name in a file speaks of."""
    return next((part for part in COMPONENTS if name.startswith(f"lora_{part}_")), None)
