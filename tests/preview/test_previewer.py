"""Our pictures against diffusers': the base's own, and those with a LoRA that diffusers and PEFT loaded from our file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from trainer.errors import LoraFileError
from trainer.lora.adapter import Adapter
from trainer.lora.file import write
from trainer.preview.previewer import Previewer
from trainer.recipe import LoraChoice, Request
from trainer.sdxl.base import load_base
from trainer.sdxl.sampler import Sampling, first_noise, sample
from trainer.sdxl.text import encode_text, unconditional

ASKED = Request(prompt="a red house on the left, blue sky", seed=11, steps=4, cfg=4.0, width=64, height=96)
CLOSE = 1e-4


def previewer(folder: Path) -> Previewer:
    return Previewer(load_base(str(folder), torch.device("cpu"), torch.float32))


def save_lora(folder: Path, path: Path, seed: int = 1, strength: float = 0.5) -> Path:
    """A LoRA with random changes in all three parts, alpha not the rank."""
    base = load_base(str(folder), torch.device("cpu"), torch.float32)
    adapter = Adapter.inject(base.parts, rank=4, alpha=2.0, seed=seed)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, layer in adapter.named():
            layer.up.copy_(torch.randn(layer.up.shape, generator=random) * strength)
    write(path, adapter.factors(), {"ss_base_model_version": "sdxl_base_v1-0"})
    return path


@pytest.fixture(scope="module")
def lora(toy_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lora(toy_base, tmp_path_factory.mktemp("loras") / "one.safetensors")


@pytest.fixture(scope="module")
def other(toy_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lora(toy_base, tmp_path_factory.mktemp("loras") / "two.safetensors", seed=2)


def ours(folder: Path, asked: Request) -> torch.Tensor:
    """The picture's pixels (3, h, w) in 0 … 1, before they become 8-bit."""
    drawing = previewer(folder)
    drawing.lay(asked.loras)
    with torch.no_grad():
        prompt = encode_text(drawing.base, [asked.prompt])
        negative = encode_text(drawing.base, [asked.negative]) if asked.negative else unconditional(prompt)
    how = Sampling(asked.width, asked.height, asked.steps, asked.cfg, (asked.seed,))
    *_, latents = sample(drawing.base, prompt, negative, how)
    return (drawing.base.decode(latents)[0] + 1) / 2


def theirs(folder: Path, asked: Request, kind: str = "pt") -> Any:
    """diffusers' picture from the same noise."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    names = [f"lora{number}" for number in range(len(asked.loras))]
    for name, choice in zip(names, asked.loras, strict=True):
        pipeline.load_lora_weights(choice.path, adapter_name=name)
    if names:
        weights = [{"unet": c.unet, "text_encoder": c.text, "text_encoder_2": c.text} for c in asked.loras]
        pipeline.set_adapters(names, weights)
    drawn = pipeline(
        asked.prompt, negative_prompt=asked.negative or None, num_inference_steps=asked.steps, guidance_scale=asked.cfg,
        width=asked.width, height=asked.height, latents=first_noise((asked.seed,), asked.height, asked.width), output_type=kind,
    )  # fmt: skip
    return drawn.images[0]


def furthest(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference of any value."""
    return float((one - other).abs().max())


@pytest.mark.parametrize(
    "change", [{}, {"negative": "a dog"}, {"cfg": 1.0}, {"width": 128}, {"prompt": ""}, {"prompt": "house " * 100}],
    ids=["plain", "negative", "no guidance", "wide", "empty prompt", "long prompt"],
)  # fmt: skip
def test_the_bases_picture_is_diffusers(toy_base: Path, change: dict[str, Any]) -> None:
    asked = replace(ASKED, **change)
    assert furthest(ours(toy_base, asked), theirs(toy_base, asked)) <= CLOSE


