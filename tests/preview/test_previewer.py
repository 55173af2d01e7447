"""Our pictures against diffusers': the base's own, and those with a LoRA that diffusers and PEFT loaded from our file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.errors import DrawingError, LoraFileError
from trainer.lora.adapter import Adapter
from trainer.lora.delta import Factors
from trainer.lora.file import LoraFile, write
from trainer.lora.keys import COMPONENTS, Component
from trainer.lora.mix import Canvas
from trainer.lora.shape import Shape
from trainer.lora.weights import Weighted
from trainer.preview import previewer as module
from trainer.preview.previewer import ROOM, Previewer, way_for
from trainer.recipe import LoraChoice, Request
from trainer.sdxl.base import load_base
from trainer.sdxl.memory import DrawingNeeds, DrawingSizes, reserve
from trainer.sdxl.sampler import Sampling, first_noise, sample
from trainer.sdxl.text import TextFeatures, encode_prompt, encode_text, unconditional

ASKED = Request(prompt="a red house on the left, blue sky", seed=11, steps=4, cfg=4.0, width=64, height=96)
CLOSE = 1e-4


def previewer(folder: Path) -> Previewer:
    return Previewer(load_base(str(folder), torch.device("cpu"), torch.float32))


PLAIN = Shape(4, 2.0)


def save_lora(
    folder: Path, path: Path, seed: int = 1, strength: float = 0.5, shape: Shape = PLAIN, of: Sequence[Component] = COMPONENTS
) -> Path:
    """A LoRA with random changes in all three parts, or in those named; alpha not the rank."""
    base = load_base(str(folder), torch.device("cpu"), torch.float32)
    adapter = Adapter.inject({component: base.parts[component] for component in of}, shape, seed=seed)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, layer in adapter.named():
            layer.up.copy_(torch.randn(layer.up.shape, generator=random) * strength)
    write(path, adapter.factors(), {"ss_base_model_version": "sdxl_base_v1-0"})
    return path


def layers_of(path: Path, start: str) -> dict[str, Factors]:
    """The layers of a plain LoRA whose names begin so."""
    found = {name: layer for name, layer in LoraFile.read(path).layers.items() if name.startswith(start)}
    return {name: layer for name, layer in found.items() if isinstance(layer, Factors)}


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
    pipeline = pipeline_of(folder)
    names = [f"lora{number}" for number in range(len(asked.loras))]
    for name, choice in zip(names, asked.loras, strict=True):
        pipeline.load_lora_weights(choice.path, adapter_name=name)
    if names:
        weights = [{"unet": c.unet, "text_encoder": c.text, "text_encoder_2": c.text} for c in asked.loras]
        pipeline.set_adapters(names, weights)
    return drawn_by(pipeline, asked, kind)


def pipeline_of(folder: Path) -> Any:
    """diffusers' own pipeline, silent."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn_by(pipeline: Any, asked: Request, kind: str = "pt") -> Any:
    """A pipeline's picture with the LoRAs that it has, from our noise."""
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


WHOLE: dict[str, tuple[Shape, tuple[Component, ...]]] = {
    "attention": (Shape(4, 2.0), COMPONENTS),
    "all linear": (Shape(2, 5.0, rslora=True, targets="transformer", block_ranks={"mid_block": 4}), COMPONENTS),
    "convolutions": (Shape(4, 1.0, targets="everything", conv_rank=2, block_ranks={"down_blocks.2": 8}), COMPONENTS),
    "text encoder 1": (Shape(8, 3.0, targets="transformer"), ("te1",)),
    "text encoder 2": (Shape(2, 3.0), ("te2",)),
}
"""LoRAs for every block and layer of SDXL; alpha is never the rank."""


@pytest.fixture(scope="module")
def sides(full_base: Path) -> tuple[Previewer, Any]:
    """The previewer and diffusers' pipeline on the whole of SDXL, each loaded once."""
    return previewer(full_base), pipeline_of(full_base)


