"""The four models of a diffusers folder, its tokenizers and its scheduler. Only safetensors are read, never a pickle."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from trainer.bases import layout
from trainer.bases.models import Models
from trainer.bases.names import Part
from trainer.errors import BaseModelError

transformers_logging.disable_progress_bar()  # its bars for half a second of loading only hide ours


def load(folder: Path, dtype: torch.dtype) -> Models:
    """What the folder holds, the VAE in float32 and the others in `dtype`. Raises `BaseModelError`."""
    te1 = _load(CLIPTextModel.from_pretrained, folder, "te1", dtype=dtype)
    te2 = _load(CLIPTextModelWithProjection.from_pretrained, folder, "te2", dtype=dtype)
    return Models(
        unet=_load(UNet2DConditionModel.from_pretrained, folder, "unet", torch_dtype=dtype),
        vae=_load(AutoencoderKL.from_pretrained, folder, "vae", torch_dtype=torch.float32),
        te1=te1,
        te2=te2,
        tokenizer1=load_tokenizer(folder, "tokenizer", te1.config.vocab_size),
        tokenizer2=load_tokenizer(folder, "tokenizer_2", te2.config.vocab_size),
        scheduler=load_scheduler(folder),
    )


def load_tokenizer(folder: Path, name: str, size: int, **options: Any) -> CLIPTokenizer:
    """The tokenizer with all the tokens of its encoder; where its folder is missing, transformers makes an empty one."""
    tokenizer: CLIPTokenizer = _read(CLIPTokenizer.from_pretrained, folder, name, **options)
    if len(tokenizer) < size:
        raise BaseModelError(
            f"The base {folder} could not be loaded: its part {name} is missing or damaged ({len(tokenizer)} of {size} tokens)."
        )
    return tokenizer


def load_scheduler(folder: Path) -> dict[str, Any]:
    """The scheduler's config: betas, prediction type, spacing of the time steps."""
    config: dict[str, Any] = _read(EulerDiscreteScheduler.load_config, folder, "scheduler")
    return config


def _load(load: Callable[..., Any], folder: Path, part: Part, **options: Any) -> Any:
    """One of the models; its fp16 weights where there are such."""
    found = layout.weights(layout.names_in(folder), part)
    variant = "fp16" if found and ".fp16" in found[0] else None
    return _read(load, folder, layout.FOLDERS[part], use_safetensors=True, variant=variant, **options)


def _read(load: Callable[..., Any], folder: Path, name: str, **options: Any) -> Any:
    """One component, its failures as sentences."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries' talk among themselves
            return load(str(folder), subfolder=name, local_files_only=True, **options)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BaseModelError(
            f"The base {folder} could not be loaded: its part {name} is missing or damaged ({first})."
        ) from error