@pytest.mark.parametrize(("unet", "text"), [(1.0, 1.0), (0.5, 0.5), (0.8, 0.0), (0.0, 1.0), (-0.6, 0.3)])
def test_a_lora_gives_diffusers_picture(toy_base: Path, lora: Path, unet: float, text: float) -> None:
    asked = replace(ASKED, loras=(LoraChoice(lora, unet, text),))
    got = ours(toy_base, asked)
    assert furthest(got, theirs(toy_base, asked)) <= CLOSE
    assert furthest(got, ours(toy_base, ASKED)) > 100 * CLOSE


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
def test_two_loras_give_diffusers_picture(toy_base: Path, lora: Path, other: Path) -> None:
    asked = replace(ASKED, loras=(LoraChoice(lora, 0.7, 0.7), LoraChoice(other, 0.4, 0.4)))
    assert furthest(ours(toy_base, asked), theirs(toy_base, asked)) <= CLOSE


def test_a_lora_of_every_sdxl_layer_gives_diffusers_picture(full_base: Path, tmp_path: Path) -> None:
    path = save_lora(full_base, tmp_path / "full.safetensors", strength=0.2)
    asked = replace(ASKED, width=64, height=64, steps=2, loras=(LoraChoice(path, 0.8, 0.8),))
    got = ours(full_base, asked)
    assert furthest(got, theirs(full_base, asked)) <= CLOSE
    assert furthest(got, ours(full_base, replace(asked, loras=()))) > 100 * CLOSE


def test_the_finished_picture_is_diffusers_to_one_step_of_8_bits(toy_base: Path, lora: Path) -> None:
    asked = replace(ASKED, loras=(LoraChoice(lora, 1.0, 1.0),))
    expected = np.asarray(theirs(toy_base, asked, "pil"), dtype=int)
    got = np.asarray(previewer(toy_base).picture(asked), dtype=int)
    assert got.shape == (96, 64, 3)
    assert abs(got - expected).max() <= 1


def test_drawing_tells_of_every_step(toy_base: Path) -> None:
    drawn = list(previewer(toy_base).draw(ASKED))
    assert [(step.step, step.steps) for step in drawn] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [step.picture is not None for step in drawn] == [False, False, False, True]


def test_after_a_lora_the_base_draws_as_before(toy_base: Path, lora: Path) -> None:
    drawing = previewer(toy_base)
    before = drawing.picture(ASKED).tobytes()
    changed = drawing.picture(replace(ASKED, loras=(LoraChoice(lora),))).tobytes()
    after = drawing.picture(replace(ASKED, loras=(LoraChoice(lora, 0.0, 0.0),))).tobytes()
    assert changed != before
    assert after == before


def test_a_drawing_that_is_given_up_leaves_no_trace(toy_base: Path, lora: Path) -> None:
    drawing = previewer(toy_base)
    before = drawing.picture(ASKED).tobytes()
    given_up = drawing.draw(replace(ASKED, loras=(LoraChoice(lora),)))
    next(given_up)
    assert drawing.picture(ASKED).tobytes() == before


def test_prompts_are_read_anew_when_the_text_weight_changes(toy_base: Path, lora: Path) -> None:
    drawing = previewer(toy_base)
    drawing.picture(replace(ASKED, loras=(LoraChoice(lora, 0.0, 1.0),)))
    got = drawing.picture(replace(ASKED, loras=(LoraChoice(lora, 0.0, -1.0),)))
    fresh = previewer(toy_base).picture(replace(ASKED, loras=(LoraChoice(lora, 0.0, -1.0),)))
    assert got.tobytes() == fresh.tobytes()


def test_a_lora_that_was_replaced_on_disk_is_read_anew(toy_base: Path, lora: Path, other: Path, tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    drawing = previewer(toy_base)
    path.write_bytes(lora.read_bytes())
    drawing.picture(replace(ASKED, loras=(LoraChoice(path),)))
    path.write_bytes(other.read_bytes())
    got = drawing.picture(replace(ASKED, loras=(LoraChoice(path),)))
    assert got.tobytes() == previewer(toy_base).picture(replace(ASKED, loras=(LoraChoice(other),))).tobytes()


def test_a_missing_lora_is_told_of_and_nothing_changes(toy_base: Path, lora: Path, tmp_path: Path) -> None:
    drawing = previewer(toy_base)
    before = drawing.picture(ASKED).tobytes()
    with pytest.raises(LoraFileError, match=r"There is no LoRA file .*gone\.safetensors"):
        drawing.picture(replace(ASKED, loras=(LoraChoice(lora), LoraChoice(tmp_path / "gone.safetensors"))))
    assert drawing.picture(ASKED).tobytes() == before
