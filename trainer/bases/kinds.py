"""What a model file is, told from the names and shapes in its header: an SDXL base, or what else, and what to do with that.

Knows no torch and reads no tensor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trainer.tensorfile import TensorInfo

Tensors = Mapping[str, TensorInfo]

_UNET = "model.diffusion_model."
_STEM = f"{_UNET}input_blocks.0.0.weight"
_TE1 = "conditioner.embedders.0.transformer."
_TE2 = "conditioner.embedders.1.model."
_VAE = "first_stage_model."


@dataclass(frozen=True)
class Kind:
    """One kind of file: what it is, and what a person who gave it as a base should do."""

    name: str
    advice: str
    fits: Callable[[Tensors], bool]


def _any(*starts: str) -> Callable[[Tensors], bool]:
    """Whether a name begins with one of `starts`."""
    return lambda tensors: any(name.startswith(starts) for name in tensors)


def _named(pattern: str) -> Callable[[Tensors], bool]:
    """Whether `pattern` is found in a name."""
    found = re.compile(pattern).search
    return lambda tensors: any(found(name) for name in tensors)


def _channels(count: int) -> Callable[[Tensors], bool]:
    """Whether the U-Net's first convolution reads `count` channels."""
    return lambda tensors: _STEM in tensors and tensors[_STEM].shape[1:2] == (count,)


def _without_unet(*starts: str) -> Callable[[Tensors], bool]:
    """Whether a name begins with one of `starts`, and none is of a U-Net."""
    return lambda tensors: _any(*starts)(tensors) and not _any(_UNET)(tensors)


def _is_refiner(tensors: Tensors) -> bool:
    """The refiner has the second text encoder alone, in the first one's place."""
    return _any("conditioner.embedders.0.model.")(tensors) and not _any(_TE2)(tensors)


def _is_sd1(tensors: Tensors) -> bool:
    """SD 1.x has one CLIP in transformers' form, and conditions on its 768 channels; SD 2.x on 1024."""
    conditioned = tensors.get(f"{_UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight")
    return _any("cond_stage_model.transformer.")(tensors) or (conditioned is not None and conditioned.shape[-1:] == (768,))


def _packed(tensors: Tensors) -> bool:
    """Whether weights are kept in 8 bits or fewer."""
    return any(tensor.dtype.startswith(("F8", "F4", "I8", "U8")) and len(tensor.shape) >= 2 for tensor in tensors.values())


_NO_SDXL = "choose SDXL or one of its descendants, the only models that Impasto works on"
_WHOLE = "choose the whole checkpoint, which holds the U-Net, both text encoders and the VAE"
SDXL = Kind("an SDXL base", "", lambda tensors: True)
"""What is left when nothing else fits, see `kind_of`."""

LORA = Kind(
    "a LoRA",
    "choose an SDXL base here, and lay the LoRA on it",
    _named(r"\.(lora_(down|up|A|B)\.|lora\.(down|up)\.|hada_w1_a|lokr_w1|dora_scale|oft_blocks|diff$)|_lora\."),
)

KINDS: tuple[Kind, ...] = (
    LORA,
    Kind(
        "an embedding (textual inversion)",
        "choose an SDXL base here",
        _any("emb_params", "clip_l", "clip_g", "string_to_param"),
    ),
    Kind(
        "a ControlNet",
        "choose an SDXL base here",
        _any("control_model.", "controlnet_", "input_hint_block.", "add_embedding.control", "control_add_embedding."),
    ),
    Kind("a T2I or IP adapter", "choose an SDXL base here", _any("adapter.", "image_proj", "ip_adapter")),
    Kind("a Flux model", _NO_SDXL, _named(r"(^|\.)(double_blocks|single_blocks)\.0\.")),
    Kind("a Stable Diffusion 3 model", _NO_SDXL, _named(r"(^|\.)joint_blocks\.0\.")),
    Kind(
        "a diffusion transformer, not SDXL",
        _NO_SDXL,
        _named(r"^(model\.diffusion_model\.)?(layers|transformer_blocks|blocks)\.0\."),
    ),
    Kind("the SDXL refiner", "it cannot be trained alone: choose the base model that it belongs to", _is_refiner),
    Kind("a Stable Diffusion 1.x model", _NO_SDXL, _is_sd1),
    Kind("a Stable Diffusion 2.x model", _NO_SDXL, _any("cond_stage_model.model.")),
    Kind(
        "an SDXL inpainting model (its U-Net reads 9 channels)", "choose the ordinary model that it was made from", _channels(9)
    ),
    Kind("an instruct-pix2pix model (its U-Net reads 8 channels)", "choose an ordinary SDXL base", _channels(8)),
    Kind("a VAE", _WHOLE, _without_unet("encoder.down", "decoder.up", _VAE)),
    Kind(
        "a text encoder alone",
        _WHOLE,
        _without_unet("text_model.", "transformer.resblocks.", "conditioner.", "encoder.layers."),
    ),
    Kind(
        "one part of a diffusers folder",
        "choose the folder that holds unet, vae and both text encoders",
        _any("down_blocks.", "conv_in.", "mid_block."),
    ),
    Kind("an upscaler", "choose an SDXL base", _any("body.0.", "params_ema", "model.0.weight", "conv_first.")),
)
"""What a file that is no SDXL base can be; the first that fits counts."""

UNKNOWN = Kind("a model that Impasto does not know", _NO_SDXL, lambda tensors: True)
UNET_ALONE = Kind("an SDXL U-Net without its text encoders", _WHOLE, lambda tensors: True)
NO_VAE = Kind("an SDXL checkpoint without its VAE", _WHOLE, lambda tensors: True)
PACKED = Kind(
    "an SDXL checkpoint in 8 bits or fewer", "choose the fp16, bf16 or fp32 one: Impasto makes it smaller by itself", _packed
)


def kind_of(tensors: Tensors) -> Kind:
    """What a file with these tensors is; `SDXL` if it is a base that can be loaded."""
    found = next((kind for kind in KINDS if kind.fits(tensors)), None)
    if found is not None:
        return found
    if f"{_UNET}label_emb.0.0.weight" not in tensors or _STEM not in tensors:
        return UNKNOWN
    if not (_any(_TE1)(tensors) and _any(_TE2)(tensors)):
        return UNET_ALONE
    if not _any(_VAE)(tensors):
        return NO_VAE
    return PACKED if _packed(tensors) else SDXL
