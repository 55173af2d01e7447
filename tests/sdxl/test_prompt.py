"""How a prompt is read: A1111's published examples, and random prompts whose weights are known from how they were made."""

from __future__ import annotations

import random

import pytest

from trainer.sdxl.prompt import CHUNK, Piece, Token, chunks, literal, parse

COMMA = 267


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("normal text", [("normal text", 1)]),
        ("an (important) word", [("an ", 1), ("important", 1.1), (" word", 1)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        ("[unbalanced", [("unbalanced", 1 / 1.1)]),
        (r"\(literal\]", [("(literal]", 1)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [("a ", 1), ("house", 1.3 * 1.21), (" ", 1.1), ("on", 1), (" a ", 1.1), ("hill", 0.55), (", sun, ", 1.1),
             ("sky", 1.1**4), (".", 1.1)],
        ),
    ],
)  # fmt: skip
def test_a1111s_own_examples_are_read_as_it_says(prompt: str, expected: list[tuple[str, float]]) -> None:
    (read,) = parse(prompt)
    assert [piece.text for piece in read] == [text for text, _ in expected]
    assert [piece.weight for piece in read] == pytest.approx([weight for _, weight in expected])


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a (b:1.5) c", [("a ", 1), ("b", 1.5), (" c", 1)]),
        ("(b: 1.5 )", [("b", 1.5)]),
        ("(b:.5)", [("b", 0.5)]),
        ("(b:-1)", [("b", -1)]),
        ("(b:0)", [("b", 0)]),
        ("[b:1.5]", [("b:1.5", 1 / 1.1)]),
        ("(b:1.2.3)", [("b:1.2.3", 1.1)]),
        ("(b:big)", [("b:big", 1.1)]),
        ("b:1.5)", [("b:1.5)", 1)]),
        ("b) c]", [("b) c]", 1)]),
        ("((a) b", [("a", 1.21), (" b", 1.1)]),
        ("(a [b) c]", [("a ", 1.1), ("b", 1), (" c", 1 / 1.1)]),
        (r"(artist_\(style\):1.2)", [("artist_(style)", 1.2)]),
        ("a :) b", [("a :) b", 1)]),
        ("()", []),
        ("", []),
    ],
)  # fmt: skip
def test_what_brackets_do(prompt: str, expected: list[tuple[str, float]]) -> None:
    (read,) = parse(prompt)
    assert [piece.text for piece in read] == [text for text, _ in expected]
    assert [piece.weight for piece in read] == pytest.approx([weight for _, weight in expected])


@pytest.mark.parametrize(
    "text",
    ["a red house", "  blanks  stay ", "1:2, a:b", "C:\\pictures\\new", "BREAKING, xBREAK", "müde — 猫\nnext", ":", "\\\\"],
)  # fmt: skip
def test_without_brackets_the_text_is_untouched(text: str) -> None:
    assert parse(text) == [[Piece(text, 1.0)]]


@pytest.mark.parametrize("text", ["artist_(style)", "((", "[a] (b:1.2)", r"already \(meant\)", "\\", "\\\\(", "plain", ":1.2)"])
def test_literal_text_comes_back_as_it_is(text: str) -> None:
    assert parse(literal(text)) == [[Piece(text, 1.0)]]


def tree(dice: random.Random, depth: int, weight: float) -> tuple[str, list[tuple[str, float]]]:
    """A random prompt, and every letter's weight as the brackets around it were chosen."""
    prompt, letters = "", list[tuple[str, float]]()
    for _ in range(dice.randint(1, 4)):
        kind = dice.choice("tt([:") if depth else "t"
        if kind == "t":
            text = dice.choice("abcdefgh ")
            prompt, letters = prompt + text, [*letters, (text, weight)]
            continue
        number = dice.choice([0.5, 1.3, 2.0])
        factor = {"(": 1.1, "[": 1 / 1.1, ":": number}[kind]
        inner, found = tree(dice, depth - 1, weight * factor)
        prompt += {"(": f"({inner})", "[": f"[{inner}]", ":": f"({inner}:{number})"}[kind]
        letters += found
    return prompt, letters


@pytest.mark.parametrize("seed", range(100))
def test_nested_brackets_multiply(seed: int) -> None:
    prompt, letters = tree(random.Random(seed), depth=4, weight=1.0)
    (read,) = parse(prompt)
    assert "".join(piece.text for piece in read) == "".join(text for text, _ in letters)
    got = [piece.weight for piece in read for _ in piece.text]
    assert got == pytest.approx([weight for _, weight in letters])


def test_break_divides_and_takes_the_blanks_around_it() -> None:
    assert parse("a red house BREAK\non grass") == [[Piece("a red house", 1.0)], [Piece("on grass", 1.0)]]
    assert parse("(a BREAK b:1.5)") == [[Piece("a", 1.5)], [Piece("b", 1.5)]]
    assert parse("BREAK a") == [[], [Piece("a", 1.0)]]


def tokens(count: int, *commas: int) -> list[Token]:
    return [Token(COMMA if place in commas else 1000 + place, 1.0) for place in range(count)]


@pytest.mark.parametrize(
    ("count", "commas", "lengths"),
    [
        (0, [], [0]),
        (75, [70], [75]),
        (76, [], [75, 1]),
        (76, [70], [71, 5]),
        (76, [60, 72], [73, 3]),
        (76, [55], [56, 20]),
        (76, [54], [75, 1]),
        (76, [70, 75], [75, 1]),
        (76, [74], [75, 1]),
        (151, [70, 120], [71, 75, 5]),
        (151, [70, 140], [71, 70, 10]),
        (225, [], [75, 75, 75]),
    ],
)  # fmt: skip
def test_a_chunk_ends_after_a_comma_that_is_near(count: int, commas: list[int], lengths: list[int]) -> None:
    whole = tokens(count, *commas)
    made = chunks([whole], COMMA)
    assert [len(chunk) for chunk in made] == lengths
    assert [token for chunk in made for token in chunk] == whole


def test_break_ends_a_chunk() -> None:
    assert [len(chunk) for chunk in chunks([tokens(5), tokens(80)], COMMA)] == [5, CHUNK, 5]
    assert [len(chunk) for chunk in chunks([tokens(0), tokens(3)], COMMA)] == [0, 3]
    assert [len(chunk) for chunk in chunks([tokens(75), tokens(0)], COMMA)] == [75]
