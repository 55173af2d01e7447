"""What a LoRA file tells about its training: kohya's `ss_*` and the modelspec, which other tools read. All text."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime

from trainer import __version__
from trainer.bases.origin import Origin
from trainer.settings import Precision, Recompute
from trainer.training.plan import Plan
from trainer.training.run import Run

ONLY_STARTER = "Only for Impasto's starter base: it does nothing useful in SDXL."


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
        "ss_optimizer": "torch.optim.adamw.AdamW",
        "ss_lr_scheduler": "cosine",
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


def describe_rung(precision: Precision, recompute: Recompute, computed_in: str) -> dict[str, str]:
    """How the base was kept in the training, what was computed twice, and in what type, as torch calls it (`bfloat16`)."""
    return {
        "ss_mixed_precision": {"bfloat16": "bf16", "float16": "fp16"}.get(computed_in, "no"),
        "ss_gradient_checkpointing": str(recompute != "none"),
        "impasto.precision": precision,
    }
