"""How many tokens of CLIP a caption has. Knows neither torch nor transformers: `tokenizers` reads SDXL's own files."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from trainer.home import shipped

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LIMIT = 77
"""So many are read in training, with the begin and the end; what comes after them is cut off."""

_PIECES = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"


def count(text: str) -> int:
    """The tokens of a text, with the begin and the end."""
    return len(ids(text))


def ids(text: str) -> list[int]:
    """The tokens of a text, with the begin and the end, as transformers' `CLIPTokenizer` numbers them; not cut off."""
    found: list[int] = _tokenizer().encode(text).ids
    return found


@cache
def _tokenizer() -> Tokenizer:
    """SDXL's first tokenizer, built as transformers builds it (transformers/models/clip/tokenization_clip.py)."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    folder = shipped("assets", "sdxl", "tokenizer")
    vocabulary, merges = models.BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    pieces = pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True)
    made = Tokenizer(models.BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=_END))
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    made.pre_tokenizer = pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.post_processor = processors.RobertaProcessing((_END, vocabulary[_END]), (_BEGIN, vocabulary[_BEGIN]), False, False)
    made.add_special_tokens([AddedToken(token, special=True) for token in (_BEGIN, _END)])
    return made
