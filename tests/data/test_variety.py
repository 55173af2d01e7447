"""The variety of captions: wildcards, tags left out and shuffled, the trigger word in front of them."""

from __future__ import annotations

from collections import Counter
from itertools import permutations
from random import Random
from typing import Any

import pytest

from trainer.data.captions import with_trigger
from trainer.data.variety import variants, varied, without_wildcards
from trainer.settings_text import validated

TAGS = ["a house", "old man", "sea", "red", "night"]
DRAWS = 4000


def draws(caption: str, count: int = DRAWS, **settings: Any) -> list[str]:
    """What `count` draws with seeds of their own make of a caption."""
    return [varied(caption, validated(settings), Random(number)) for number in range(count)]


@pytest.mark.parametrize("caption", ["", "a house,,b , 3,000 ships", "{red|blue} sea", "a {b} c|d", "sea, sea"])
@pytest.mark.parametrize("trigger", ["", "glassy"])
def test_without_variety_a_caption_stays_to_the_letter(caption: str, trigger: str) -> None:
    assert set(draws(caption, 20, trigger=trigger, keep_tags=1)) == {with_trigger(caption, trigger)}


def test_the_same_seed_gives_the_same_caption() -> None:
    how = {"shuffle_tags": True, "tag_dropout": 0.3, "wildcards": True, "trigger": "glassy"}
    caption = "{a|b|c}, " + ", ".join(TAGS)
    assert draws(caption, 200, **how) == draws(caption, 200, **how)
    assert len(set(draws(caption, 200, **how))) > 100


def test_a_shuffle_neither_loses_nor_doubles_a_tag() -> None:
    for caption in draws(", ".join([*TAGS, "sea"]), 200, shuffle_tags=True):
        assert Counter(caption.split(", ")) == Counter([*TAGS, "sea"])


def test_every_order_is_as_likely() -> None:
    seen = Counter(draws("a, b, c", shuffle_tags=True))
    assert seen.keys() == {", ".join(order) for order in permutations("abc")}
    assert all(abs(count / DRAWS - 1 / 6) < 0.03 for count in seen.values())


@pytest.mark.parametrize("keep", [0, 1, 3, 5, 100])
def test_kept_tags_stay_in_front(keep: int) -> None:
    for caption in draws(", ".join(TAGS), 100, shuffle_tags=True, tag_dropout=0.5, keep_tags=keep):
        assert caption.split(", ")[: min(keep, 5)] == TAGS[:keep]


def test_tags_are_left_out_as_often_as_asked() -> None:
    captions = draws(", ".join(TAGS), tag_dropout=0.3, keep_tags=2)
    seen = Counter(tag for caption in captions for tag in caption.split(", "))
    assert seen["a house"] == seen["old man"] == DRAWS
    assert all(abs(seen[tag] / DRAWS - 0.7) < 0.03 for tag in TAGS[2:])
    alone = sum(caption == "a house, old man" for caption in captions)
    assert abs(alone / DRAWS - 0.3**3) < 0.01, "the tags are not left out each by itself"
    kept = [caption.split(", ") for caption in captions]
    assert all(tags == [tag for tag in TAGS if tag in tags] for tags in kept), "the order changed"


def test_all_tags_can_be_left_out() -> None:
    assert set(draws(", ".join(TAGS), 50, tag_dropout=1.0)) == {""}
    assert set(draws(", ".join(TAGS), 50, tag_dropout=1.0, trigger="glassy")) == {"glassy"}


@pytest.mark.parametrize(
    ("caption", "trigger", "first"),
    [
        ("sea, red, night", "glassy", "glassy"),
        ("sea, Glassy, night", "glassy", "Glassy"),
        ("sea, a glassy house, night", "glassy", "a glassy house"),
        ("sea, night,old,style", "old style", "old style"),
        ("sea, red", "in style, old", "in style, old"),
    ],
)
def test_the_trigger_is_never_moved_or_left_out(caption: str, trigger: str, first: str) -> None:
    for text in draws(caption, 100, shuffle_tags=True, tag_dropout=0.7, trigger=trigger):
        assert text == first or text.startswith(f"{first}, ")
        assert text.lower().count(trigger) == 1


def test_the_kept_tags_are_counted_without_the_trigger() -> None:
    for caption in ("sea, red, night", "glassy, sea, red, night"):
        kept = draws(caption, 50, tag_dropout=1.0, keep_tags=1, trigger="glassy")
        assert set(kept) == {"glassy, sea"}


def test_one_alternative_of_a_wildcard_is_taken_each_as_likely() -> None:
    seen = Counter(draws("a {red|dark blue|green} sea, {day|night}", wildcards=True))
    assert seen.keys() == {f"a {hue} sea, {time}" for hue in ("red", "dark blue", "green") for time in ("day", "night")}
    assert all(abs(count / DRAWS - 1 / 6) < 0.03 for count in seen.values())


@pytest.mark.parametrize(
    ("caption", "wanted"),
    [
        ("{a house, red|a hut}, sea", {"a house, red, sea", "a hut, sea"}),
        ("{a {red|blue} house|a hut}", {"a red house", "a blue house", "a hut"}),
        ("sea, {wet|}, night", {"sea, wet, night", "sea, night"}),
        ("{wet|}, night", {"wet, night", "night"}),
        ("sea, {|wet}", {"sea", "sea, wet"}),
        ("a {  very | } old house", {"a very old house", "a old house"}),
        ("{sea}, 3,000 {red", {"{sea}, 3,000 {red"}),
        ("a|b", {"a|b"}),
        ("{|}", {""}),
    ],
)
def test_wildcards(caption: str, wanted: set[str]) -> None:
    assert {without_wildcards(caption, Random(number)) for number in range(60)} == wanted


def test_the_tags_of_an_alternative_are_shuffled_too() -> None:
    assert set(draws("{a, b|c}, d", 200, wildcards=True, shuffle_tags=True)) == {
        *(", ".join(order) for order in permutations("abd")), "c, d", "d, c"
    }  # fmt: skip


# Variants ---------------------------------------------------------------------------------------------------------------


def test_a_caption_that_does_not_vary_has_one_variant() -> None:
    assert variants("a, b, {c|d}", validated({"trigger": "glassy"}), 16, "a.png") == ["glassy, a, b, {c|d}"]
    assert variants("sea", validated({"shuffle_tags": True, "wildcards": True}), 16, "a.png") == ["sea"]
    assert variants("", validated({}), 16, "a.png") == [""]


def test_variants_are_always_the_same_and_each_pictures_own() -> None:
    settings, caption = validated({"shuffle_tags": True, "tag_dropout": 0.2}), ", ".join(TAGS)
    mine = variants(caption, settings, 16, "a.png")
    assert len(mine) == 16
    assert mine == variants(caption, settings, 16, "a.png")
    assert mine[:5] == variants(caption, settings, 5, "a.png"), "more variants change the first ones"
    assert mine != variants(caption, settings, 16, "b.png")
    assert mine != variants(caption, validated({"shuffle_tags": True, "tag_dropout": 0.2, "seed": 2}), 16, "a.png")


def test_likelier_variants_are_there_more_often() -> None:
    settings = validated({"tag_dropout": 0.1})
    seen = Counter(text for number in range(300) for text in variants("a, b", settings, 16, f"{number}.png"))
    for text, share in {"a, b": 0.81, "a": 0.09, "b": 0.09, "": 0.01}.items():
        assert abs(seen[text] / seen.total() - share) < 0.02, text
