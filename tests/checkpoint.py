"""Single-file SDXL checkpoints with the true 2,515 names at a sixteenth of the widths, and the same weights as a folder.

The folder is made by diffusers' own converters, so that it is an oracle for our table of names.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.loaders import single_file_utils
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from trainer.home import shipped

GOLDEN = Path(__file__).parent / "golden" / "sdxl_checkpoint_tensors.json"
SHRINK = 16
VOCABULARY = 49408
LEFT_OUT = ("logit_scale", "position_ids")
"""What merged checkpoints often lack."""

State = Mapping[str, torch.Tensor]


def narrow(side: int) -> int:
    """A side of a tensor, scaled; channels of pictures and latents, kernels, tokens and positions stay."""
    return side // SHRINK if side >= 128 and side != VOCABULARY else side


def golden_shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of a true checkpoint."""
    return {name: tuple(shape) for name, shape in json.loads(GOLDEN.read_text(encoding="utf-8")).items()}


def narrow_shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of a scaled one."""
    return {name: tuple(map(narrow, shape)) for name, shape in golden_shapes().items()}


def scaled(name: str, values: torch.Tensor) -> torch.Tensor:
    """Standard normal values in the size that a layer's weights have, so that signals neither fade nor explode."""
    if values.dim() >= 2:
        return values * (1.0 if "embedding" in name else values[0].numel() ** -0.5)
    is_gain = any(part in name for part in ("norm", "ln_", ".in_layers.0.", ".out_layers.0.", ".out.0."))
    return 0.1 * values + (1.0 if is_gain and name.endswith("weight") else 0.0)


def tensors(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors, scaled and random; the same call gives the same values."""
    generator = torch.Generator().manual_seed(7)
    made = {name: scaled(name, torch.randn(shape, generator=generator)) for name, shape in narrow_shapes().items()}
    positions = {name: torch.arange(77)[None] for name in made if name.endswith("position_ids")}
    return {**{name: values.to(dtype) for name, values in made.items()}, **positions}


def write_file(path: Path, state: State, metadata: Mapping[str, str] | None = None) -> Path:
    """Write a single-file checkpoint."""
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path, dict(metadata or {}))
    return path


def write_configs(folder: Path) -> Path:
    """SDXL's configs as they ship, scaled like the tensors; the tokenizer is the true one."""
    keys = (
        "block_out_channels", "cross_attention_dim", "projection_class_embeddings_input_dim", "addition_time_embed_dim",
        "hidden_size", "intermediate_size", "projection_dim",
    )  # fmt: skip
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        config = json.loads((shipped("assets", "sdxl") / name / "config.json").read_text(encoding="utf-8"))
        for key in set(keys) & set(config):
            config[key] = [narrow(side) for side in config[key]] if isinstance(config[key], list) else narrow(config[key])
        if "norm_num_groups" in config:
            config["norm_num_groups"] = 4
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in ("tokenizer", "scheduler"):
        shutil.copytree(shipped("assets", "sdxl") / name, folder / name)
    return folder


def write_folder(folder: Path, state: State, configs: Path) -> Path:
    """The same weights as a diffusers folder, converted by diffusers."""
    unet_config = json.loads((configs / "unet" / "config.json").read_text(encoding="utf-8"))
    vae_config = json.loads((configs / "vae" / "config.json").read_text(encoding="utf-8"))
    unet = UNet2DConditionModel.from_config(unet_config)
    unet.load_state_dict(single_file_utils.convert_ldm_unet_checkpoint(dict(state), unet_config))
    vae = AutoencoderKL.from_config(vae_config)
    vae.load_state_dict(single_file_utils.convert_ldm_vae_checkpoint(dict(state), vae_config))
    te1 = CLIPTextModel(CLIPTextConfig.from_pretrained(configs / "text_encoder"))
    _load_text(te1, single_file_utils.convert_ldm_clip_checkpoint(dict(state), "conditioner.embedders.0.transformer."))
    te2 = CLIPTextModelWithProjection(CLIPTextConfig.from_pretrained(configs / "text_encoder_2"))
    _load_text(te2, single_file_utils.convert_open_clip_checkpoint(te2, dict(state), "conditioner.embedders.1.model."))
    vocabulary = configs / "tokenizer"
    tokenizers = [
        CLIPTokenizer.from_pretrained(vocabulary, pad_token=pad, model_max_length=77) for pad in ("<|endoftext|>", "!")
    ]
    StableDiffusionXLPipeline(
        vae=vae, text_encoder=te1, text_encoder_2=te2, tokenizer=tokenizers[0], tokenizer_2=tokenizers[1], unet=unet,
        scheduler=EulerDiscreteScheduler.from_pretrained(configs / "scheduler"), add_watermarker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def _load_text(model: Any, state: State) -> None:
    """Load a text encoder's weights whether or not their names begin with `text_model.`."""
    called = {key.removeprefix("text_model."): key for key in model.state_dict()}
    found = {key.removeprefix("text_model."): value for key, value in state.items() if not key.endswith(LEFT_OUT)}
    model.load_state_dict({called[key]: value for key, value in found.items()})
