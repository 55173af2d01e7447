"""What SDXL reads of captions and prompts, against the pipeline's own encoding and against sums done by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from transformers import CLIPTokenizer

from trainer.home import shipped
from trainer.sdxl.base import Base, load_base
from trainer.sdxl.sampler import Sampling, sample
from trainer.sdxl.text import TextFeatures, aligned, encode_prompt, encode_text, unconditional

CAPTIONS = ["a red house", "", "two boats, " * 60]
START, END = 4094, 4095
WORDS = "a red house on the left and a blue boat on the right "
"""Thirteen tokens."""


@pytest.fixture(scope="module")
def base(toy_base: Path) -> Base:
    return load_base(str(toy_base), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def encoded(base: Base) -> TextFeatures:
    with torch.no_grad():
        return encode_text(base, CAPTIONS)


def prompted(base: Base, *prompts: str) -> TextFeatures:
    with torch.no_grad():
        return encode_prompt(base, prompts)


def by_hand(base: Base, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states (77, C) of both encoders and the pooled output (P) of one chunk, from the models themselves."""
    fill = 75 - len(ids)
    with torch.no_grad():
        first = base.te1(torch.tensor([[START, *ids, END, *[END] * fill]]), output_hidden_states=True)
        second = base.te2(torch.tensor([[START, *ids, END, *[0] * fill]]), output_hidden_states=True)
    return first.hidden_states[-2][0], second.hidden_states[-2][0], second.text_embeds[0]


def words(base: Base, text: str) -> list[int]:
    return [int(id) for id in base.tokenizer1(text, add_special_tokens=False, verbose=False).input_ids]


def equal(one: TextFeatures, other: TextFeatures) -> bool:
    return torch.equal(one.context, other.context) and torch.equal(one.pooled, other.pooled)


def test_captions_are_encoded_as_diffusers_does(toy_base: Path, encoded: TextFeatures) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(toy_base, add_watermarker=False)
    with torch.no_grad():
        context, _, pooled, _ = pipeline.encode_prompt(CAPTIONS, device="cpu", do_classifier_free_guidance=False)
    torch.testing.assert_close(encoded.context, context, rtol=0, atol=1e-6)
    torch.testing.assert_close(encoded.pooled, pooled, rtol=0, atol=1e-6)


def test_the_shapes_are_those_of_both_encoders_together(encoded: TextFeatures) -> None:
    assert encoded.context.shape == (3, 77, 16 + 24)
    assert encoded.pooled.shape == (3, 24)


def test_brackets_in_captions_are_meant(base: Base) -> None:
    with torch.no_grad():
        plain, marked = encode_text(base, ["a house"]), encode_text(base, ["a (house:1.5)"])
        escaped = encode_prompt(base, [r"a \(house:1.5\)"])
    assert not torch.equal(plain.context, marked.context)
    assert equal(marked, escaped)


@pytest.mark.parametrize("prompt", ["", "a red house, on grass", "a:b - c!!! \\ 1.5", "猫 — müde", "house " * 75])
def test_a_prompt_without_brackets_is_the_caption_to_the_bit(base: Base, prompt: str) -> None:
    assert len(words(base, prompt)) <= 75
    with torch.no_grad():
        assert equal(encode_prompt(base, [prompt]), encode_text(base, [prompt]))


def test_prompts_together_are_the_captions_together_to_the_bit(base: Base) -> None:
    with torch.no_grad():
        assert equal(encode_prompt(base, ["a red house", "", "two boats"]), encode_text(base, ["a red house", "", "two boats"]))


