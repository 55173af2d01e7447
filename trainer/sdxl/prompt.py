"""A prompt as people write it -> texts with weights, and tokens with weights -> chunks that an encoder can read.

The syntax is A1111's:

    (word)      weight 1.1; brackets multiply: ((word)) is 1.21
    (word:1.3)  weight 1.3
    [word]      weight 1 / 1.1
    \\( \\) \\[ \\]     brackets that are meant
    BREAK       what follows begins a new chunk

A bracket that is never closed reaches to the end; one that was never opened is text. Round and square brackets do not
mind each other. Three things differ from A1111: any other backslash is text (there it vanishes), BREAK counts inside
brackets too, and a weight that is no number, as in (word:1.2.3), is text.

Knows nothing of encoders and their vocabularies.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

CHUNK = 75
"""Tokens of text that an encoder reads at once; its start and end tokens make 77."""
BACKTRACK = 20
"""A chunk ends after a comma instead of amid a tag if that leaves at most so many tokens for the next chunk."""

_UP = 1.1
_CLOSES = {")": "(", "]": "["}
_TOKEN = re.compile(
    r"\\(?P<meant>[()\[\]])"
    r"|(?P<open>[(\[])"
    r"|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)"
    r"|(?P<close>[)\]])"
    r"|(?P<new>\s*\bBREAK\b\s*)"
    r"|(?P<text>.)",
    re.DOTALL,
)


class Piece(NamedTuple):
    """Text that has one weight."""

    text: str
    weight: float


class Token(NamedTuple):
    """An id of an encoder's vocabulary, with its weight."""

    id: int
    weight: float


def parse(prompt: str) -> list[list[Piece]]:
    """The pieces of a prompt; one list for each stretch between BREAKs. Without brackets: the text as it is, weight 1."""
    texts: list[str | None] = []  # None is a BREAK
    weights: list[float] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def multiply(start: int, factor: float) -> None:
        weights[start:] = [weight * factor for weight in weights[start:]]

    for found in _TOKEN.finditer(prompt):
        kind, text = found.lastgroup, found.group()
        if kind == "open":
            opened[text].append(len(texts))
        elif kind == "weight" and opened["("]:
            multiply(opened["("].pop(), float(found["weight"]))
        elif kind == "close" and opened[_CLOSES[text]]:
            multiply(opened[_CLOSES[text]].pop(), _UP if text == ")" else 1 / _UP)
        else:
            texts.append(None if kind == "new" else found["meant"] or text)
            weights.append(1.0)
    for start in opened["("]:
        multiply(start, _UP)
    for start in opened["["]:
        multiply(start, 1 / _UP)
    return _stretches(texts, weights)


def _stretches(texts: Sequence[str | None], weights: Sequence[float]) -> list[list[Piece]]:
    """Divided at each None; neighbours of the same weight put together."""
    stretches: list[list[Piece]] = [[]]
    for text, weight in zip(texts, weights, strict=True):
        pieces = stretches[-1]
        if text is None:
            stretches.append([])
        elif pieces and pieces[-1].weight == weight:
            pieces[-1] = Piece(pieces[-1].text + text, weight)
        else:
            pieces.append(Piece(text, weight))
    return stretches


def literal(text: str) -> str:
    """`text` written as a prompt, with every bracket meant: for captions and trigger words such as `artist_(style)`."""
    return re.sub(r"([()\[\]])", r"\\\1", text)


def chunks(stretches: Sequence[Sequence[Token]], comma: int) -> list[list[Token]]:
    """At least one chunk, each of at most 75 tokens; `comma` is the id of a comma. A BREAK at the very end adds none."""
    made: list[list[Token]] = []
    for stretch in stretches:
        rest = list(stretch)
        while len(rest) > CHUNK:
            end = _end(rest, comma)
            made.append(rest[:end])
            rest = rest[end:]
        made.append(rest)
    return made[:-1] if len(made) > 1 and not made[-1] else made


def _end(tokens: Sequence[Token], comma: int) -> int:
    """Where the first chunk of more than 75 tokens ends."""
    if tokens[CHUNK].id != comma:
        for place in range(CHUNK - 1, CHUNK - BACKTRACK - 1, -1):
            if tokens[place].id == comma:
                return place + 1
    return CHUNK
