"""What a LoRA file tells about its training: kohya's `ss_*` and the modelspec, which other tools read. All text.

Kohya's names stand for what means the same there; every other setting that shapes a LoRA is told under `impasto.` where it
is not as usual. Only the date differs between two files of the same run.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainer import __version__
from trainer.bases.origin import Origin
from trainer.lora.shape import Shape
from trainer.lora.sidecar import Card
from trainer.lora.thumbnail import data_url
from trainer.settings import OptimizerName, Precision, Recompute, Settings
from trainer.training.plan import Plan
from trainer.training.progress import fold
from trainer.training.run import Run
from trainer.training.shaping import SHAPING

ONLY_STARTER = "Only for Impasto's starter base: it does nothing useful in SDXL."

OPTIMIZERS: dict[OptimizerName, str] = {
    "adamw": "torch.optim.adamw.AdamW",
    "adamw8bit": "bitsandbytes.optim.adamw.AdamW8bit",
    "adafactor": "transformers.optimization.Adafactor",
    "lion": "Lion",
    "prodigy": "prodigyopt.prodigy.Prodigy",
    "schedulefree_adamw": "schedulefree.adamw_schedulefree.AdamWScheduleFree",
    "schedulefree_prodigy": "prodigyplus.prodigy_plus_schedulefree.ProdigyPlusScheduleFree",
}
"""The optimizers as other tools name them."""

TOLD_OTHERWISE = frozenset({
    "trigger", "batch", "resolution", "rank", "unet_lr", "te1_lr", "te2_lr", "seed", "alpha", "conv_rank", "lora_plus",
    "optimizer", "lr_schedule", "lr_cycles", "max_grad_norm", "accumulation", "loss", "huber_c", "huber_schedule",
    "min_snr_gamma", "debiased", "noise_offset", "multires_noise", "multires_discount", "ip_noise_gamma", "timestep_min",
    "timestep_max", "flip", "prior_dataset", "prior_weight", "caption_dropout", "shuffle_tags", "keep_tags", "tag_dropout",
    "validation_share", "family", "prediction",
})  # fmt: skip
"""Settings that stand in the header under names of others; of the last two, what came of them does."""


def describe(run: Run, plan: Plan, base: Origin, step: int, processes: int = 1) -> dict[str, str]:
    """The header's metadata for the LoRA of `run`, made on `base` by so many processes, after `step` steps."""
    settings = run.settings
    texts = {
        **base.to_metadata(),
        **_of_the_lora(run.name, settings),
        **_of_the_learning(settings, plan.steps),
        **_of_the_noise(settings),
        **_of_the_pictures(run, plan),
        **_of_the_way(run, plan, step, processes),
        **_modelspec(run, plan, base, step),
        "ss_training_comment": ONLY_STARTER if base.family == "starter" else "",
        "impasto.preset": run.preset,
        **_of_ours(settings),
    }
    return {key: str(text) for key, text in texts.items() if str(text)}


def _of_the_lora(name: str, settings: Settings) -> dict[str, Any]:
    """What it is made of. The alpha is the file's: alpha / dim is the scale that a reader finds."""
    shape, arguments = Shape.of(settings), {}
    if settings.targets == "everything":
        rank = settings.conv_rank or settings.rank
        arguments = {"conv_dim": str(rank), "conv_alpha": f"{shape.scale * rank:g}"}
    if settings.lora_plus != 1:
        arguments["loraplus_lr_ratio"] = f"{settings.lora_plus:g}"
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": settings.rank,
        "ss_network_alpha": shape.file_alpha,
        "ss_network_args": json.dumps(arguments) if arguments else "",
        "ss_output_name": name,
    }


def _of_the_learning(settings: Settings, steps: int) -> dict[str, Any]:
    """How steps were taken."""
    steady = settings.optimizer in ("schedulefree_adamw", "schedulefree_prodigy")
    restarts = settings.lr_schedule == "cosine_restarts" and not steady
    schedule = "constant" if steady else "cosine_with_restarts" if restarts else settings.lr_schedule
    return {
        "ss_learning_rate": settings.unet_lr,
        "ss_unet_lr": settings.unet_lr,
        "ss_text_encoder_lr": json.dumps([settings.te1_lr, settings.te2_lr]),
        "ss_optimizer": OPTIMIZERS[settings.optimizer],
        "ss_lr_scheduler": schedule,
        "ss_lr_warmup_steps": round(steps * settings.warmup),
        "ss_max_grad_norm": settings.max_grad_norm,
        "ss_seed": settings.seed,
        "impasto.lr_cycles": settings.lr_cycles if restarts else "",
    }


def _of_the_noise(settings: Settings) -> dict[str, Any]:
    """What the U-Net was asked for, and how its answers were judged."""
    huber, multires = settings.loss == "huber", bool(settings.multires_noise)
    return {
        "ss_loss_type": "huber" if huber else "l2",
        "ss_huber_c": settings.huber_c if huber else "",
        "ss_huber_schedule": settings.huber_schedule if huber else "",
        "ss_min_snr_gamma": 0.0 if settings.debiased else settings.min_snr_gamma,
        "ss_debiased_estimation": settings.debiased,
        "ss_noise_offset": settings.noise_offset,
        "ss_multires_noise_iterations": settings.multires_noise or "",
        "ss_multires_noise_discount": settings.multires_discount if multires else "",
        "ss_ip_noise_gamma": settings.ip_noise_gamma or "",
    }


