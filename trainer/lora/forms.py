"""The names that other programs give a LoRA's tensors -> ours, the kohya form of `trainer.lora.keys`.

    kohya                   lora_unet_input_blocks_4_1_….lora_down.weight
    kohya, OneTrainer       lora_unet_down_blocks_1_attentions_0_….lora_down.weight
    LyCORIS                 lycoris_down_blocks_1_attentions_0_….hada_w1_a
    diffusers, old          unet.….attn1.processor.to_q_lora.down.weight, text_encoder.….self_attn.to_q_lora.down.weight
    diffusers               unet.….attn1.to_q.lora.down.weight, text_encoder.….q_proj.lora_linear_layer.down.weight
    diffusers with PEFT     unet.….attn1.to_q.lora_A.weight
    PEFT                    base_model.model.….attn1.to_q.lora_A.weight
    ComfyUI                 diffusion_model.input_blocks.4.1.….lora_down.weight, text_encoders.clip_l.transformer.….diff

Text encoder 1 is read with `text_model` in its names and without. Knows names only: no tensors, no files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

from trainer.lora.keys import Component, named

Part = Literal[
    "down", "up", "mid", "alpha", "dora_scale", "magnitude", "diff",
    "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
    "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
]  # fmt: skip
"""What a tensor is of its layer. `magnitude` is PEFT's spelling of DoRA's, which is always along the outputs."""

_PARTS: dict[str, Part] = {
    "lora_down.weight": "down", "lora_up.weight": "up", "lora_mid.weight": "mid",
    "lora_A.weight": "down", "lora_B.weight": "up",
    "lora.down.weight": "down", "lora.up.weight": "up",
    "lora_linear_layer.down.weight": "down", "lora_linear_layer.up.weight": "up",
    "lora_magnitude_vector": "magnitude", "lora_magnitude_vector.weight": "magnitude",
    **{part: part for part in get_args(Part) if part not in ("down", "up", "mid", "magnitude")},
}  # fmt: skip

_IGNORED = {
    "diff_b": "a bias: only weights are mixed",
    "lora_B.bias": "a bias: only weights are mixed",
    "w_norm": "a norm's weight: only linear layers and convolutions are mixed",
    "b_norm": "a norm's bias: only linear layers and convolutions are mixed",
}
_EMBEDDING = "an embedding that was trained beside the LoRA: only its layers are mixed"
_WHICH_ENCODER = "of a text encoder, and does not say of which of SDXL's two"

_OTHER_KINDS = {
    "oft_blocks": "OFT", "oft_diag": "OFT", "oft_R.weight": "OFT", "oft_R": "OFT", "boft_R": "BOFT", "boft_s": "BOFT",
    "on_input": "IA3", "ia3_l": "IA3", "a1.weight": "GLoRA", "b1.weight": "GLoRA", "lambda_layer": "T-LoRA",
    "vera_lambda_b": "VeRA", "vera_lambda_d": "VeRA", "set_weight": "a replacement of weights",
}  # fmt: skip
"""Kinds that are known and not read, by one of their tensors."""

_STARTS: tuple[tuple[str, Component], ...] = (
    ("lora_unet_", "unet"), ("lora_te1_", "te1"), ("lora_te2_", "te2"), ("lycoris_", "unet"),
    ("unet.", "unet"), ("text_encoder.", "te1"), ("text_encoder_2.", "te2"),
    ("diffusion_model.", "unet"),
    ("text_encoders.clip_l.transformer.", "te1"), ("text_encoders.clip_g.transformer.", "te2"),
)  # fmt: skip
"""How a module's name begins, and the part of the base that it speaks of."""

_UNET = ("down_blocks.", "mid_block.", "up_blocks.", "conv_in", "conv_out", "time_embedding.", "add_embedding.")
"""How a U-Net's own paths begin."""

_OLD_TEXT = {f"self_attn.to_{short}": f"self_attn.{short}_proj" for short in ("q", "k", "v", "out")}
"""Old diffusers' name of a text encoder's projection -> the module's."""


class Key(NamedTuple):
    """One tensor: its layer's name in our form, what it is of the layer, and the module's path as the file has it."""

    name: str
    part: Part
    path: str

    @property
    def component(self) -> Component:
        """The part of the base."""
        part: Component = self.name.split("_")[1]  # type: ignore[assignment]
        return part


class Ignored(NamedTuple):
    """A tensor that is known and left aside."""

    reason: str


class Refused(NamedTuple):
    """A tensor of a kind of file that is known and not read."""

    kind: str


