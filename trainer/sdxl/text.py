"""Prompt -> what SDXL reads of it: both encoders' penultimate layers, and encoder 2's pooled output.

Differentiable, so that training and drawing read prompts by the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import CLIPTokenizer

from trainer.sdxl.base import Base


@dataclass(frozen=True)
class TextFeatures:
    """`context` is (n, 77, C1 + C2), `pooled` is (n, P)."""

    context: torch.Tensor
    pooled: torch.Tensor

    def masked(self, keep: torch.Tensor) -> TextFeatures:
        """Rows where `keep` (n) is 0 become zeros, which is SDXL's unconditional input."""
        keep = keep.to(self.pooled)
        return TextFeatures(self.context * keep[:, None, None], self.pooled * keep[:, None])


def encode_text(base: Base, prompts: Sequence[str]) -> TextFeatures:
    """Encode prompts; whatever is beyond 77 tokens is cut off."""
    first = base.te1(_tokens(base, base.tokenizer1, prompts), output_hidden_states=True)
    second = base.te2(_tokens(base, base.tokenizer2, prompts), output_hidden_states=True)
    context = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
    return TextFeatures(context, second.text_embeds)


def _tokens(base: Base, tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> torch.Tensor:
    """Token ids (n, 77)."""
    ids = tokenizer(list(prompts), padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    tokens: torch.Tensor = ids.to(base.device)
    return tokens


def unconditional(features: TextFeatures) -> TextFeatures:
    """Zeros in the shape of `features`: what SDXL takes for an empty negative prompt."""
    return TextFeatures(torch.zeros_like(features.context), torch.zeros_like(features.pooled))
