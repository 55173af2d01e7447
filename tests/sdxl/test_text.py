"""What SDXL reads of a prompt, against the pipeline's own encoding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from trainer.sdxl.base import load_base
from trainer.sdxl.text import TextFeatures, encode_text, unconditional

PROMPTS = ["a red house", "", "two boats, " * 60]


@pytest.fixture(scope="module")
def encoded(toy_base: Path) -> TextFeatures:
    with torch.no_grad():
        return encode_text(load_base(str(toy_base), torch.device("cpu"), torch.float32), PROMPTS)


def test_prompts_are_encoded_as_diffusers_does(toy_base: Path, encoded: TextFeatures) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(toy_base, add_watermarker=False)
    with torch.no_grad():
        context, _, pooled, _ = pipeline.encode_prompt(PROMPTS, device="cpu", do_classifier_free_guidance=False)
    torch.testing.assert_close(encoded.context, context, rtol=0, atol=1e-6)
    torch.testing.assert_close(encoded.pooled, pooled, rtol=0, atol=1e-6)


def test_the_shapes_are_those_of_both_encoders_together(encoded: TextFeatures) -> None:
    assert encoded.context.shape == (3, 77, 16 + 24)
    assert encoded.pooled.shape == (3, 24)


def test_masked_rows_are_zeros_and_the_others_untouched(encoded: TextFeatures) -> None:
    masked = encoded.masked(torch.tensor([True, False, True]))
    assert not masked.context[1].any()
    assert not masked.pooled[1].any()
    assert torch.equal(masked.context[[0, 2]], encoded.context[[0, 2]])
    assert torch.equal(masked.pooled[[0, 2]], encoded.pooled[[0, 2]])


def test_the_unconditional_input_is_zeros(encoded: TextFeatures) -> None:
    nothing = unconditional(encoded)
    assert nothing.context.shape == encoded.context.shape
    assert nothing.pooled.shape == encoded.pooled.shape
    assert not nothing.context.any()
    assert not nothing.pooled.any()
