"""What a LoRA file tells about its training: kohya's `ss_*` and the modelspec, which other tools read. All text."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from trainer import __version__
from trainer.bases.origin import Origin
from trainer.lora.sidecar import Card
from trainer.settings import OptimizerName, Precision, Recompute
from trainer.training.plan import Plan
from trainer.training.run import Run

ONLY_STARTER = "Only for Impasto's starter base: it does nothing useful in SDXL."

OPTIMIZERS: dict[OptimizerName, str] = {
    "adamw": "torch.optim.adamw.AdamW",
    "adamw8bit": "bitsandbytes.optim.adamw.AdamW8bit",
    "adafactor": "transformers.optimization.Adafactor",
    "lion": "Lion",
    "prodigy": "prodigyopt.prodigy.Prodigy",
    "schedulefree_adamw": "schedulefree.adamw_schedulefree.AdamWScheduleFree",
}
"""The optimizers as other tools name them."""


def describe(run: Run, plan: Plan, base: Origin, step: int) -> dict[str, str]:
    """The header's metadata for the LoRA of `run`, made on `base`, after `step` steps."""
    settings = run.settings
    starter = base.family == "starter"
    tags = Counter(tag.strip() for picture, _ in plan.pictures for tag in picture.caption.split(",") if tag.strip())
    architecture = "impasto-starter/lora" if starter else "stable-diffusion-xl-v1-base/lora"
    texts = {
        **base.to_metadata(),
        "ss_network_module": "networks.lora",
        "ss_network_dim": settings.rank,
        "ss_network_alpha": settings.alpha,
        "ss_output_name": run.name,
        "ss_learning_rate": settings.unet_lr,
        "ss_unet_lr": settings.unet_lr,
        "ss_text_encoder_lr": json.dumps([settings.te1_lr, settings.te2_lr]),
        "ss_optimizer": OPTIMIZERS[settings.optimizer],
        "ss_lr_scheduler": "constant" if settings.optimizer == "schedulefree_adamw" else settings.lr_schedule,
        "ss_lr_warmup_steps": round(plan.steps * settings.warmup),
        "ss_max_train_steps": plan.steps,
        "ss_steps": step,
        "ss_num_train_images": len(plan.pictures),
        "ss_batch_size_per_device": settings.batch,
        "ss_resolution": f"({settings.resolution}, {settings.resolution})",
        "ss_bucket_info": json.dumps({"buckets": plan.buckets}),
        "ss_min_snr_gamma": settings.min_snr_gamma,
        "ss_noise_offset": settings.noise_offset,
        "ss_caption_dropout_rate": settings.caption_dropout,
        "ss_caption_tag_dropout_rate": settings.tag_dropout or "",
        "ss_shuffle_caption": settings.shuffle_tags or "",
        "ss_keep_tokens": settings.keep_tags or "",
        "ss_flip_aug": settings.flip or "",
        "ss_max_grad_norm": settings.max_grad_norm,
        "ss_seed": settings.seed,
        "ss_tag_frequency": json.dumps({run.dataset.name: dict(tags.most_common(200))}, ensure_ascii=False),
        "ss_training_comment": ONLY_STARTER if starter else "",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": architecture,
        "modelspec.implementation": f"impasto/{__version__}",
        "modelspec.title": run.name,
        "modelspec.resolution": f"{settings.resolution}x{settings.resolution}",
        "modelspec.date": datetime.now(UTC).replace(microsecond=0).isoformat(),
        "modelspec.trigger_phrase": settings.trigger,
        "modelspec.usage_hint": ONLY_STARTER if starter else "",
        "impasto.preset": run.preset,
    }
    return {key: str(text) for key, text in texts.items() if str(text)}


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
