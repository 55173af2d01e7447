"""What a list tells of a LoRA file, skimmed from its header: a list of hundreds is shown in the time that parsing a few takes.

Whether a file can be used, and what each of its tensors is, `trainer.lora.contents` tells. Knows neither torch nor names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import LoraFileError
from trainer.tensorfile import header_text, metadata_of

_RANKED = {
    "lora_down.weight": "lora", "lora_A.weight": "lora", "lora_A.default.weight": "lora", "lora.down.weight": "lora",
    "lora_linear_layer.down.weight": "lora", "hada_w1_b": "loha", "lokr_w2_b": "lokr", "lokr_w1_b": "lokr",
}  # fmt: skip
"""How the tensors end whose first side is the rank, and the kind of layer that each is of."""

_SHAPES = {
    end: re.compile(rb'%s"\s{0,9}:\s{0,9}\{[^}]{0,99}"shape"\s{0,9}:\s{0,9}\[([\d,\s]{1,99})\]' % re.escape(end).encode())
    for end in _RANKED
}
"""Bounded, so that a header that is made to be slow is not."""
_SIGNS = {'dora_scale"': "dora", "lora_magnitude_vector": "dora", 'lokr_w1"': "lokr", '.diff"': "full"}
"""What tells a kind without a rank."""


@dataclass(frozen=True)
class Facts:
    """What a list tells of a LoRA file."""

    name: str
    size: int
    """Bytes."""
    title: str
    trigger: str
    """The word that calls the style; empty if the file names none."""
    base: str
    """As the file tells it: `sdxl_base_v1-0`, `impasto_starter`, …; empty if it does not."""
    kinds: tuple[str, ...]
    """Of its layers, as `trainer.lora.delta` names them, in order of the alphabet."""
    ranks: tuple[int, ...]
    """Those that occur, the smallest first."""


def facts_of(path: Path) -> Facts:
    """What a list tells of a LoRA file; its header alone is read. Raises `LoraFileError` for what is no safetensors file."""
    text = header_text(path, LoraFileError)
    texts = metadata_of(path.name, text, LoraFileError)
    kinds = {kind for sign, kind in _SIGNS.items() if sign.encode() in text}
    ranks = set()
    for end, kind in _RANKED.items():
        for found in set(_SHAPES[end].findall(text)) if end.encode() in text else ():
            sides = found.split(b",")
            kinds.add("locon" if kind == "lora" and len(sides) == 4 else kind)
            ranks.add(int(sides[0]))
    return Facts(
        name=path.stem,
        size=path.stat().st_size,
        title=texts.get("modelspec.title", ""),
        trigger=texts.get("modelspec.trigger_phrase", ""),
        base=texts.get("ss_base_model_version", ""),
        kinds=tuple(sorted(kinds)),
        ranks=tuple(sorted(ranks)),
    )
