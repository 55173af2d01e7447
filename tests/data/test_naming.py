"""Captions from file names."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.captions import one_line
from trainer.data.naming import caption_of, check_template
from trainer.errors import UsageError


@pytest.mark.parametrize(
    ("filename", "caption"),
    [
        ("red-house.png", "red house"),
        ("03_red_house_at_sea (2).jpg", "red house at sea"),
        ("Red House - copy 3.webp", "Red House"),
        ("old.town.2019.jpg", "old town"),
        ("a house 12.png", "a house"),
        ("house no 7b.png", "house no"),
        ("3 ships.png", "ships"),
        ("the 3 ships at dawn.png", "the 3 ships at dawn"),
        ("IMG_20240131_174502.jpg", ""),
        ("IMG-2034-a red boat.jpg", "a red boat"),
        ("DSC_0042.JPG", ""),
        ("PXL_20230101.jpg", ""),
        ("Screenshot 2024-05-01 at 12.30.15.png", ""),
        ("WhatsApp Image 2024-05-01 at 12.30.15 PM.jpeg", ""),
        ("imgur cat.png", "imgur cat"),
        ("d41d8cd98f00b204e9800998ecf8427e.png", ""),
        ("facade.png", "facade"),
        ("000123.webp", ""),
        ("東京の夜.png", "東京の夜"),
        (unicodedata.normalize("NFD", "schönes Café.png"), "schönes Café"),
        ("{red|blue}.png", "{red|blue}"),
    ],
)
def test_what_a_name_says(filename: str, caption: str) -> None:
    assert caption_of(filename) == caption


@pytest.mark.parametrize(
    ("filename", "template", "caption"),
    [
        ("red-house.png", "a painting of {name}, {by day|at night}", "a painting of red house, {by day|at night}"),
        ("red-house.png", "watercolour", "watercolour"),
        ("IMG_1.png", "{name}, watercolour", ""),
        ("IMG_1.png", "a picture of {name}, {a|b}", ""),
        ("IMG_1.png", "{name}", ""),
        ("red.png", "{name} {names} {0} {}", "red {names} {0} {}"),
    ],
)
def test_a_template(filename: str, template: str, caption: str) -> None:
    assert caption_of(filename, template) == caption


@pytest.mark.parametrize("template", ["watercolour", "", "{name} {names}", "{0} {name}", "{name} {", "{}{name}"])
def test_a_template_needs_a_place_for_the_name_and_knows_no_other(template: str) -> None:
    with pytest.raises(UsageError, match=r"\{name\}"):
        check_template(template)


def test_wildcards_may_stand_in_a_template() -> None:
    assert check_template("{name}, {by day|at night}") == "{name}, {by day|at night}"


@given(st.text(st.characters(exclude_characters="/\0")), st.text())
def test_any_name_gives_a_line(filename: str, template: str) -> None:
    caption = caption_of(filename, template)
    assert one_line(caption) == caption