def test_each_chunk_of_a_long_prompt_is_encoded_for_itself(base: Base) -> None:
    ids = words(base, WORDS * 14)
    got = prompted(base, WORDS * 14)
    assert len(ids) > 150
    assert got.context.shape == (1, 3 * 77, 40)
    parts = [by_hand(base, ids[start : start + 75]) for start in (0, 75, 150)]
    expected = torch.cat([torch.cat(part[:2], dim=-1) for part in parts])
    torch.testing.assert_close(got.context[0], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(got.pooled[0], parts[0][2], rtol=0, atol=1e-5)


def test_a_tag_is_not_torn_apart(base: Base) -> None:
    ids = words(base, "a red house on grass, " * 20)
    comma = words(base, ",")[0]
    assert ids[74] != comma != ids[75]
    end = max(place for place in range(75) if ids[place] == comma) + 1
    got = prompted(base, "a red house on grass, " * 20)
    first = torch.cat(by_hand(base, ids[:end])[:2], dim=-1)
    second = torch.cat(by_hand(base, ids[end:])[:2], dim=-1)
    torch.testing.assert_close(got.context[0], torch.cat([first, second]), rtol=0, atol=1e-5)


def test_break_begins_a_chunk(base: Base) -> None:
    got = prompted(base, "a red house BREAK on grass")
    parts = [prompted(base, "a red house"), prompted(base, "on grass")]
    torch.testing.assert_close(got.context, torch.cat([part.context for part in parts], dim=1), rtol=0, atol=1e-5)
    torch.testing.assert_close(got.pooled, parts[0].pooled, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("a (red:1.3) house", [("a", 1.0), ("red", 1.3), ("house", 1.0)]),
        ("((a)) [red house]", [("a", 1.21), ("red house", 1 / 1.1)]),
        ("(a red:0) house", [("a red", 0.0), ("house", 1.0)]),
        ("a (red:-0.5) house", [("a", 1.0), ("red", -0.5), ("house", 1.0)]),
    ],
)  # fmt: skip
def test_weights_multiply_what_is_said_of_a_token_and_the_mean_stays(
    base: Base, prompt: str, pieces: list[tuple[str, float]]
) -> None:
    ids = [id for text, _ in pieces for id in words(base, text)]
    weights = [weight for text, weight in pieces for _ in words(base, text)]
    column = torch.tensor([1.0, *weights, *[1.0] * (76 - len(weights))], dtype=torch.float64)[:, None]
    expected, least, most = [], 1 / max(column.abs()), 1 / min(column.abs().clamp(min=0.1))
    for states in (part.double() for part in by_hand(base, ids)[:2]):
        scaled = states * column
        restoring = states.mean() / scaled.mean()
        expected.append(scaled * min(max(restoring, least), most))
    got = prompted(base, prompt)
    torch.testing.assert_close(got.context[0].double(), torch.cat(expected, dim=-1), rtol=0, atol=2e-5)
    assert torch.equal(got.pooled, prompted(base, " ".join(text for text, _ in pieces)).pooled)


def test_states_whose_mean_is_far_from_zero_keep_it_exactly() -> None:
    base = recording(start=0, end=1, states=torch.randn(1, 77, 8, generator=torch.Generator().manual_seed(1)) + 3)
    before, after = prompted(base, "a b c"), prompted(base, "a (b:1.7) c")
    assert before.context[0, :, :8].mean() == pytest.approx(3, abs=0.1)
    for part in (slice(0, 8), slice(8, 16)):
        torch.testing.assert_close(after.context[..., part].mean(), before.context[..., part].mean(), rtol=1e-6, atol=0)
    ratio = after.context / before.context
    assert (ratio[0, 2] / ratio[0, 1]).tolist() == pytest.approx([1.7] * 16, rel=1e-5)


def test_a_mean_near_zero_does_not_turn_the_picture_upside_down() -> None:
    noise = torch.randn(1, 77, 8, generator=torch.Generator().manual_seed(1))
    centred = noise - noise.mean() + 1e-4
    got = prompted(recording(start=0, end=1, states=centred), "a (b:1.3) c")
    ratio = got.context[0, :, :8] / centred[0]
    assert ratio.min() >= 1 / 1.3 - 1e-4
    assert ratio.max() <= 1.3 + 1e-4


