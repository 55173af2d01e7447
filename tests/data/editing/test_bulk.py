"""Edits of many captions: each against what it is to mean, and what it is to leave alone."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainer.data.editing import bulk
from trainer.data.editing.bulk import After, Before, RemoveTag, Replace, SortTags

captions = st.text(st.sampled_from("ab ,,{}|éE\u0301İß.*\\1$"), max_size=30)


@pytest.mark.parametrize(
    ("edit", "before", "after"),
    [
        (Replace("House", "hut"), "a house, houses", "a hut, huts"),
        (Replace("House", "hut", case=True), "a house, House", "a house, hut"),
        (Replace("house", "hut", words=True), "a house, houses, house", "a hut, houses, hut"),
        (Replace("house", "hut", words=True), "lighthouse house2 house_3 HOUSE.", "lighthouse house2 house_3 hut."),
        (Replace("(red", "[red", words=True), "a (red house)", "a [red house)"),
        (Replace("été", "winter", words=True), "un été, étés", "un winter, étés"),
        (Replace(".*", r"\1\g<0>\n"), "a .* b", r"a \1\g<0>\n b"),
        (Replace("", "x"), "a house", "a house"),
        (Replace("red ", ""), "a red red house", "a house"),
        (Before("vellorn"), "a house", "vellorn, a house"),
        (Before("vellorn, "), "a house", "vellorn, a house"),
        (Before("vellorn"), "vellorn, a house", "vellorn, a house"),
        (Before("vellorn"), "vellorna, a house", "vellorn, vellorna, a house"),
        (Before("vellorn"), "", "vellorn"),
        (Before("a painting of", " "), "a house", "a painting of a house"),
        (Before(" , "), "a house", "a house"),
        (After("at sea"), "a house", "a house, at sea"),
        (After("at sea"), "a house, at sea", "a house, at sea"),
        (After("at sea", " "), "a house", "a house at sea"),
        (After("at sea"), "", "at sea"),
        (RemoveTag("Red"), "red, a house,red ,  sea", "a house,  sea"),
        (RemoveTag("red"), "a red house , redder", "a red house , redder"),
        (RemoveTag("old  man"), "old man, sea", "sea"),
        (RemoveTag("red"), "{red, a|b}, red", "{red, a|b}"),
        (RemoveTag("red"), ":{, red, sea", ":{, sea"),
        (RemoveTag("red"), "red", ""),
        (RemoveTag(""), "a,, b", "a,, b"),
        (SortTags(), "sea,  Boat, a house,,", "a house, Boat, sea"),
        (SortTags("vellorn"), "sea, boat, Vellorn", "Vellorn, boat, sea"),
        (SortTags(), "z, {b, y|a}, a", "a, z, {b, y|a}"),
    ],
)
def test_an_edit(edit: bulk.Edit, before: str, after: str) -> None:
    assert edit.of(before) == after


@given(captions, st.text(st.sampled_from("ab é."), min_size=1, max_size=2), st.text(max_size=3))
def test_a_literal_replacement_is_that_of_python(caption: str, find: str, by: str) -> None:
    assert Replace(find, by, case=True).of(caption) == caption.replace(find, by)


@given(captions)
@example("{a,b},{c")
@example("}a{,b")
def test_the_parts_of_a_caption_are_it_again(caption: str) -> None:
    assert ",".join(bulk.parts(caption)) == caption


@given(captions)
def test_sorting_neither_loses_nor_doubles_a_tag(caption: str) -> None:
    tags = Counter(part.strip() for part in bulk.parts(caption) if part.strip())
    after = SortTags().of(caption)
    assert Counter(filter(None, (part.strip() for part in bulk.parts(after)))) == tags
    assert SortTags().of(after) == after


@given(captions, captions)
def test_what_is_added_is_added_once(caption: str, text: str) -> None:
    for edit in (Before(text), After(text)):
        assert edit.of(edit.of(caption)) == edit.of(caption)


@given(captions, st.sampled_from(["a", "B", "é"]))
def test_a_removed_tag_is_gone_and_no_other(caption: str, tag: str) -> None:
    def known(text: str) -> list[str]:
        return [" ".join(part.split()).casefold() for part in bulk.parts(text)]

    left = [part for part in known(caption) if part != tag.casefold()]
    assert known(RemoveTag(tag).of(caption)) == (left or [""])


def test_only_what_changes_is_told_with_before_and_after() -> None:
    found = bulk.changes({"a.png": "red", "b.png": "sea", "c.png": "a red, b"}, Replace("red", "blue\n"))
    assert found == {"a.png": ("red", "blue"), "c.png": ("a red, b", "a blue , b")}


def test_tags_are_counted_by_captions_in_any_case() -> None:
    found = bulk.tags({"a": "Sea, red, red", "b": "sea,  RED , {old, new|x}", "c": "", "d": "sea"})
    assert found == Counter({"Sea": 3, "red": 2, "{old, new|x}": 1})
