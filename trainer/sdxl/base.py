"""The frozen base: one `load_base` for the starter, a diffusers folder and a Hub id.

Everything that follows is written for SDXL's four models and their wiring; which one is loaded matters only for its
family, which says what files made on it are called. Knows nothing of LoRAs or training.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from trainer.errors import BaseModelError
from trainer.lora.keys import Component
from trainer.sdxl.source import check_source, family_of, folder_of
from trainer.settings import Family, Prediction

transformers_logging.disable_progress_bar()  # its bars for half a second of loading only hide ours

Model = TypeVar("Model", bound=nn.Module)


@dataclass
class Base:
    """SDXL's models on one device. The VAE is always float32: in float16 SDXL's overflows to black pictures."""

    source: str
    family: Family
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    te1: CLIPTextModel
    te2: CLIPTextModelWithProjection
    tokenizer1: CLIPTokenizer
    tokenizer2: CLIPTokenizer
    scheduler: dict[str, Any]
    """The config of the folder's scheduler: betas, prediction type, timestep spacing."""

    @property
    def parts(self) -> dict[Component, nn.Module]:
        """The models that a LoRA may change."""
        return {"unet": self.unet, "te1": self.te1, "te2": self.te2}

    @property
    def version(self) -> str:
        """`ss_base_model_version` of files made on this base."""
        return "impasto_starter" if self.family == "starter" else "sdxl_base_v1-0"

    @property
    def prediction(self) -> Prediction:
        """What the U-Net answers with."""
        return "v_prediction" if self.scheduler.get("prediction_type") == "v_prediction" else "epsilon"

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return torch.device(self.unet.device)

    @property
    def resolution(self) -> int:
        """Side in pixels of the pictures that the base was made for."""
        return int(self.unet.config.sample_size) * 8

    @cached_property
    def vae_fingerprint(self) -> str:
        """A hash of the VAE's weights: latents of one VAE mean nothing to another."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.vae.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def encode(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels (n, 3, h, w) in -1 … 1 -> mean and standard deviation (n, 4, h/8, w/8) of the scaled latents."""
        posterior = self.vae.encode(pixels.to(self.device, torch.float32)).latent_dist
        scale = self.vae.config.scaling_factor
        return posterior.mean * scale, posterior.std * scale

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents (n, 4, h/8, w/8) -> pixels (n, 3, h, w) in -1 … 1."""
        pixels: torch.Tensor = self.vae.decode(latents.to(torch.float32) / self.vae.config.scaling_factor).sample
        return pixels.clamp(-1, 1)


def best_device() -> torch.device:
    """CUDA, else Apple's MPS, else the CPU. `IMPASTO_DEVICE` overrules."""
    named = os.environ.get("IMPASTO_DEVICE")
    if named:
        return torch.device(named)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def training_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on a card that has it, else float32."""
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def drawing_dtype(device: torch.device) -> torch.dtype:
    """float16 on a card, because bfloat16 swallows weak LoRAs when they are merged; float32 on a CPU."""
    return torch.float32 if device.type == "cpu" else torch.float16


def load_base(source: str, device: torch.device, dtype: torch.dtype) -> Base:
    """Load a base: `starter`, a diffusers folder, or a Hub id. Raises `BaseModelError`."""
    check_source(source)
    folder = folder_of(source)
    root = str(folder or source)
    unet = _load(UNet2DConditionModel.from_pretrained, root, "unet", torch_dtype=dtype)
    if unet.config.addition_embed_type != "text_time" or unet.config.in_channels != 4:
        raise BaseModelError(f"{source} is not an SDXL base: its U-Net is of another kind.")
    te1 = _load(CLIPTextModel.from_pretrained, root, "text_encoder", dtype=dtype)
    te2 = _load(CLIPTextModelWithProjection.from_pretrained, root, "text_encoder_2", dtype=dtype)
    return Base(
        source=source,
        family=family_of(source),
        unet=_frozen(unet, device),
        vae=_frozen(_load(AutoencoderKL.from_pretrained, root, "vae", torch_dtype=torch.float32), device),
        te1=_frozen(te1, device),
        te2=_frozen(te2, device),
        tokenizer1=_tokenizer(root, "tokenizer", te1.config.vocab_size),
        tokenizer2=_tokenizer(root, "tokenizer_2", te2.config.vocab_size),
        scheduler=_scheduler(root),
    )


def _frozen(model: Model, device: torch.device) -> Model:
    return model.to(device).eval().requires_grad_(False)


def _load(load: Callable[..., Any], root: str, part: str, **options: Any) -> Any:
    """One component, its failures as sentences."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries' talk among themselves
            return load(root, subfolder=part, **options)
    except HFValidationError:
        raise BaseModelError(f"{root} is neither a folder nor a Hub id.") from None
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BaseModelError(
            f"The base {root} could not be loaded: its part {part} is missing or damaged ({first})."
        ) from error


def _tokenizer(root: str, part: str, size: int) -> CLIPTokenizer:
    """The tokenizer with all the tokens of its encoder; where its folder is missing, transformers makes an empty one."""
    tokenizer: CLIPTokenizer = _load(CLIPTokenizer.from_pretrained, root, part)
    if len(tokenizer) < size:
        raise BaseModelError(
            f"The base {root} could not be loaded: its part {part} is missing or damaged ({len(tokenizer)} of {size} tokens)."
        )
    return tokenizer


def _scheduler(root: str) -> dict[str, Any]:
    config: dict[str, Any] = _load(EulerDiscreteScheduler.load_config, root, "scheduler")
    return config
