"""Text -> what SDXL reads of it: both encoders' penultimate layers, and encoder 2's pooled output.

Two ways: `encode_text` takes captions literally and cuts them off after 77 tokens, for training; `encode_prompt` takes
prompts with weights and of any length, for drawing. Without brackets and up to 75 tokens of text both give the same,
bit for bit. Differentiable.

Long and weighted prompts are read as A1111 reads them: chunks of 75 tokens are encoded each for itself and laid end to end,
the pooled output is the first chunk's, and a weight multiplies what the encoder says of a token, after which the chunk's mean
is restored. (ComfyUI goes from the empty prompt towards the token instead; its weights act differently from these.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import CLIPTokenizer

from trainer.sdxl.base import Base
from trainer.sdxl.prompt import CHUNK, Token, chunks, parse


@dataclass(frozen=True)
class TextFeatures:
    """`context` is (n, 77 k, C1 + C2) for k chunks, `pooled` is (n, P)."""

    context: torch.Tensor
    pooled: torch.Tensor

    def masked(self, keep: torch.Tensor) -> TextFeatures:
        """Rows where `keep` (n) is 0 become zeros, which is SDXL's unconditional input."""
        keep = keep.to(self.pooled)
        return TextFeatures(self.context * keep[:, None, None], self.pooled * keep[:, None])


def encode_text(base: Base, captions: Sequence[str]) -> TextFeatures:
    """Encode captions, brackets and all; whatever is beyond 77 tokens is cut off."""
    return _features(base, _cut(base.tokenizer1, captions), _cut(base.tokenizer2, captions))


def encode_prompt(base: Base, prompts: Sequence[str]) -> TextFeatures:
    """Encode prompts of any length, with weights. A row means the same alone and beside longer ones."""
    rows = [_chunks(base, prompt) for prompt in prompts]
    firsts, seconds = ([chunk for row in rows for chunk in row[encoder]] for encoder in (0, 1))
    features = _features(base, _padded(base.tokenizer1, firsts), _padded(base.tokenizer2, seconds))
    width = base.te1.config.hidden_size
    weighted = [
        _emphasised(features.context[..., :width], _weights(firsts)),
        _emphasised(features.context[..., width:], _weights(seconds)),
    ]
    counts = [len(row[0]) for row in rows]
    contexts = [part.flatten(0, 1)[None] for part in torch.cat(weighted, dim=-1).split(counts)]
    pooled = [part[:1] for part in features.pooled.split(counts)]
    whole = aligned([TextFeatures(*row) for row in zip(contexts, pooled, strict=True)])
    return TextFeatures(torch.cat([row.context for row in whole]), torch.cat([row.pooled for row in whole]))


def aligned(features: Sequence[TextFeatures]) -> list[TextFeatures]:
    """The same features with contexts of one length, so that they fit into one batch.

    Shorter ones are repeated, which changes nothing: attention over k copies of every token is attention over one.
    """
    length = math.lcm(*(each.context.shape[1] for each in features))
    return [TextFeatures(each.context.repeat(1, length // each.context.shape[1], 1), each.pooled) for each in features]


def unconditional(features: TextFeatures) -> TextFeatures:
    """Zeros in the shape of `features`: what SDXL takes for an empty negative prompt."""
    return TextFeatures(torch.zeros_like(features.context), torch.zeros_like(features.pooled))


def _features(base: Base, first_ids: torch.Tensor, second_ids: torch.Tensor) -> TextFeatures:
    """Token ids (n, 77) of both encoders, wherever they are, to features on the base's device."""
    first = base.te1(first_ids.to(base.te1.device), output_hidden_states=True)
    second = base.te2(second_ids.to(base.te2.device), output_hidden_states=True)
    context = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
    return TextFeatures(context.to(base.device), second.text_embeds.to(base.device))


def _cut(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> torch.Tensor:
    """Token ids (n, 77)."""
    called = tokenizer(list(captions), padding="max_length", max_length=CHUNK + 2, truncation=True, return_tensors="pt")
    tokens: torch.Tensor = called.input_ids
    return tokens


def _chunks(base: Base, prompt: str) -> tuple[list[list[Token]], list[list[Token]]]:
    """A prompt's chunks for both encoders, equally many: their tokenizers may divide rare signs differently."""
    stretches = parse(prompt)
    first, second = (
        chunks(
            [[Token(id, piece.weight) for piece in stretch for id in _ids(tokenizer, piece.text)] for stretch in stretches],
            tokenizer.convert_tokens_to_ids(",</w>"),
        )
        for tokenizer in (base.tokenizer1, base.tokenizer2)
    )
    longest = max(len(first), len(second))
    return first + [[]] * (longest - len(first)), second + [[]] * (longest - len(second))


def _ids(tokenizer: CLIPTokenizer, text: str) -> list[int]:
    """The tokens of a text, as many as there are, without start and end."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    return ids


def _padded(tokenizer: CLIPTokenizer, rows: Sequence[Sequence[Token]]) -> torch.Tensor:
    """Token ids (n, 77): start, the chunk, end, and the encoder's own padding."""
    start, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    return torch.tensor([[start, *(token.id for token in row), end, *[pad] * (CHUNK - len(row))] for row in rows])


def _weights(rows: Sequence[Sequence[Token]]) -> torch.Tensor:
    """The weight of every token (n, 77); start, end and padding weigh 1."""
    return torch.tensor([[1.0, *(token.weight for token in row), *[1.0] * (CHUNK + 1 - len(row))] for row in rows])


def _emphasised(states: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Hidden states (n, 77, C) times weights (n, 77), each row brought back to the mean that it had.

    A mean near zero can be changed to anything, even its sign, by a small weight. What restores it is therefore kept
    between the reciprocals of the row's largest and smallest weight, the bounds for states that all have one sign.
    """
    weights = weights.to(states.device)
    if torch.all(weights == 1):
        return states
    scaled = states.float() * weights[..., None]
    restoring = states.float().mean(dim=(1, 2)) / scaled.mean(dim=(1, 2))
    bounds = 1 / weights.abs().clamp(0.1, 10)
    restoring = restoring.clamp(bounds.amin(dim=1), bounds.amax(dim=1))
    return (scaled * restoring[:, None, None]).to(states.dtype)
