"""What is kept is made once, and the longest unused goes first."""

from __future__ import annotations

from trainer.preview.kept import Kept


def test_a_thing_is_made_once_and_the_longest_unused_goes() -> None:
    made: list[str] = []

    def make(key: str) -> str:
        made.append(key)
        return key.upper()

    kept = Kept[str, str](most=2)
    for key in ("a", "b", "a", "c", "a", "b"):
        assert kept.get(key, lambda key=key: make(key)) == key.upper()  # type: ignore[misc]
    assert made == ["a", "b", "c", "b"]
    assert [key in kept for key in ("a", "b", "c")] == [True, True, False]


def test_what_is_needed_stays_even_if_it_is_too_much() -> None:
    kept = Kept[str, str](most=10, size=len)
    for key in ("old", "older one", "new"):
        kept.get(key, str)
    assert [key in kept for key in ("old", "older one", "new")] == [False, False, True]
    mix = ["one of six", "another of them"]
    for key in mix * 2:
        kept.get(key, str, needed=mix)
    assert [key in kept for key in (*mix, "new")] == [True, True, False]
    kept.get("last", str)
    assert [key in kept for key in (*mix, "last")] == [False, False, True]
