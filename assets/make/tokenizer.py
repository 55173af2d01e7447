"""Make the starter's two CLIP tokenizers from the first merges of CLIP's own byte-pair vocabulary.

    python assets/make/tokenizer.py bpe_simple_vocab_16e6.txt.gz

Every token that is kept has CLIP's true id; the start and end tokens come last. The vocabulary file is part of CLIP
(MIT licence) and ships in the package open_clip_torch.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

from transformers import CLIPTokenizer
from work import STARTER

VOCABULARY = 4096
START, END = "<|startoftext|>", "<|endoftext|>"


def byte_characters() -> list[str]:
    """GPT-2's printable stand-in for each of the 256 bytes, in the order of CLIP's ids."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


def vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    """Token -> id: bytes, bytes that end a word, one token per merge, start, end."""
    characters = byte_characters()
    tokens = [*characters, *(c + "</w>" for c in characters), *("".join(pair) for pair in merges), START, END]
    return {token: index for index, token in enumerate(tokens)}


def write(bpe: Path) -> None:
    """Write `tokenizer` (pads with the end token) and `tokenizer_2` (pads with id 0), as SDXL has them."""
    lines = gzip.decompress(bpe.read_bytes()).decode("utf-8").split("\n")[1 : VOCABULARY - 512 - 2 + 1]
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    tokens = vocabulary(merges)
    for folder, pad in (("tokenizer", END), ("tokenizer_2", "!")):
        tokenizer = CLIPTokenizer(
            vocab=tokens, merges=merges, bos_token=START, eos_token=END, unk_token=END, pad_token=pad, model_max_length=77
        )
        tokenizer.save_pretrained(STARTER / folder)
        (STARTER / folder / "vocab.json").write_text(json.dumps(tokens, ensure_ascii=False), encoding="utf-8")
        rows = "\n".join(f"{left} {right}" for left, right in merges)
        (STARTER / folder / "merges.txt").write_text(f"#version: 0.2\n{rows}\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
