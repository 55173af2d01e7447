"""Small random bases with SDXL's classes and wiring, to test on: they draw noise, but exactly as SDXL would.

`TOY` is quick: three levels, few layers. `FULL` has every block and layer of SDXL, at widths that fit into a few megabytes.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from trainer.home import shipped
from trainer.lora.file import LoraFile
from trainer.settings import Settings
from trainer.training.run import Run

SIDE = 64
"""Side of the bases' own pictures in pixels."""

STEP_SETTINGS: dict[str, Any] = {
    "resolution": 64, "rank": 4, "alpha": 2.0, "batch": 2, "sample_every": 0, "sample_steps": 2,
    "recompute": "none",
    "unet_lr": 1e-2, "te1_lr": 1e-2, "te2_lr": 1e-2,
}  # fmt: skip
"""Settings with which a toy base learns a lot in few steps; alpha is not the rank."""


@dataclass(frozen=True)
class Depth:
    """How deep a base is."""

    transformers: tuple[int, int, int]
    te1: int
    te2: int


TOY = Depth((1, 1, 1), te1=3, te2=2)
FULL = Depth((1, 2, 10), te1=12, te2=32)


def _text_config(width: int, layers: int, **more: Any) -> CLIPTextConfig:
    """A text encoder's config for the starter's tokenizers, with weights large enough to matter."""
    return CLIPTextConfig(
        hidden_size=width, intermediate_size=2 * width, projection_dim=width, num_hidden_layers=layers,
        num_attention_heads=2, vocab_size=4096, max_position_embeddings=77, bos_token_id=4094, eos_token_id=4095,
        initializer_factor=4.0, **more,
    )  # fmt: skip


def unet_config(depth: Depth) -> dict[str, Any]:
    """SDXL's U-Net, narrow."""
    return {
        "sample_size": SIDE // 8,
        "block_out_channels": (8, 16, 32),
        "attention_head_dim": [1, 2, 4],
        "norm_num_groups": 4,
        "layers_per_block": 2,
        "transformer_layers_per_block": list(depth.transformers),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "use_linear_projection": True,
        "cross_attention_dim": 16 + 24,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24 + 6 * 8,
    }


def save_base(folder: Path, depth: Depth = TOY, prediction: str = "epsilon") -> Path:
    """Write a random base as a diffusers folder; the same call writes the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(**unet_config(depth))
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 16, 16),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            norm_num_groups=4,
            scaling_factor=0.13025,
        )
        te1 = CLIPTextModel(_text_config(16, depth.te1, pad_token_id=4095, hidden_act="quick_gelu"))
        te2 = CLIPTextModelWithProjection(_text_config(24, depth.te2, pad_token_id=0, hidden_act="gelu"))
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading",
        prediction_type=prediction,
    )  # fmt: skip
    tokenizers = [CLIPTokenizer.from_pretrained(shipped("assets", "starter", name)) for name in ("tokenizer", "tokenizer_2")]
    pipeline = StableDiffusionXLPipeline(
        vae=vae, text_encoder=te1, text_encoder_2=te2, tokenizer=tokenizers[0], tokenizer_2=tokenizers[1], unet=unet,
        scheduler=scheduler, add_watermarker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


def starter_like(base: Path, folder: Path) -> Path:
    """A copy of a base that is marked to be of the starter's family."""
    shutil.copytree(base, folder)
    (folder / "impasto.json").write_text(json.dumps({"family": "starter"}), encoding="utf-8")
    return folder


def save_dataset(folder: Path, sizes: tuple[tuple[int, int], ...] = ((64, 64), (96, 80), (70, 64), (64, 96))) -> Path:
    """Write pictures of these sizes, each with a gradient of its own and a caption."""
    folder.mkdir(parents=True)
    for number, (width, height) in enumerate(sizes):
        ramp = Image.linear_gradient("L").resize((width, height))
        other = ramp.rotate(90 * number, expand=False)
        flat = Image.new("L", (width, height), 40 * number % 256)
        Image.merge("RGB", (ramp, other, flat)).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(f"a picture of number {number}, on paper", encoding="utf-8")
    return folder


def short_run(folder: Path, dataset: Path, base: Path, **settings: Any) -> Run:
    """A new run of four steps with two checkpoints, unless `settings` say otherwise."""
    chosen = {**STEP_SETTINGS, "steps": 4, "checkpoint_every": 2, "caption_dropout": 0.0, **settings}
    return Run.create(folder, dataset, str(base), "balanced", Settings(**chosen))


def held(run: Run) -> dict[str, tuple[float, bytes, bytes]]:
    """Everything that a run's LoRA holds, bit for bit."""
    layers = LoraFile.read(run.lora).factors
    return {name: (x.alpha, x.down.numpy().tobytes(), x.up.numpy().tobytes()) for name, x in layers.items()}
