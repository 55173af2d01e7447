"""A LoRA in another form, whole or a part of it: for diffusers and PEFT, or in kohya's form, which is also ours.

    kohya       lora_unet_input_blocks_4_1_….lora_down.weight, .lora_up.weight, .alpha
    diffusers   unet.down_blocks.1.attentions.0.….lora_A.weight, .lora_B.weight

The second has no place for alphas that every reader looks at, so a layer's scale is multiplied into `lora_B` and alpha is the
rank. The file is float16 if that holds the products, as it does where alpha / rank is a power of two, else float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from trainer.errors import LoraFileError, storing
from trainer.home import write_blocks
from trainer.lora.delta import Dora, Factors
from trainer.lora.file import LoraFile, lossless, write
from trainer.lora.keys import Component, component_of
from trainer.lora.lowrank import LowRank
from trainer.lora.merge import one_alpha
from trainer.lora.paths import place_of
from trainer.lora.serial import pieces
from trainer.lora.ways import Form, Only

_MODELS: Mapping[Component, str] = {"unet": "unet", "te1": "text_encoder", "te2": "text_encoder_2"}
"""The parts of a base as diffusers calls them."""


def export(lora: LoraFile, form: Form, only: Only | None, path: Path) -> int:
    """Write `lora` in a form, or only its layers of the U-Net or of the text encoders; returns their number.

    Raises `LoraFileError` for a LoRA without such layers or with layers that are no pairs of matrices, `StorageError`.
    """
    layers = _chosen(lora, only)
    texts = {key: text for key, text in lora.metadata.items() if not key.startswith("sshs_") and key != "lora_adapter_metadata"}
    if form == "kohya":
        write(path, kohya(layers), texts)
        return len(layers)
    tensors = diffusers(layers)
    with storing(path):
        write_blocks(path, pieces(tensors, texts))
    return len(layers)


def kohya(layers: Mapping[str, Factors]) -> dict[str, Factors]:
    """The layers with one alpha for each part of the base: as they are where that is so already."""
    alphas = {(component_of(name), layer.alpha) for name, layer in layers.items()}
    if len(alphas) == len({component for component, _ in alphas}):
        return dict(layers)
    return one_alpha({name: LowRank.of(layer) for name, layer in layers.items()})


def diffusers(layers: Mapping[str, Factors]) -> dict[str, torch.Tensor]:
    """The layers as diffusers and PEFT name them, alpha being the rank. Raises `LoraFileError`."""
    tensors: dict[str, torch.Tensor] = {}
    for name, layer in layers.items():
        module = _module(name)
        tensors[f"{module}.lora_A.weight"] = layer.down.detach().cpu().float()
        tensors[f"{module}.lora_B.weight"] = layer.up.detach().cpu().float() * (layer.alpha / layer.rank)
    dtype = lossless(tensors.values())
    return {key: tensor.to(dtype).contiguous() for key, tensor in tensors.items()}


def _chosen(lora: LoraFile, only: Only | None) -> dict[str, Factors]:
    """The layers that are asked for."""
    chosen: dict[str, Factors] = {}
    for name, layer in lora.layers.items():
        if only and (only == "unet") != (component_of(name) == "unet"):
            continue
        if isinstance(layer, Dora):
            raise LoraFileError(
                f"{lora.name} is a DoRA, which changes every base in its own way: no plain LoRA is what it is, and other forms "
                "lose its magnitudes. Keep it as it is, or bake it into a base."
            )
        if not isinstance(layer, Factors):
            raise LoraFileError(
                f"{lora.name} holds {layer.kind} layers, which only LyCORIS' own form can: `impasto resize` makes a plain LoRA "
                "of it, which can be exported."
            )
        chosen[name] = layer
    if not chosen:
        raise LoraFileError(f"{lora.name} has no layers of the {'U-Net' if only == 'unet' else 'text encoders'} to export.")
    return chosen


def _module(name: str) -> str:
    """The module of a layer, from the pipeline on. Text encoder 1 is called as all versions of diffusers read it."""
    place = place_of(name)
    if place is None:
        raise LoraFileError(f"SDXL has no layer {name}: it cannot be exported.")
    component, path = place
    inner = "text_model." if component != "unet" and path.startswith("encoder.") else ""
    return f"{_MODELS[component]}.{inner}{path}"
