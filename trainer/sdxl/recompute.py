"""What the backward pass computes a second time instead of keeping it, in the blocks of a base's models.

    none        nothing: the fastest, and by far the largest
    selective   all but attention and convolutions, which are slow for the little that they keep (arXiv 2205.05198, section 5)
    full        everything within a block: only what goes into it is kept (arXiv 1604.06174)

The blocks are SDXL's residual and transformer blocks and the text encoders' layers. Gradients are those of `none`, to the
bit. Knows nothing of LoRAs, losses or how much memory there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from trainer.lora.keys import Component
from trainer.settings import Recompute

KEPT = frozenset(
    getattr(torch.ops.aten, name).default
    for name in (
        "convolution",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
    )
)
"""The operations whose results `selective` keeps: attention by each of its fused kernels, and convolution."""


def recompute(parts: Mapping[Component, nn.Module], how: Recompute) -> None:
    """Set the models of a base up for training so. May be called again with another answer.

    diffusers and transformers mark their blocks alike. transformers' own verb is not used: it makes gradients flow into
    the embeddings of text encoders that nobody trains.
    """
    for component, model in parts.items():
        for block in model.modules():
            if hasattr(block, "gradient_checkpointing"):
                marked: Any = block
                marked.gradient_checkpointing = how != "none"
                marked._gradient_checkpointing_func = partial(checkpoint, **_options(how))
        if component != "unet":
            model.train(how != "none")  # transformers recomputes only in training mode; CLIP has no dropout to wake


def _options(how: Recompute) -> dict[str, Any]:
    """Options of `checkpoint`. Nothing in a block is random, so no generator's state is kept for the second time."""
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if how == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    return options


def _policy(_: Any, operation: Any, *inputs: Any, **options: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in KEPT else CheckpointPolicy.PREFER_RECOMPUTE