@lru_cache(2**16)
def read_key(key: str) -> Key | Ignored | Refused | None:
    """What a tensor of a file is, by its name alone; None if it is nothing that is known."""
    if key.startswith(("bundle_emb.", "emb_params")):
        return Ignored(_EMBEDDING)
    words = key.replace("_lora.", ".lora.").replace(".default", "").split(".")
    for count in (3, 2, 1):
        module, part = ".".join(words[:-count]), ".".join(words[-count:])
        if part in _PARTS:
            return _placed(module, _PARTS[part])
        if part in _IGNORED:
            return Ignored(_IGNORED[part])
        if part in _OTHER_KINDS:
            return Refused(_OTHER_KINDS[part])
    return None


def _placed(module: str, part: Part) -> Key | Ignored | None:
    """The layer of a module that a file names."""
    module = module.replace("base_model.model.", "", 1).replace(".processor.", ".")
    for start, component in (*_STARTS, *((path, "unet") for path in _UNET)):
        if module.startswith(start):
            path = module if start in _UNET else module[len(start) :]
            name = named(component, _modern(component, path).replace(".", "_"))
            return Key(name, part, path) if name else None
    return Ignored(_WHICH_ENCODER) if module.startswith(("text_model.encoder.", "encoder.layers.")) else None


def _modern(component: Component, path: str) -> str:
    """A module's path as it is now called, from what old diffusers called its LoRA."""
    if component == "unet":
        return f"{path}.0" if path.endswith(".to_out") else path
    head, _, tail = path.rpartition("self_attn.")
    return head + _OLD_TEXT.get(f"self_attn.{tail}", f"self_attn.{tail}") if head else path


_FOREIGN: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), what)
    for pattern, what in (
        (r"^lora_te_|down_blocks[._]0[._]attentions|up_blocks[._]3[._]|input_blocks[._][12][._]1[._]|output_blocks[._](9|1\d)[._]",
         "it is a LoRA for Stable Diffusion 1.5 or 2"),
        (r"double_blocks[._]|single_blocks[._]|(^|[._])single_transformer_blocks[._]", "it is a LoRA for Flux"),
        (r"(^|[._])joint_blocks[._]", "it is a LoRA for Stable Diffusion 3"),
        (r"^lora_(prior|te3|transformer)_|^lora_unet_(blocks|layers|transformer_blocks)_|^transformer\.|"
         r"^(diffusion_model|base_model\.model)\.(blocks|layers|transformer_blocks)\.|^(transformer_)?blocks\..*lora_",
         "it is a LoRA for another kind of model, such as Flux or Stable Diffusion 3"),
        (r"^model\.diffusion_model\.|^first_stage_model\.|^conditioner\.|^cond_stage_model\.",
         "it is a whole checkpoint, not a LoRA"),
        (r"^(encoder|decoder)\.(down|up|mid|conv)", "it is a VAE, not a LoRA"),
        (r"^emb_params|^clip_[lg]$|^bundle_emb\.", "it is an embedding (textual inversion), not a LoRA"),
        (r"^control_model\.|^controlnet|^lllite_", "it is a ControlNet, not a LoRA"),
        (r"^(down_blocks|mid_block|up_blocks|conv_in|time_embedding)\..*(weight|bias)$", "it is a U-Net, not a LoRA"),
        (r"^(text_model|encoder)\..*(weight|bias)$", "it is a text encoder, not a LoRA"),
    )
)  # fmt: skip
"""Names that no LoRA for SDXL has, and what a file is that has them."""

_OTHER_BASES = 4
"""So many of them are LoRAs for other bases."""


def other_base(keys: Iterable[str]) -> str | None:
    """What base a LoRA is for, if one of its names says that it is none of SDXL's."""
    first = _first(keys)
    return _FOREIGN[first][1] if first < _OTHER_BASES else None


def what_it_is(keys: Iterable[str]) -> str | None:
    """What a file is of which nothing can be used, as far as its names tell."""
    first = _first(keys)
    return _FOREIGN[first][1] if first < len(_FOREIGN) else None


def _first(keys: Iterable[str]) -> int:
    """The place in the table of the first line that one of the names has; behind its end if none has any."""
    return min(map(_line, keys), default=len(_FOREIGN))


@lru_cache(2**16)
def _line(key: str) -> int:
    """The same of one name."""
    return next((line for line, (pattern, _) in enumerate(_FOREIGN) if pattern.search(key)), len(_FOREIGN))
