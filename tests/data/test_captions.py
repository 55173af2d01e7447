"""Captions in any usual encoding, to the letter, and the trigger word in front of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainer.data.captions import Text, decode, encode, has_trigger, one_line, read, text_of, with_trigger, write
from trainer.errors import DatasetError, StorageError

TEXT = "ein schönes Café, 東京"

ODD = [
    "no\u00a0break, next\u0085line, a\u2028separator, a\u2029paragraph, \x0b\x0c\x1c\x1d\x1e\x1f\x7f, \x00zero, \x00\x00",
    "\ufeff a mark of order in front",
    "\u200f\u05d0\u05d1\u05d2 \u202e\u0627\u0644\u0628\u062d\u0631\u202c",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 e\u0301 \u200d\u200c\u200b\ufe0f",
    "two  blanks,\tand a tab",
    "<b>bold</b> **bold** $x^2$ \\frac{1}{2} &amp; {a|b} %2e ${HOME} 'quoted' \"twice\" \\n",
    "\u00a0\u3000outer blanks that are no plain ones\u00a0\u3000",
    "ÿþ not a mark, \ufffe \uffff \U0010ffff",
]
"""Texts that are often damaged on their way to the disk and back."""

texts = st.text(st.characters(exclude_categories=["Cs"]))
"""Any Unicode text: all characters but lone halves of one."""


def without_breaks(text: str) -> str:
    """The text without line breaks and outer blanks, said otherwise than in the code."""
    lines = [line.strip(" \t") for line in text.replace("\r", "\n").split("\n")]
    return " ".join(filter(None, lines))


@given(texts)
@example("\x00a\x00b")
@example("\ufeff\ufeff")
def test_any_text_is_read_as_it_was_written(text: str) -> None:
    assert decode(encode(text)).text == without_breaks(text)


@pytest.mark.parametrize("text", ODD)
def test_no_character_is_lost_on_the_disk(text: str, tmp_path: Path) -> None:
    write(tmp_path / "a.txt", text)
    assert read(tmp_path / "a.txt") == text
    assert (tmp_path / "a.txt").read_bytes().endswith(f"{text}\n".encode())


@given(texts)
def test_one_line_is_one_line_for_good(text: str) -> None:
    assert one_line(one_line(text)) == one_line(text)
    assert not {"\n", "\r"} & set(one_line(text))


@given(st.binary())
@example(b"\xff\xfea")
@example(b"\xef\xbb\xbf\xff")
@example(b"\x00\xd8")
@example(b"\x00" * 40)
@example(b"\x81\x8d\x8f\x90\x9d")
def test_every_file_says_something_that_can_be_written(content: bytes) -> None:
    found = decode(content)
    assert decode(encode(found.text)).text == found.text


@given(st.text(st.characters(codec="latin-1"), min_size=1))
def test_no_byte_is_dropped_of_what_is_in_no_known_encoding(text: str) -> None:
    found = decode(b"\xe9 " + text.replace("\0", "").encode("latin-1") + b" \xe9")
    assert len(found.text) == len(without_breaks("é " + text.replace("\0", "") + " é"))


@pytest.mark.parametrize(
    ("codec", "encoding"),
    [("utf-8", "utf-8"), ("utf-8-sig", "utf-8-bom"), ("utf-16", "utf-16"), ("utf-16-le", "utf-16"), ("utf-16-be", "utf-16")],
)
def test_every_usual_encoding_is_read_and_named(codec: str, encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(f"{TEXT}\r\n".encode(codec))
    assert text_of(tmp_path / "a.txt") == Text(TEXT, encoding)  # type: ignore[arg-type]


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_utf_16_with_its_mark_is_read_in_either_order(codec: str) -> None:
    assert decode(("\ufeff" + TEXT).encode(codec)) == Text(TEXT, "utf-16")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("ein schönes Café".encode("latin-1"), "ein schönes Café"),
        ("a “house” – 5 €".encode("cp1252"), "a “house” – 5 €"),
        (b"caf\xe9 \x81", "café \x81"),
        (b"\xef\xbb\xbfcaf\xe9", "ï»¿café"),
    ],
)
def test_what_is_nothing_else_is_guessed_and_said_to_be(content: bytes, text: str) -> None:
    assert decode(content) == Text(text, "latin-1")


def test_lines_and_outer_blanks_become_one_line() -> None:
    assert decode(b"  a house,\r\n\ta boat \n\n\r b\r").text == "a house, a boat b"
    assert decode(b"  a  b\t c ").text == "a  b\t c"


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\n", " \r\n".encode("utf-16-le")])
def test_nothing_is_an_empty_caption(content: bytes) -> None:
    assert decode(content).text == ""


def test_half_a_utf_16_file_is_read_as_far_as_it_goes() -> None:
    assert decode("ab".encode("utf-16")[:-1]).text == "a\ufffd"


def test_a_missing_file_is_an_empty_caption(tmp_path: Path) -> None:
    assert text_of(tmp_path / "none.txt") == Text("", "utf-8")


def test_a_caption_is_written_in_utf_8_without_a_mark(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", f" {TEXT}\n")
    assert (tmp_path / "a.txt").read_bytes() == f"{TEXT}\n".encode()


def test_half_a_character_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "a house")
    with pytest.raises(DatasetError, match=r"caption of a holds half a character \(U\+D83D\)"):
        write(tmp_path / "a.txt", "a house \ud83d")
    assert read(tmp_path / "a.txt") == "a house"


def test_a_file_of_the_longest_name_is_written(tmp_path: Path) -> None:
    path = tmp_path / f"{'é' * 125}e.txt"  # 255 bytes
    write(path, "a house")
    assert read(path) == "a house"


def test_a_folder_that_cannot_be_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Could not write"):
        write(tmp_path / "file" / "a.txt", "a house")


@pytest.mark.parametrize(
    ("caption", "trigger", "whole"),
    [
        ("a house", "glassy", "glassy, a house"),
        ("", "glassy", "glassy"),
        ("a house", "", "a house"),
        ("glassy, a house", "glassy", "glassy, a house"),
        ("a house, Glassy", "glassy", "a house, Glassy"),
        ("a glassy house", "glassy", "a glassy house"),
        ("a\u00a0glassy\thouse", "glassy", "a\u00a0glassy\thouse"),
        ("glassy", "glassy", "glassy"),
        ("a glassybird", "glassy", "glassy, a glassybird"),
        ("in old style, a house", "old style", "in old style, a house"),
        ("in old  style, a house", "old style", "in old  style, a house"),
        ("an old house", "old style", "old style, an old house"),
    ],
)
def test_the_trigger_comes_first_and_only_once(caption: str, trigger: str, whole: str) -> None:
    assert with_trigger(caption, trigger) == whole
    assert has_trigger(caption, trigger) == (bool(trigger) and whole == caption)
