"""SDXL's four models with their tokenizers and scheduler, as they come from a disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from trainer.bases.names import Part


@dataclass
class Models:
    """What every form of a base holds."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    te1: CLIPTextModel
    te2: CLIPTextModelWithProjection
    tokenizer1: CLIPTokenizer
    tokenizer2: CLIPTokenizer
    scheduler: dict[str, Any]
    """The scheduler's config: betas, prediction type, spacing of the time steps."""

    @property
    def models(self) -> dict[Part, nn.Module]:
        """The four models by part."""
        return {"unet": self.unet, "vae": self.vae, "te1": self.te1, "te2": self.te2}
