"""The tokens of a caption, against transformers' tokenizer; and what counting them loads."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainer.data import tokens
from trainer.home import shipped


@pytest.fixture(scope="module")
def clip() -> Any:
    """Transformers' tokenizer of the same files."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(shipped("assets", "sdxl", "tokenizer"), model_max_length=10**6)


pieces = st.sampled_from(
    [
        "a house",
        " the ",
        "it's",
        "don't've",
        "1984",
        "<|endoftext|>",
        "<|startoftext|>",
        "</w>",
        "e\u0301",
        "\u0085",
        "\u00a0",
        "👩‍👩‍👧",
        "!!!",
    ]
)


@given(st.lists(pieces | st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=12).map("".join))
@example("")
@example("  two  blanks\tand\u2028more ")
def test_the_tokens_are_those_of_transformers(clip: Any, text: str) -> None:
    assert tokens.ids(text) == clip(text)["input_ids"]


@pytest.mark.parametrize(("text", "count"), [("", 2), ("a house", 4), ("sea, " * 100, 202), ("a " * 5000, 5002)])
def test_begin_and_end_are_counted_and_nothing_is_cut_off(text: str, count: int) -> None:
    assert tokens.count(text) == count


def test_the_limit_is_what_training_reads() -> None:
    from trainer.sdxl.prompt import CHUNK

    assert tokens.LIMIT == CHUNK + 2


def test_counting_loads_neither_torch_nor_transformers() -> None:
    look = "import sys; from trainer.data.tokens import count; count('a'); print({'torch', 'transformers'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.strip() == "set()"
