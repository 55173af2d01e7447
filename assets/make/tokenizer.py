"""Make the CLIP tokenizers: SDXL's own, and the starter's two from the first merges of the same byte-pair vocabulary.

    python assets/make/tokenizer.py bpe_simple_vocab_16e6.txt.gz

Every token that the starter keeps has CLIP's true id; the start and end tokens come last. The vocabulary file is part of
CLIP (MIT licence) and ships in the package open_clip_torch.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

from transformers import CLIPTokenizer
from work import STARTER

SDXL = STARTER.parent / "sdxl"
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


def read_merges(bpe: Path, size: int) -> list[tuple[str, str]]:
    """The first merges of the vocabulary file, as many as a vocabulary of `size` tokens holds."""
    lines = gzip.decompress(bpe.read_bytes()).decode("utf-8").split("\n")[1 : size - 512 - 2 + 1]
    return [(left, right) for left, right in (line.split() for line in lines)]


def write_vocabulary(folder: Path, tokens: dict[str, int], merges: list[tuple[str, str]]) -> None:
    """Write `vocab.json` and `merges.txt`, the form in which CLIP's vocabulary circulates."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(tokens, ensure_ascii=False), encoding="utf-8")
    rows = "\n".join(f"{left} {right}" for left, right in merges)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{rows}\n", encoding="utf-8")


def write_starter(merges: list[tuple[str, str]]) -> None:
    """Write `tokenizer` (pads with the end token) and `tokenizer_2` (pads with id 0), as SDXL has them."""
    tokens = vocabulary(merges)
    for name, pad in (("tokenizer", END), ("tokenizer_2", "!")):
        tokenizer = CLIPTokenizer(
            vocab=tokens, merges=merges, bos_token=START, eos_token=END, unk_token=END, pad_token=pad, model_max_length=77
        )
        tokenizer.save_pretrained(STARTER / name)
        write_vocabulary(STARTER / name, tokens, merges)


if __name__ == "__main__":
    vocabulary_file = Path(sys.argv[1])
    write_starter(read_merges(vocabulary_file, 4096))
    all_merges = read_merges(vocabulary_file, 49408)
    write_vocabulary(SDXL / "tokenizer", vocabulary(all_merges), all_merges)  # both encoders read it; they pad differently