def _of_the_pictures(run: Run, plan: Plan) -> dict[str, Any]:
    """What was shown, and how."""
    settings, own = run.settings, [entry for entry in plan.pictures if not entry.prior]
    prior = len(plan.pictures) - len(own)
    tags = Counter(tag.strip() for entry in own for tag in entry.caption.split(",") if tag.strip())
    return {
        "ss_num_train_images": len(own),
        "ss_num_reg_images": prior,
        "ss_num_validation_images": len(plan.held_out),
        "ss_validation_split": settings.validation_share or "",
        "ss_prior_loss_weight": settings.prior_weight if prior else "",
        "ss_dataset_dirs": json.dumps({run.dataset.name: {"n_repeats": 1, "img_count": len(own)}}, ensure_ascii=False),
        "ss_tag_frequency": json.dumps({run.dataset.name: dict(tags.most_common(200))}, ensure_ascii=False),
        "ss_resolution": f"({settings.resolution}, {settings.resolution})",
        "ss_enable_bucket": True,
        "ss_bucket_info": json.dumps({"buckets": plan.buckets}),
        "ss_cache_latents": True,
        "ss_flip_aug": settings.flip or "",
        "ss_random_crop": settings.crops > 1 or "",
        "ss_caption_dropout_rate": settings.caption_dropout,
        "ss_caption_tag_dropout_rate": settings.tag_dropout or "",
        "ss_shuffle_caption": settings.shuffle_tags or "",
        "ss_keep_tokens": settings.keep_tags or "",
    }


def _of_the_way(run: Run, plan: Plan, step: int, processes: int) -> dict[str, Any]:
    """Since when, and how far it went. An epoch is one pass over the pictures, and as many prior ones."""
    settings, began = run.settings, next(iter(run.events()), None)
    kinds = {entry.prior for entry in plan.pictures}
    rooms = Counter(entry.placement.bucket for entry in plan.pictures if not entry.prior)
    batches = len(kinds) * sum(math.ceil(count / plan.batch) for count in rooms.values())
    in_step = settings.accumulation * processes
    return {
        "ss_training_started_at": began.time if began else "",
        "ss_max_train_steps": plan.steps,
        "ss_steps": step,
        "ss_num_batches_per_epoch": batches,
        "ss_num_epochs": math.ceil(plan.steps * in_step / batches),
        "ss_epoch": step * in_step // batches,
        "ss_batch_size_per_device": settings.batch,
        "ss_gradient_accumulation_steps": settings.accumulation,
        "ss_total_batch_size": settings.batch * in_step,
    }


def _modelspec(run: Run, plan: Plan, base: Origin, step: int) -> dict[str, Any]:
    """The Stability modelspec 1.0.1; what the base predicts is told with the base. No license: that is the person's to give."""
    settings, starter = run.settings, base.family == "starter"
    limited = (settings.timestep_min, settings.timestep_max) != (0, 999)
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "impasto-starter/lora" if starter else "stable-diffusion-xl-v1-base/lora",
        "modelspec.implementation": f"impasto/{__version__}",
        "modelspec.title": run.name,
        "modelspec.description": card(run, plan, base, step).description,
        "modelspec.tags": "style",
        "modelspec.resolution": f"{settings.resolution}x{settings.resolution}",
        "modelspec.timestep_range": f"{settings.timestep_min},{settings.timestep_max + 1}" if limited else "",
        "modelspec.date": datetime.now(UTC).replace(microsecond=0).isoformat(),
        "modelspec.trigger_phrase": settings.trigger,
        "modelspec.usage_hint": ONLY_STARTER if starter else "",
        "modelspec.thumbnail": _thumbnail(run),
    }


def _thumbnail(run: Run) -> str:
    """The first of the newest samples as a data URL; empty if there is none."""
    samples = fold(run.events()).samples
    newest = next((run.folder / sample.path for sample in samples if sample.step == samples[-1].step), None)
    return data_url(newest) if newest and newest.is_file() else ""


def _of_ours(settings: Settings) -> dict[str, str]:
    """Settings that shape a LoRA and that nobody else has a name for, where they are not as usual."""
    usual, told = Settings(), {}
    for name in SHAPING:
        value = getattr(settings, name)
        if name not in TOLD_OTHERWISE and value != getattr(usual, name):
            told[f"impasto.{name}"] = "|".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return told


def card(run: Run, plan: Plan, base: Origin, step: int) -> Card:
    """The same in short, for the file beside the LoRA that other programs show it by."""
    starter = base.family == "starter"
    return Card(
        description=f"{run.name}: a style learnt from {plan.distinct} pictures in {step} steps.",
        trigger=run.settings.trigger,
        starter=starter,
        notes=ONLY_STARTER if starter else f"Trained on {Path(run.base).name.removesuffix('.safetensors')} with Impasto.",
    )


def describe_rung(precision: Precision, recompute: Recompute, computed_in: str) -> dict[str, str]:
    """How the base was kept in the training, what was computed twice, and in what type, as torch calls it (`bfloat16`)."""
    return {
        "ss_mixed_precision": {"bfloat16": "bf16", "float16": "fp16"}.get(computed_in, "no"),
        "ss_gradient_checkpointing": str(recompute != "none"),
        "impasto.precision": precision,
    }
