"""Captions without the words of their style."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.style_words import StyleWords

CAPTIONS = [
    # As BLIP writes them.
    ("a painting of a man sitting on a bench", "a man sitting on a bench"),
    ("an oil painting of a river with trees", "a river with trees"),
    ("a watercolor painting of an old house by the sea", "an old house by the sea"),
    ("a black and white photo of a dog running on the beach", "a dog running on the beach"),
    ("there is a painting of a woman with red hair", "a woman with red hair"),
    ("there is a cat that is sitting on a table", "there is a cat that is sitting on a table"),
    ("a close up of a drawing of a bird", "a bird"),
    ("a cartoon of a fox holding a balloon", "a fox holding a balloon"),
    ("a drawing of two children playing with a ball", "two children playing with a ball"),
    ("an anime girl with long blue hair", "a girl with long blue hair"),
    ("a cartoon elephant in a red hat", "an elephant in a red hat"),
    ("a 3d rendering of a small town at night", "a small town at night"),
    ("painting of boats in a harbor at sunset", "boats in a harbor at sunset"),
    ("a colorful illustration of a city street", "a city street"),
    ("a vintage photo of a group of men in hats", "a group of men in hats"),
    # As Florence-2 writes them.
    ("The image shows a painting of a river surrounded by trees and mountains.", "A river surrounded by trees and mountains."),
    ("The image is a digital illustration of a young woman standing in a field.", "A young woman standing in a field."),
    ("In this painting, we can see a boat on the water and a few birds.", "A boat on the water and a few birds."),
    ("In this image there is a man wearing a coat.", "There is a man wearing a coat."),
    ("A woman in a white dress walks along a path. The style of the painting is impressionistic with visible brushstrokes.",
     "A woman in a white dress walks along a path."),
    ("There is a mountain in the background of the painting.", "There is a mountain in the background."),
    ("The illustration is done in a cartoon style. A rabbit sits under a tree.", "A rabbit sits under a tree."),
    ("This is a watercolor painting. There is a bridge over a stream.", "There is a bridge over a stream."),
    ("The painting depicts a busy market. The overall mood of the painting is lively.",
     "A busy market. The overall mood is lively."),
    ("An impressionist painting of an empty street in the rain.", "An empty street in the rain."),
    ("The image shows a drawing of a cat. The drawing is done in pencil and is in black and white.", "A cat."),
    ("The image is a portrait of a woman in a blue coat.", "A portrait of a woman in a blue coat."),
    ("The painting is set in a forest, with tall trees.", "The scene is set in a forest, with tall trees."),
    # As people write them.
    ("a boat on a lake, in the style of Claude Monet", "a boat on a lake"),
    ("a lighthouse, oil on canvas", "a lighthouse"),
    ("a knight on a horse, digital art, highly detailed, trending on artstation", "a knight on a horse"),
    ("a village in the snow painted in watercolor", "a village in the snow"),
    ("a portrait of an old man drawn in charcoal on paper", "a portrait of an old man"),
    ("two cats on a sofa in a japanese woodblock style", "two cats on a sofa"),
    # What only has a style's name.
    ("a man standing in front of a painting", "a man standing in front of a painting"),
    ("a black and white cat on a windowsill", "a black and white cat on a windowsill"),
    ("there is a painting on the wall", "there is a painting on the wall"),
    ("The image shows a woman holding a painting.", "A woman holding a painting."),
    ("1girl, holding pencil, ink, book", "1girl, holding pencil, ink, book"),
    ("a woman in oil-stained overalls", "a woman in oil-stained overalls"),
    ("the cat is in the picture", "the cat is in the picture"),
    ("a woman painting a picture of a horse", "a woman painting a picture of a horse"),
    ("a woman dressed in black and white", "a woman dressed in black and white"),
    ("an old car beside a colorful wall", "an old car beside a colorful wall"),
    # Tags.
    ("1girl, solo, watercolor (medium), long hair, traditional media, smile", "1girl, solo, long hair, smile"),
    ("monochrome, 1boy, greyscale, sketch, hat, lineart", "1boy, hat"),
    ("no humans, scenery, pixel art, castle, sunset, art nouveau", "no humans, scenery, castle, sunset"),
    ("people in the art gallery", "people in the art gallery"),
    ("In a photo booth two girls laugh.", "In a photo booth two girls laugh."),
    ("a boy watching a cartoon on tv", "a boy watching a cartoon on tv"),
    ("a man with a knife in a threatening manner", "a man with a knife in a threatening manner"),
    ("The medium-sized dog runs.", "The medium-sized dog runs."),
    ("The artist is sitting at his easel.", "The artist is sitting at his easel."),
    ("There is a house. It is made of wood and painted red.", "There is a house. It is made of wood and painted red."),
    ("The image is made up of a river and a hill.", "The image is made up of a river and a hill."),
    ("A hill. The artist has used loose brushstrokes to create a sense of movement.", "A hill."),
    ("a cartoon unicorn", "a unicorn"),
    ("an anime uncle", "an uncle"),
    ("the cartoon cat and the cartoon mouse", "the cat and the mouse"),
    # Nothing else.
    ("a watercolor painting", ""),
    ("The painting is done in watercolor.", ""),
]  # fmt: skip


@pytest.mark.parametrize(("caption", "without"), CAPTIONS, ids=[caption[:40] for caption, _ in CAPTIONS])
def test_the_style_is_the_only_thing_not_named(caption: str, without: str) -> None:
    assert StyleWords().out_of(caption) == without


@pytest.mark.parametrize(
    ("caption", "own", "without"),
    [
        ("a zentangle of a lion", "zentangle", "a lion"),
        ("a zentangle lion, sks", "zentangle, sks", "a lion"),
        ("an oil painting of a garden by Claude Monet", "claude monet", "a garden"),
        ("a boat, Monet, water lilies", "Monet", "a boat, water lilies"),
        ("a boat in the style of hokusai with a wave", "hokusai", "a boat"),
        ("a skyscraper", "sky", "a skyscraper"),
        ("a fish (c++) here", "(c++", "a fish ) here"),
    ],
)
def test_words_of_ones_own_go_too(caption: str, own: str, without: str) -> None:
    assert StyleWords.told(own).out_of(caption) == without


def test_without_words_of_ones_own_nothing_more_goes() -> None:
    assert StyleWords.told(" , ,").out_of("a boat, Monet, water lilies") == "a boat, Monet, water lilies"


def test_the_trigger_is_left_out_beside_them() -> None:
    assert StyleWords.told("gouachy", "pntstyl").out_of("pntstyl, a gouachy cat") == "a cat"


PARTS = [*"aIn ,.()-", " in the style of ", "a painting of ", "cartoon ", "black and white ", "The painting is ", " own word "]


@given(st.lists(st.sampled_from(PARTS), max_size=40))
def test_any_caption_stays_one_clean_line_and_grows_no_longer(parts: list[str]) -> None:
    caption = "".join(parts)
    left = StyleWords.told("own word").out_of(caption)
    assert left == " ".join(left.split())
    assert len(left) <= len(caption)
    assert " own word " not in f" {left} "


@pytest.mark.parametrize("part", ["pixel art ", "oil ", "black and white ", "in a a a ", "x-", "-style ", "pixel art, "])
def test_a_caption_that_never_ends_takes_no_time(part: str) -> None:
    begun = time.perf_counter()
    StyleWords().out_of(part * 2000 + "end of it")
    assert time.perf_counter() - begun < 1
