"""The tensors of a single-file SDXL checkpoint, and the weights of the four models that they hold: one explicit table.

    model.diffusion_model.input_blocks.4.1.proj_in.weight          unet  down_blocks.1.attentions.0.proj_in.weight
    first_stage_model.encoder.mid.attn_1.q.weight                  vae   encoder.mid_block.attentions.0.to_q.weight
    conditioner.embedders.0.transformer.text_model.X               te1   X
    conditioner.embedders.1.model.…resblocks.0.attn.in_proj_weight te2   encoder.layers.0.self_attn.{q,k,v}_proj.weight

The weights are called as diffusers and transformers call them, the text encoders' without the leading `text_model.`, which
comes and goes between versions. Knows names only, no torch: what is done to a tensor on the way is said by `Weight.how`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Part = Literal["unet", "vae", "te1", "te2"]
How = Literal["whole", "first third", "second third", "last third", "transposed", "without its window"]
"""A tensor as it is; a third of its rows (query, key, value in one); its transpose; a 1 × 1 convolution as a matrix."""


@dataclass(frozen=True)
class Weight:
    """A weight of one of the four models, and how it is made from a tensor of the file."""

    part: Part
    name: str
    how: How = "whole"


_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}

_UNET_MODULES = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


def _unet_block(path: str) -> str | None:
    """`input_blocks.4.1` -> `down_blocks.1.attentions.0`, and its like; None for a block that SDXL has not."""
    side, *numbers = path.split(".")
    if side == "middle_block":
        return {"0": "mid_block.resnets.0", "1": "mid_block.attentions.0", "2": "mid_block.resnets.1"}[numbers[0]]
    block, place = int(numbers[0]), int(numbers[1])
    if side == "input_blocks":
        level, number = divmod(block - 1, 3)
        if number == 2:
            return f"down_blocks.{level}.downsamplers.0"
        return f"down_blocks.{level}.{'attentions' if place else 'resnets'}.{number}"
    level, number = divmod(block, 3)
    if place == 0:
        return f"up_blocks.{level}.resnets.{number}"
    return f"up_blocks.{level}.upsamplers.0" if place == 2 else f"up_blocks.{level}.attentions.{number}"


def _unet(name: str) -> tuple[Weight, ...]:
    path, _, kind = name.rpartition(".")
    if path in _UNET_MODULES:
        return (Weight("unet", f"{_UNET_MODULES[path]}.{kind}"),)
    found = re.fullmatch(r"(middle_block\.[012]|(?:input|output)_blocks\.\d+\.[012])\.(.+)", path)
    if found is None:
        return ()
    block, inner = _unet_block(found[1]), found[2]
    inner = "conv" if inner == "op" else _RESNET.get(inner, inner)
    return (Weight("unet", f"{block}.{inner}.{kind}"),)


_VAE_MODULES = {"norm_out": "conv_norm_out", "nin_shortcut": "conv_shortcut"}
_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_VAE_LEVELS = 4


def _vae(name: str) -> tuple[Weight, ...]:
    path, _, kind = name.rpartition(".")
    attention = re.fullmatch(rf"(encoder|decoder)\.mid\.attn_1\.({'|'.join(_VAE_ATTENTION)})", path)
    if attention:
        how: How = "whole" if attention[2] == "norm" or kind == "bias" else "without its window"
        return (Weight("vae", f"{attention[1]}.mid_block.attentions.0.{_VAE_ATTENTION[attention[2]]}.{kind}", how),)
    path = re.sub(r"^(encoder|decoder)\.mid\.block_([12])", lambda m: f"{m[1]}.mid_block.resnets.{int(m[2]) - 1}", path)
    path = re.sub(r"^encoder\.down\.(\d)\.(block|downsample)", r"encoder.down_blocks.\1.\2", path)
    path = re.sub(r"^decoder\.up\.(\d)", lambda m: f"decoder.up_blocks.{_VAE_LEVELS - 1 - int(m[1])}", path)
    path = path.replace(".block.", ".resnets.")
    path = path.replace(".downsample.", ".downsamplers.0.").replace(".upsample.", ".upsamplers.0.")
    *before, last = path.split(".")
    return (Weight("vae", ".".join([*before, _VAE_MODULES.get(last, last), kind])),)


def _te1(name: str) -> tuple[Weight, ...]:
    name = name.removeprefix("text_model.")
    return () if name.endswith("position_ids") else (Weight("te1", name),)


_TE2 = {
    "token_embedding.weight": Weight("te2", "embeddings.token_embedding.weight"),
    "positional_embedding": Weight("te2", "embeddings.position_embedding.weight"),
    "ln_final.weight": Weight("te2", "final_layer_norm.weight"),
    "ln_final.bias": Weight("te2", "final_layer_norm.bias"),
    "text_projection": Weight("te2", "text_projection.weight", "transposed"),
}
_TE2_LAYER = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_THIRDS: tuple[tuple[str, How], ...] = (("q", "first third"), ("k", "second third"), ("v", "last third"))


def _te2(name: str) -> tuple[Weight, ...]:
    if name in _TE2:
        return (_TE2[name],)
    found = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)", name)
    if found is None:
        return ()
    layer, inner, kind = f"encoder.layers.{found[1]}", found[2], found[3]
    if inner == "attn.in_proj":
        return tuple(Weight("te2", f"{layer}.self_attn.{letter}_proj.{kind}", third) for letter, third in _THIRDS)
    return (Weight("te2", f"{layer}.{_TE2_LAYER[inner]}.{kind}"),) if inner in _TE2_LAYER else ()


_READERS = {
    "model.diffusion_model.": _unet,
    "first_stage_model.": _vae,
    "conditioner.embedders.0.transformer.": _te1,
    "conditioner.embedders.1.model.": _te2,
}


def weights_of(tensor: str) -> tuple[Weight, ...]:
    """The weights that a tensor of a single-file checkpoint holds; none for `logit_scale`, `position_ids` and strangers."""
    for start, read in _READERS.items():
        if tensor.startswith(start):
            return read(tensor[len(start) :])
    return ()
