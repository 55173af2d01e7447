"""Captions in any usual encoding, and the trigger word in front of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.data.captions import decode, read, with_trigger, write
from trainer.errors import StorageError

TEXT = "ein schönes Café, 東京"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_usual_encoding_is_read(encoding: str) -> None:
    assert decode(TEXT.encode(encoding)) == TEXT


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_of_either_order_is_read(encoding: str) -> None:
    assert decode(("\ufeff" + TEXT).encode(encoding)) == TEXT


def test_what_is_no_utf_8_is_latin_1() -> None:
    assert decode("ein schönes Café".encode("latin-1")) == "ein schönes Café"


def test_lines_and_outer_blanks_become_one_line() -> None:
    assert decode(b"  a house,\r\n\ta boat \n") == "a house, a boat"


def test_nothing_is_an_empty_caption() -> None:
    assert decode(b"") == ""
    assert decode(b"\xef\xbb\xbf") == ""


def test_half_a_utf_16_file_is_read_as_far_as_it_goes() -> None:
    assert decode("ab".encode("utf-16")[:-1]).startswith("a")


def test_a_missing_file_is_an_empty_caption(tmp_path: Path) -> None:
    assert read(tmp_path / "none.txt") == ""


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", f" {TEXT}\n")
    assert read(tmp_path / "a.txt") == TEXT
    assert (tmp_path / "a.txt").read_bytes() == f"{TEXT}\n".encode()


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
        ("glassy", "glassy", "glassy"),
        ("a glassybird", "glassy", "glassy, a glassybird"),
        ("in old style, a house", "old style", "in old style, a house"),
        ("an old house", "old style", "old style, an old house"),
    ],
)
def test_the_trigger_comes_first_and_only_once(caption: str, trigger: str, whole: str) -> None:
    assert with_trigger(caption, trigger) == whole
