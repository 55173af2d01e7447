"""Findings in captions: what is missing, cut off, in another encoding or in nearly all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from trainer.data import tokens
from trainer.data.checkup.caption_findings import caption_findings, unstyled
from trainer.data.checkup.finding import Finding
from trainer.data.dataset import Dataset
from trainer.settings_text import validated


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dataset.toml").write_text('trigger = "vellorn"\n', encoding="utf-8")
    return tmp_path


def look(folder: Path, *captions: str | bytes, **settings: object) -> dict[str, Finding]:
    """What is found in pictures 0.png, 1.png … with these captions; an empty one has no file."""
    for number, caption in enumerate(captions):
        Image.new("RGB", (32, 32)).save(folder / f"{number}.png")
        if caption:
            content = caption if isinstance(caption, bytes) else caption.encode()
            (folder / f"{number}.txt").write_bytes(content)
    there = list(caption_findings(Dataset.open(folder), validated(settings)))
    return {each.kind: each for each in there}


def test_good_captions(folder: Path) -> None:
    assert look(folder, "a red house", "a fox on snow", "two boats, night", "an owl", "a mill by a river", "a clock") == {}


def test_no_pictures_no_findings(folder: Path) -> None:
    assert look(folder) == {}


def test_no_trigger_word(folder: Path) -> None:
    (folder / "dataset.toml").unlink()
    assert look(folder, "a house").keys() == {"trigger"}
    assert look(folder, "a house", trigger="vellorn") == {}


def test_missing_and_empty_captions(folder: Path) -> None:
    found = look(folder, "a house", "", b"  \n")["bare"]
    assert found.names == ("1.png", "2.png")
    assert not found.mend  # the names are numbers
    Image.new("RGB", (32, 32)).save(folder / "red_fox 03.png")
    found = look(folder)["bare"]
    assert found.names == ("1.png", "2.png", "red_fox 03.png")
    assert found.mend
    assert "The names of 1 of these files" in found.advice


def test_other_encodings_are_told_and_a_guess_is_called_so(folder: Path) -> None:
    text = "a café in Malmö"
    encoded = [text.encode(name) for name in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1")]
    found = look(folder, *encoded)["encoding"]
    assert found.names == ("1.png", "2.png", "3.png", "4.png")
    assert "1 is read as Windows-1252, which is a guess" in found.sentence
    assert "“a café in Malmö”" in found.sentence
    assert "guess" not in look(folder, "ok", text.encode("utf-16"), "ok", "ok", "ok")["encoding"].sentence


def test_only_what_is_cut_off_is_long(folder: Path) -> None:
    just = " ".join(["house"] * (tokens.LIMIT - 2))
    assert tokens.count(just) == tokens.LIMIT
    (folder / "dataset.toml").write_text("", encoding="utf-8")
    assert "long" not in look(folder, just)
    assert look(folder, just, f"{just} house")["long"].names == ("1.png",)
    assert look(folder, trigger="vellorn")["long"].names == ("0.png", "1.png")


def test_of_wildcards_the_longest_choice_counts(folder: Path) -> None:
    half = " ".join(["house"] * 50)
    assert "long" not in look(folder, f"{{{half}|{half} again}}", wildcards=True)
    assert "long" in look(folder, wildcards=False)


@pytest.mark.parametrize(
    "caption",
    [
        "a watercolor of a boat", "A painting of a fox", "a boat in the style of Turner", "a digital illustration, 1girl",
        "1girl, anime coloring, solo", "a fox, flat cartoon style", "art nouveau, a poster", "pixel art, a cat",
    ],
)  # fmt: skip
def test_words_that_name_a_style(caption: str) -> None:
    assert unstyled(caption, "vellorn") != caption


@pytest.mark.parametrize(
    "caption",
    [
        "a man painting a fence", "an ink bottle on a desk", "oil barrels", "a photo on the wall", "an old lifestyle magazine",
        "a comic reader", "a stylish woman", "paintings in a museum", "a party", "vellorn, a red house",
    ],
)  # fmt: skip
def test_things_that_only_have_its_name(caption: str) -> None:
    assert unstyled(caption, "vellorn") == caption


def test_style_words_are_told_with_their_pictures(folder: Path) -> None:
    found = look(folder, "a watercolour of a boat", "a fox", "an etching of an owl")["style"]
    assert found.names == ("0.png", "2.png")
    assert "2 captions may name the style (“etching”, “watercolour”)" in found.sentence


def test_the_trigger_word_stays_where_a_style_is_left_out() -> None:
    assert unstyled("vellorn, a watercolour of a boat", "vellorn") == "vellorn, a boat"
    assert unstyled("a watercolour of a boat", "vellorn") == "a boat"


def test_a_subject_of_most_captions_leaks(folder: Path) -> None:
    found = look(folder, "a red woman", "woman on snow", "a Woman, night", "a woman's hat", "a boat", "vellorn, a woman")
    assert found["leak"].names == ("0.png", "1.png", "2.png", "5.png")
    assert found["leak"].sentence.startswith("“woman” is in 4 of 6 captions")


def test_short_tags_are_subjects_as_a_whole(folder: Path) -> None:
    found = look(folder, *(f"1girl, long hair, {each}" for each in ("house", "tree", "car", "boat", "fox")))
    assert found["leak"].sentence.startswith("“1girl”, “long hair” are in up to 5 of 5 captions")


def test_neither_the_trigger_nor_style_words_nor_places_leak(folder: Path) -> None:
    each = ("house", "tree", "car", "boat", "fox", "owl")
    found = look(folder, *(f"vellorn, watercolour of a red {one} on the left" for one in each))
    assert found.keys() == {"style"}


def test_of_few_captions_nothing_is_told(folder: Path) -> None:
    assert look(folder, "a fox", "a fox", "a fox", "a fox") == {}
