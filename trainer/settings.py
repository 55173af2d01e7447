"""Every setting of a training: its type, bounds, default and help text, once.

The command line (`--set`), the presets, the page's form with its help, and the run folder's `settings.toml` all read this
schema. The defaults are for SDXL; the starter base gets its own values from the presets' `[starter]` tables, never from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.errors import SettingsError

Family = Literal["starter", "sdxl", "pony", "illustrious", "noobai"]
"""Whose descendant a base is. All but the starter share SDXL's shapes; their LoRAs load on one another, and look different."""

Prediction = Literal["epsilon", "v_prediction"]
"""What a base's U-Net answers with."""

Precision = Literal["fp32", "bf16", "fp16", "int8", "nf4"]
"""How the frozen base is kept: int8 and nf4 hold the linear layers so, and the rest in bf16, or in fp16 where that is all."""

Packing = Literal["int8", "nf4"]
"""The precisions that round the base."""

Recompute = Literal["none", "selective", "full"]
"""What the backward pass computes a second time, so that it need not be kept: nothing, what is cheap, or every block."""


class Settings(BaseModel):
    """What a training does, apart from its pictures and its base. Frozen; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    trigger: str = Field("", max_length=80, description="Word that calls the style; put before every caption.")
    passes: float = Field(60, gt=0, le=10_000, description="How often each picture is seen, where steps is 0.")
    steps: int = Field(0, ge=0, le=1_000_000, description="Training steps; 0 derives them from the passes per picture.")
    batch: int = Field(1, ge=1, le=64, description="Pictures per step.")
    resolution: int = Field(1024, ge=64, le=2048, multiple_of=32, description="Side in pixels of a square training picture.")
    rank: int = Field(16, ge=1, le=512, description="Size of the LoRA: more holds more detail and makes a larger file.")
    alpha: float = Field(16.0, gt=0, le=1024, description="The LoRA is scaled by alpha / rank.")
    unet_lr: float = Field(1e-4, ge=0, le=1, description="Learning rate of the U-Net.")
    te1_lr: float = Field(1e-5, ge=0, le=1, description="Learning rate of text encoder 1 (CLIP-L); 0 leaves it alone.")
    te2_lr: float = Field(1e-5, ge=0, le=1, description="Learning rate of text encoder 2 (OpenCLIP bigG); 0 leaves it alone.")
    warmup: float = Field(0.05, ge=0, le=1, description="Share of the steps over which the learning rate rises.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW's weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Longer gradients are cut to this length.")
    min_snr_gamma: float = Field(5.0, ge=0, le=100, description="Min-SNR gamma: evens the noise levels out; 0 turns it off.")
    noise_offset: float = Field(
        0.0, ge=0, le=1, description="Noise shared by a whole channel, so that overall colour is learnt."
    )
    caption_dropout: float = Field(0.05, ge=0, le=1, description="Share of the pictures shown without their caption.")
    seed: int = Field(1, ge=0, lt=2**32, description="The same seed and pictures give the same LoRA.")
    precision: Literal["auto", Precision] = Field("auto", description="How the base is kept; auto takes the fastest that fits.")
    recompute: Literal["auto", Recompute] = Field(
        "auto", description="Gradient checkpointing: saves memory, costs up to a third of the speed; auto if it must be."
    )
    family: Literal["auto", Family] = Field("auto", description="Whose descendant the base is, where its file does not tell.")
    prediction: Literal["auto", Prediction] = Field(
        "auto", description="What the base's U-Net answers with, where its file does not tell."
    )
    checkpoint_every: int = Field(100, ge=1, description="Steps between checkpoints.")
    sample_every: int = Field(100, ge=0, description="Steps between sample pictures; 0 draws none.")
    sample_prompts: tuple[str, ...] = Field((), description="What the samples show; empty takes captions of the dataset.")
    sample_steps: int = Field(25, ge=1, le=200, description="Sampler steps of a sample picture.")
    sample_cfg: float = Field(6.0, ge=1, le=30, description="CFG scale of a sample picture.")


def validated(values: Mapping[str, Any]) -> Settings:
    """`Settings` from names and values (numbers may come as text). Raises `SettingsError` that names the setting."""
    try:
        return Settings.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "settings"
        if first["type"] == "extra_forbidden":
            known = ", ".join(sorted(Settings.model_fields))
            raise SettingsError(f"There is no setting named {name}. The settings are: {known}.") from None
        raise SettingsError(f"The setting {name} cannot be {first['input']!r}: {first['msg'].lower()}.") from None