def test_a_prompt_means_the_same_alone_and_beside_a_longer_one(base: Base) -> None:
    short, long = "a (red:1.4) house", WORDS * 10
    together = prompted(base, short, long)
    assert together.context.shape == (2, 154, 40)
    alone = prompted(base, short)
    torch.testing.assert_close(together.context[0, :77], alone.context[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(together.context[0, 77:], alone.context[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(together.context[1], prompted(base, long).context[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(together.pooled[:1], alone.pooled, rtol=0, atol=1e-5)


def test_lengths_are_brought_together_without_changing_the_picture(base: Base) -> None:
    one, two, three = prompted(base, "a house"), prompted(base, WORDS * 10), prompted(base, WORDS * 14)
    fitted = aligned([one, two, three])
    assert [each.context.shape[1] for each in fitted] == [6 * 77] * 3
    how = Sampling(64, 64, 2, 1.0, (1,))
    for before, after in zip((one, two, three), fitted, strict=True):
        *_, expected = sample(base, before, unconditional(before), how)
        *_, got = sample(base, after, unconditional(after), how)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


def test_gradients_reach_both_encoders_through_weights(base: Base) -> None:
    fresh = load_base(base.source, torch.device("cpu"), torch.float32)
    weights = [next(model.parameters()).requires_grad_(True) for model in (fresh.te1, fresh.te2)]
    encode_prompt(fresh, ["a (red:1.3) house"]).context.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_leave_the_type_as_it_is(toy_base: Path, dtype: torch.dtype) -> None:
    small = load_base(str(toy_base), torch.device("cpu"), dtype)
    assert prompted(small, "a (red:1.3) house").context.dtype == dtype


def recording(start: int, end: int, states: torch.Tensor, tokenizers: tuple[Any, Any] | None = None) -> Any:
    """A base whose encoders answer `states` to everything and keep the ids that they were asked."""

    class Letters:
        bos_token_id, eos_token_id, pad_token_id = start, end, end

        def __call__(self, text: str, **_: Any) -> Any:
            return SimpleNamespace(input_ids=[ord(letter) for letter in text if letter != " "])

        def convert_tokens_to_ids(self, _: str) -> int:
            return ord(",")

    def encoder() -> Any:
        asked: list[torch.Tensor] = []

        def call(ids: torch.Tensor, **_: Any) -> Any:
            asked.append(ids)
            rows = states.expand(len(ids), -1, -1)
            return SimpleNamespace(hidden_states=[rows, rows], text_embeds=rows[:, 0])

        class Encoder:
            device, config, ids = torch.device("cpu"), SimpleNamespace(hidden_size=states.shape[-1]), asked
            __call__ = staticmethod(call)

        return Encoder()

    first, second = tokenizers or (Letters(), Letters())
    return SimpleNamespace(
        te1=encoder(), te2=encoder(), tokenizer1=first, tokenizer2=second, device=torch.device("cpu")
    )  # fmt: skip


def test_the_ids_are_clips_with_each_encoders_own_padding() -> None:
    folder = shipped("assets", "sdxl", "tokenizer")
    tokenizers = (CLIPTokenizer.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder, pad_token="!"))
    base = recording(start=49406, end=49407, states=torch.ones(1, 77, 4), tokenizers=tokenizers)
    prompted(cast(Base, base), "a watercolor painting of a cat")
    expected = [49406, 320, 14211, 3086, 539, 320, 2368, 49407]
    assert base.te1.ids[0].tolist() == [[*expected, *[49407] * 69]]
    assert base.te2.ids[0].tolist() == [[*expected, *[0] * 69]]


def test_masked_rows_are_zeros_and_the_others_untouched(encoded: TextFeatures) -> None:
    masked = encoded.masked(torch.tensor([True, False, True]))
    assert not masked.context[1].any()
    assert not masked.pooled[1].any()
    assert torch.equal(masked.context[[0, 2]], encoded.context[[0, 2]])
    assert torch.equal(masked.pooled[[0, 2]], encoded.pooled[[0, 2]])


def test_the_unconditional_input_is_zeros_as_long_as_the_prompt(base: Base) -> None:
    long = prompted(base, WORDS * 10)
    nothing = unconditional(long)
    assert nothing.context.shape == long.context.shape == (1, 154, 40)
    assert nothing.pooled.shape == long.pooled.shape
    assert not nothing.context.any()
    assert not nothing.pooled.any()
