"""Which files of a diffusers folder make an SDXL base, and whether they make one at all.

Knows names and configs only, no torch, so it serves a folder on disk and a listing from the Hub alike.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from trainer.bases.names import Part

FOLDERS: dict[Part, str] = {"unet": "unet", "vae": "vae", "te1": "text_encoder", "te2": "text_encoder_2"}
"""Each model -> its subfolder."""
_STEMS: dict[Part, str] = {
    "unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "te1": "model", "te2": "model",
}  # fmt: skip
"""Each model -> how its weight files begin."""

INDEX, UNET_CONFIG = "model_index.json", "unet/config.json"
_CONFIGS = (INDEX, *(f"{folder}/config.json" for folder in FOLDERS.values()), "scheduler/scheduler_config.json")
_TOKENIZERS = ("tokenizer", "tokenizer_2")
_VOCABULARIES = (("vocab.json", "merges.txt"), ("tokenizer.json",))
"""A tokenizer can be made from either of these sets."""
_OF_TOKENIZER = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def weights(names: Collection[str], part: Part) -> tuple[str, ...]:
    """The weight files of a part in one variant: float16 if there is one, whole or else all its shards and their index.

    Empty where no variant is complete; `.bin` and the forms of other libraries do not count.
    """
    stem = _stem(part)
    for variant in (".fp16", ""):
        if f"{stem}{variant}.safetensors" in names:
            return (f"{stem}{variant}.safetensors",)
        shape = re.compile(rf"{re.escape(stem + variant)}-\d{{5}}-of-(\d{{5}})\.safetensors")
        shards = {name: int(found[1]) for name in names if (found := shape.fullmatch(name))}
        index = f"{stem}.safetensors.index{variant}.json"
        if index in names and set(shards.values()) == {len(shards)}:
            return (index, *sorted(shards))
    return ()


def _stem(part: Part) -> str:
    """How the paths of a model's weight files begin."""
    return f"{FOLDERS[part]}/{_STEMS[part]}"


def missing(names: Collection[str]) -> list[str]:
    """What a base needs and `names` lack; empty if nothing."""
    lacking = [config for config in _CONFIGS if config not in names]
    lacking += [f"{_stem(part)}.safetensors" for part in FOLDERS if not weights(names, part)]
    for folder in _TOKENIZERS:
        if not any(all(f"{folder}/{name}" in names for name in each) for each in _VOCABULARIES):
            lacking.append(f"{folder}/vocab.json")
    return lacking


def needed(names: Collection[str]) -> list[str]:
    """The files among `names` that a base is loaded from, the small ones first."""
    small = (*_CONFIGS, *(f"{folder}/{name}" for folder in _TOKENIZERS for name in _OF_TOKENIZER))
    return [name for name in small if name in names] + [name for part in FOLDERS for name in weights(names, part)]


def names_in(folder: Path) -> set[str]:
    """The files of a folder and of its subfolders, as a listing from the Hub names them; dangling links are left out."""
    return {path.relative_to(folder).as_posix() for path in folder.glob("**/*") if path.is_file()}


def refusal(index: Mapping[str, Any], unet: Mapping[str, Any]) -> str:
    """What a folder is that is no SDXL base, from `model_index.json` and `unet/config.json`; empty if it is one."""
    if unet.get("in_channels") == 9:
        return "is an SDXL inpainting model (its U-Net reads 9 channels): choose the ordinary model that it was made from"
    if unet.get("addition_embed_type") != "text_time" or unet.get("in_channels") != 4:
        return f"is not SDXL but a model for {index.get('_class_name', 'another pipeline')}: choose an SDXL base"
    if index.get("text_encoder") == [None, None]:
        return "is the SDXL refiner, which cannot be trained alone: choose the base model that it belongs to"
    return ""