@pytest.mark.parametrize("kind", WHOLE)
def test_a_lora_for_all_of_sdxl_gives_diffusers_picture(
    full_base: Path, sides: tuple[Previewer, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """And from a pipeline that was given the file alone, as people do: no scale is told to it."""
    drawing, pipeline = sides
    path = save_lora(full_base, tmp_path / "style.safetensors", 1, 0.2, *WHOLE[kind])
    drawn: list[torch.Tensor] = []
    monkeypatch.setattr(module, "to_picture", drawn.append)  # before its values become 8-bit
    bare = replace(ASKED, width=64, height=64, steps=2)
    for asked in (bare, replace(bare, loras=(LoraChoice(path),))):
        list(drawing.draw(asked))
    alone, got = ((pixels + 1) / 2 for pixels in drawn)
    pipeline.load_lora_weights(path)
    try:
        expected = drawn_by(pipeline, bare)
    finally:
        pipeline.unload_lora_weights()
    assert furthest(got, expected) <= CLOSE
    assert furthest(got, alone) > 100 * CLOSE


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
    with pytest.raises(LoraFileError, match=r"There is no .*file .*gone\.safetensors"):
        drawing.picture(replace(ASKED, loras=(LoraChoice(lora), LoraChoice(tmp_path / "gone.safetensors"))))
    assert drawing.picture(ASKED).tobytes() == before


LONG = "a red house on the left, blue sky, " * 12


def theirs_from(folder: Path, asked: Request, prompt: TextFeatures, negative: TextFeatures) -> torch.Tensor:
    """diffusers' picture from what the encoders said, each made as long as the other by saying it again."""
    drawn = pipeline_of(folder)(
        prompt_embeds=prompt.context, pooled_prompt_embeds=prompt.pooled, negative_prompt_embeds=negative.context,
        negative_pooled_prompt_embeds=negative.pooled, num_inference_steps=asked.steps, guidance_scale=asked.cfg,
        width=asked.width, height=asked.height, latents=first_noise((asked.seed,), asked.height, asked.width),
    )  # fmt: skip
    return torch.from_numpy(np.array(drawn.images[0], dtype=np.float32))


@pytest.mark.parametrize("swapped", [False, True], ids=["long prompt", "long negative"])
def test_prompt_and_negative_may_be_of_different_lengths(toy_base: Path, swapped: bool) -> None:
    prompt, negative = ("a (dog:1.4)", LONG) if swapped else (LONG, "a (dog:1.4)")
    asked = replace(ASKED, prompt=prompt, negative=negative)
    drawing = previewer(toy_base)
    with torch.no_grad():
        read = {text: encode_prompt(drawing.base, [text]) for text in (prompt, negative)}
    chunks = {text: features.context.shape[1] // 77 for text, features in read.items()}
    assert chunks == {LONG: 2, "a (dog:1.4)": 1}
    twice = {text: TextFeatures(read[text].context.repeat(1, 2 // chunks[text], 1), read[text].pooled) for text in read}
    expected = theirs_from(toy_base, asked, twice[prompt], twice[negative])
    got = torch.from_numpy(np.array(drawing.picture(asked), dtype=np.float32))
    assert furthest(got, expected) <= 1


def test_all_of_a_long_prompt_and_its_weights_count(toy_base: Path) -> None:
    drawing = previewer(toy_base)
    prompts = [LONG, LONG + "a dog", LONG + "a (dog:1.5)", LONG + "BREAK a dog"]
    assert len({drawing.picture(replace(ASKED, prompt=prompt)).tobytes() for prompt in prompts}) == len(prompts)


def visits(drawing: Previewer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens in a drawing: parts that move, parts that work."""
    seen: list[str] = []
    base = drawing.base
    for name, model in {"te1": base.te1, "te2": base.te2, "vae": base.vae, "unet": base.unet}.items():

        def move(device: Any, name: str = name, model: Any = model) -> Any:
            seen.append(f"{name} {'comes' if device is CARD else 'goes'}")
            return model

        def work(*_: Any, name: str = name) -> None:
            seen.append(f"{name} works")

        monkeypatch.setattr(model, "to", move)
        (base.vae.decoder if name == "vae" else model).register_forward_pre_hook(work)
    return seen


CARD = torch.device("cpu")
"""Stands for a card: equal to the CPU, and yet another object."""


def test_on_a_short_card_the_parts_come_only_for_their_work(toy_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = previewer(toy_base).picture(replace(ASKED, negative="a dog"))
    monkeypatch.setattr(module, "way_for", lambda *_: DrawingNeeds(tiled=True, copies_away=True, visiting=True, peak=0))
    drawing = Previewer(load_base(str(toy_base), torch.device("cpu"), torch.float32), CARD)
    seen = visits(drawing, monkeypatch)
    got = drawing.picture(replace(ASKED, negative="a dog", steps=4))
    assert list(dict.fromkeys(seen)) == [
        "te1 comes", "te2 comes", "te1 works", "te2 works", "te1 goes", "te2 goes",
        "unet works", "vae comes", "vae works", "vae goes",
    ]  # fmt: skip
    assert got.tobytes() == expected.tobytes()
    seen.clear()
    drawing.picture(replace(ASKED, negative="a dog", seed=2))
    assert not any(event.startswith("te") for event in seen), "a prompt that is known needs no encoder"


def test_the_encoders_go_even_if_encoding_fails(toy_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "way_for", lambda *_: DrawingNeeds(tiled=True, copies_away=True, visiting=True, peak=0))
    drawing = Previewer(load_base(str(toy_base), torch.device("cpu"), torch.float32), CARD)
    seen = visits(drawing, monkeypatch)

    def out_of_memory(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(module, "encode_prompt", out_of_memory)
    with pytest.raises(DrawingError, match=r"Memory ran out while a picture of 64x96 was drawn"):
        drawing.picture(ASKED)
    assert seen == ["te1 comes", "te2 comes", "te1 goes", "te2 goes"]


def test_what_does_not_fit_on_a_card_beside_drawing_is_kept_elsewhere(toy_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = load_base(str(toy_base), torch.device("cpu"), torch.float32)
    weights = sum(4 * weight.numel() for model in base.models.values() for weight in model.parameters())
    named = (each for part in base.parts.values() for each in part.named_parameters())
    mixable = sum(4 * weight.numel() for name, weight in named if weight.dim() > 1 and not name.endswith("_embedding.weight"))
    free = weights + mixable + ROOM
    free += reserve(free)
    seen = []
    for spare in (0, -1, -mixable - reserve(mixable)):
        monkeypatch.setattr(module, "free_bytes", lambda _, spare=spare: free + spare)
        way = way_for(base, torch.device("cuda"))
        seen.append((way.copies_away, way.visiting))
    assert seen == [(False, False), (True, False), (True, True)]


def test_without_a_card_everything_stays_where_it_is(toy_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_bytes", lambda _: 0)
    way = way_for(load_base(str(toy_base), torch.device("cpu"), torch.float32), torch.device("cpu"))
    assert (way.copies_away, way.visiting) == (False, False)


def test_what_is_on_the_card_already_counts_as_free(toy_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = load_base(str(toy_base), torch.device("cpu"), torch.float32)
    asked: list[int] = []

    def way(_: DrawingSizes, free: int, card: bool) -> tuple[DrawingNeeds, bool]:
        asked.append(free)
        return DrawingNeeds(tiled=False, copies_away=False, visiting=False, peak=0), card

    monkeypatch.setattr(module, "way_to_draw", way)
    monkeypatch.setattr(module, "free_bytes", lambda _: 1000)
    for device in ("cpu", "cuda"):
        way_for(base, torch.device(device))
    assert asked == [1000 + sum(weight.nbytes for model in base.models.values() for weight in model.parameters()), 1000]


@pytest.mark.parametrize(("free", "where"), [(8 * 2**30, "cpu"), (10 * 2**30, "cuda")])
def test_a_tight_card_is_filled_from_the_cpu(free: int, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: str, device: torch.device, dtype: torch.dtype) -> None:
        assert (device.type, dtype) == (where, torch.float16)
        raise DrawingError("seen")

    monkeypatch.setattr(module, "best_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(module, "free_bytes", lambda _: free)
    monkeypatch.setattr(module, "load_base", load)
    with pytest.raises(DrawingError, match="seen"):
        Previewer.load("starter")


@pytest.mark.parametrize("kept_on", [None, torch.device("cpu")])
def test_weight_zero_restores_every_bit_of_models_that_have_moved(
    toy_base: Path, lora: Path, kept_on: torch.device | None
) -> None:
    """To another type and back stands for to another device and back: both give the weights a new place in memory."""
    base = load_base(str(toy_base), torch.device("cpu"), torch.float32)
    canvas, file = Canvas(base.parts, base.version, kept_on), LoraFile.read(lora)

    def weights() -> list[torch.Tensor]:
        return [weight for part in base.parts.values() for weight in part.parameters()]

    before = [weight.clone() for weight in weights()]
    for strength in (1.0, 0.3, 0.0):
        canvas.lay([Weighted(file, strength, strength)])
        assert all(map(torch.equal, weights(), before)) is (strength == 0)
        places = [weight.data_ptr() for weight in weights()]
        for part in base.parts.values():
            part.to(torch.float64)
            part.to(torch.float32)
        assert places != [weight.data_ptr() for weight in weights()]
    assert all(map(torch.equal, weights(), before))


def test_a_live_drawing_shows_each_step_small(toy_base: Path) -> None:
    drawing = previewer(toy_base)
    live = list(drawing.draw(ASKED, live=True))
    assert [step.glimpse.size for step in live if step.glimpse] == [(8, 12)] * 4
    quiet = list(drawing.draw(ASKED))
    assert not any(step.glimpse for step in quiet)
    assert live[-1].picture
    assert quiet[-1].picture
    assert live[-1].picture.tobytes() == quiet[-1].picture.tobytes()


def test_a_drawing_has_the_sampler_that_was_asked_for(toy_base: Path) -> None:
    asked = replace(ASKED, sampler="UniPC")
    got = np.asarray(previewer(toy_base).picture(asked), dtype=int)
    drawing = previewer(toy_base)
    with torch.no_grad():
        prompt = encode_prompt(drawing.base, [asked.prompt])
    how = Sampling(asked.width, asked.height, asked.steps, asked.cfg, (asked.seed,), "UniPC")
    *_, latents = sample(drawing.base, prompt, unconditional(prompt), how)
    expected = ((drawing.base.decode(latents)[0] + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert abs(got - expected).max() <= 1
    assert abs(got - np.asarray(previewer(toy_base).picture(ASKED), dtype=int)).max() > 1


class Operations(TorchDispatchMode):
    """What is computed while it is on, by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def operations(drawing: Previewer, asked: Request) -> list[list[str]]:
    """What is computed in each denoising step."""
    drawn, made = drawing.draw(asked), []
    for _ in range(asked.steps):
        with Operations() as seen:
            next(drawn)
        made.append(seen.names)
    return made


def test_with_eight_loras_a_step_is_the_bases_own_operations(toy_base: Path, lora: Path, other: Path) -> None:
    drawing = previewer(toy_base)
    eight = tuple(LoraChoice(path, 0.1 * number, 0.5) for number in range(1, 5) for path in (lora, other))
    alone, mixed = operations(drawing, ASKED), operations(drawing, replace(ASKED, loras=eight))
    assert len(alone[1]) > 500
    assert len(eight) == 8
    assert mixed[1:] == alone[1:]
    assert len(mixed[0]) > len(alone[0]), "the mix is laid before the first step"


def test_moving_a_slider_of_the_unet_encodes_no_text(toy_base: Path, lora: Path, other: Path, tmp_path: Path) -> None:
    drawing, read = previewer(toy_base), []
    drawing.base.te1.register_forward_pre_hook(lambda *_: read.append(1))
    unet_only = tmp_path / "unet.safetensors"
    write(unet_only, layers_of(other, "lora_unet_"), {})

    def encoded(*loras: LoraChoice) -> int:
        read.clear()
        drawing.picture(replace(ASKED, negative="a dog", steps=1, loras=loras))
        return len(read)

    assert encoded() == 2, "a prompt and a negative prompt"
    assert [encoded(LoraChoice(lora, unet, 0.0)) for unet in (0.5, 1.0, 0.0)] == [0, 0, 0]
    assert [encoded(LoraChoice(lora, unet, 0.7)) for unet in (0.5, 1.0, 0.0)] == [2, 0, 0]
    assert [encoded(LoraChoice(unet_only, both, both)) for both in (0.5, 1.0)] == [0, 0], "it changes no encoder"
    assert encoded(LoraChoice(lora, 0.5, 0.7)) == 0, "the mix of before is still known"


def theirs_in_steps(folder: Path, asked: Request, weights: list[list[float]]) -> torch.Tensor:
    """diffusers' picture whose adapters have other weights in each step, in the U-Net alone."""
    pipeline = pipeline_of(folder)
    names = [f"lora{number}" for number in range(len(asked.loras))]
    for name, choice in zip(names, asked.loras, strict=True):
        pipeline.load_lora_weights(choice.path, adapter_name=name)

    def set_weights(step: int) -> None:
        if step < len(weights):
            each = [{"unet": weight, "text_encoder": 0.0, "text_encoder_2": 0.0} for weight in weights[step]]
            pipeline.set_adapters(names, each)

    def after(_: Any, step: int, __: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        set_weights(step + 1)
        return kwargs

    set_weights(0)
    drawn = pipeline(
        asked.prompt, num_inference_steps=asked.steps, guidance_scale=asked.cfg, width=asked.width, height=asked.height,
        latents=first_noise((asked.seed,), asked.height, asked.width), callback_on_step_end=after,
    )  # fmt: skip
    return torch.from_numpy(np.array(drawn.images[0], dtype=np.float32))


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
def test_a_lora_in_a_share_of_the_steps_gives_diffusers_picture(toy_base: Path, lora: Path, other: Path) -> None:
    loras = (LoraChoice(lora, 0.7, 0.0).with_parts("@steps=0-0.5"), LoraChoice(other, 1.0, 0.0).with_parts("@steps=0.25-0.75"))
    asked, drawing = replace(ASKED, loras=loras), previewer(toy_base)
    got = torch.from_numpy(np.array(drawing.picture(asked), dtype=np.float32))
    expected = theirs_in_steps(toy_base, asked, [[0.7, 0.0], [0.7, 1.0], [0.0, 1.0], [0.0, 0.0]])
    assert furthest(got, expected) <= 1
    whole = replace(asked, loras=tuple(choice.with_parts("") for choice in loras))
    assert furthest(got, torch.from_numpy(np.array(drawing.picture(whole), dtype=np.float32))) > 20


def test_the_prompt_is_read_with_a_lora_that_begins_later(toy_base: Path, lora: Path) -> None:
    """Its text encoders' weight counts from the first step, as it is the prompt that they read."""
    drawing = previewer(toy_base)
    late = LoraChoice(lora, 0.0, 1.0).with_parts("@steps=0.5-1")
    assert (
        drawing.picture(replace(ASKED, loras=(late,))).tobytes()
        == drawing.picture(replace(ASKED, loras=(LoraChoice(lora, 0.0, 1.0),))).tobytes()
        != drawing.picture(ASKED).tobytes()
    )


def test_blocks_of_a_lora_are_drawn_with(toy_base: Path, lora: Path, tmp_path: Path) -> None:
    """The style's block alone draws what a file does that holds that block alone."""
    style, drawing = tmp_path / "style.safetensors", previewer(toy_base)
    write(style, layers_of(lora, "lora_unet_output_blocks_1_1_"), {})
    got = drawing.picture(replace(ASKED, loras=(LoraChoice(lora, 0.8, 0.0).with_parts("@style"),)))
    assert got.tobytes() == drawing.picture(replace(ASKED, loras=(LoraChoice(style, 0.8, 0.0),))).tobytes()
    assert got.tobytes() != drawing.picture(ASKED).tobytes()


def test_at_equal_strength_a_strong_and_a_weak_lora_meet_in_the_middle(toy_base: Path, lora: Path, tmp_path: Path) -> None:
    """Of one file and the same five times as strong, each becomes sqrt 5 times the weak one, whatever its slider says."""
    strong, drawing = tmp_path / "strong.safetensors", previewer(toy_base)
    write(strong, {name: replace(layer, alpha=5 * layer.alpha) for name, layer in layers_of(lora, "").items()}, {})
    loras = (LoraChoice(lora, 0.6, 0.0), LoraChoice(strong, -0.1, 0.0))
    got = drawing.picture(replace(ASKED, loras=loras, equal_strength=True))
    expected = drawing.picture(replace(ASKED, loras=(LoraChoice(lora, (0.6 - 0.1) * 5**0.5, 0.0),)))
    assert abs(np.array(got, dtype=int) - np.array(expected, dtype=int)).max() <= 1
    assert got.tobytes() != drawing.picture(replace(ASKED, loras=loras)).tobytes()
    off = (LoraChoice(lora, 0.6, 0.0), LoraChoice(strong, 0.0, 0.0))
    alone = drawing.picture(replace(ASKED, loras=off, equal_strength=True))
    assert abs(np.array(alone, dtype=int) - np.array(drawing.picture(replace(ASKED, loras=off[:1])), dtype=int)).max() <= 1


def test_the_files_of_a_mix_are_read_once_however_large_it_is(
    toy_base: Path, lora: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, reading = [], LoraFile.read

    def counted(path: Path) -> LoraFile:
        read.append(path)
        return reading(path)

    monkeypatch.setattr(module, "FILES", lora.stat().st_size)
    monkeypatch.setattr(LoraFile, "read", counted)
    drawing = previewer(toy_base)
    both = (LoraChoice(lora), LoraChoice(other))
    for loras in (both, both, both[:1], both):
        drawing.picture(replace(ASKED, steps=1, loras=loras))
    assert read == [lora, other, other], "alone, the first leaves the second no room"


def test_tensors_that_are_not_drawn_with_are_told_of(toy_base: Path, lora: Path, tmp_path: Path) -> None:
    tensors, path = load_file(lora), tmp_path / "odd.safetensors"
    odd = ("lora_unet_input_blocks_1_0_in_layers_0.w_norm", "lora_unet_input_blocks_2_0_in_layers_0.w_norm", "colour.of.night")
    save_file({**tensors, **{name: torch.zeros(2) for name in odd}}, path)
    drawing, loras = previewer(toy_base), (LoraChoice(path), LoraChoice(lora))
    told = drawing.remarks(loras, "auto", tmp_path)
    assert [(remark.level, remark.sentence) for remark in told] == [
        (
            "note",
            "odd is drawn without 3 of its tensors: 2 (a norm's weight: only linear layers and convolutions are mixed), "
            "1 (unknown, such as colour.of.night).",
        )
    ]
    assert drawing.remarks((LoraChoice(path, 0.0, 0.0), LoraChoice(lora)), "auto", tmp_path) == []
