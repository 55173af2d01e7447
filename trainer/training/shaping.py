"""Which settings shape a training, so that one that has begun must keep them, and which may change before it goes on.

Knows no torch, and nothing of how a training is kept on the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.errors import RunError
from trainer.settings import Settings

SHAPING = (
    "trigger", "batch", "resolution", "rank", "unet_lr", "te1_lr", "te2_lr", "seed",
    "alpha", "rslora", "targets", "conv_rank", "style_blocks_only", "block_ranks", "block_rates", "lora_plus",
    "optimizer", "lr_schedule", "lr_cycles", "warmup", "weight_decay", "max_grad_norm", "accumulation", "ema",
    "unet_stop", "te1_stop", "te2_stop",
    "loss", "huber_c", "huber_schedule", "min_snr_gamma", "debiased", "noise_offset", "multires_noise", "multires_discount",
    "ip_noise_gamma", "timestep_sampling", "timestep_mean", "timestep_std", "timestep_min", "timestep_max",
    "resolutions", "max_upscale", "flip", "crops", "masked_loss", "mask_floor", "prior_dataset", "prior_weight",
    "caption_dropout", "shuffle_tags", "keep_tags", "tag_dropout", "wildcards", "cache_text", "caption_variants",
    "validation_share", "family", "prediction",
)  # fmt: skip
"""What a step learns depends on these. `validation_share` is among them because what is held out is not learnt."""

FREE = (
    "passes", "steps",
    "checkpoint_every", "keep_checkpoints",
    "sample_every", "sample_prompts", "sample_untriggered", "sample_weight", "sample_steps", "sample_cfg",
    "validate_every", "tensorboard",
    "precision", "recompute",
)  # fmt: skip
"""More or fewer steps may be wanted; the next ones only look on; and of the last two, a run keeps the precision that it
began with whatever is asked for later, and what is computed twice gives the same numbers."""


def shaping(settings: Settings) -> dict[str, Any]:
    """The values of the settings that shape a training, as JSON has them."""
    return settings.model_dump(mode="json", include=set(SHAPING))


def require_same(before: Mapping[str, Any], settings: Settings, folder: Path) -> None:
    """Raise `RunError` if the run in `folder` has taken its steps with other values than are asked for now.

    A value that `before` does not name, as one that is older than the setting, is not held against anything.
    """
    now = shaping(settings)
    changed = {name: before[name] for name in SHAPING if name in before and before[name] != now[name]}
    if not changed:
        return
    told = "; ".join(f"{name} was {_told(value)} and is now {_told(now[name])}" for name, value in changed.items())
    raise RunError(
        f"{folder / 'settings.toml'} no longer fits the steps that were taken: {told}. "
        "Put it back to go on, or start a new run with the new settings."
    )


def _told(value: Any) -> str:
    """A value as `--set` takes it."""
    return "|".join(map(str, value)) or "(none)" if isinstance(value, list) else str(value) or "''"
