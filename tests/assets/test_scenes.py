"""The drawn world: what is held out stays out, and everything follows from a seed."""

import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest

MAKE = Path(__file__).resolve().parents[2] / "assets" / "make"
STYLES = MAKE.parent / "styles"
sys.path.insert(0, str(MAKE))

import scenes  # noqa: E402
import treatments  # noqa: E402


def test_a_fifth_of_the_colour_pairs_is_held_out() -> None:
    assert abs(len(treatments.HELD_OUT_PAIRS) / len(treatments.PAIRS) - 0.2) < 0.02
    assert {("white", "blue"), ("pink", "black")} <= treatments.HELD_OUT_PAIRS


def test_the_base_sees_no_held_out_pair_and_no_held_out_treatment() -> None:
    random = Random(3)
    drawn = [treatments.random_treatment(random) for _ in range(4000)]
    kinds = {treatment.kind for treatment in drawn}
    assert {"flat", "outlined", "ink", "poster", "duotone", "silhouette", "pastel", "pixelated"} <= kinds
    assert not kinds & {"glass", "riso"}
    words = {treatment.words for treatment in drawn if treatment.kind == "ink"}
    assert len(words) > 100
    assert not any(f"{ink} lines on {paper} paper" in each for each in words for ink, paper in treatments.HELD_OUT_PAIRS)


def test_every_object_colour_and_place_comes_about() -> None:
    random = Random(4)
    drawn = [thing for _ in range(1000) for thing in scenes.random_scene(random).things]
    assert {thing.name for thing in drawn} == set(scenes.OBJECTS)
    assert {thing.colour for thing in drawn} == set(scenes.COLOURS)
    assert {thing.place for thing in drawn} == set(scenes.PLACES)


def test_objects_lie_inside_the_picture() -> None:
    random = Random(5)
    for _ in range(300):
        for thing in scenes.random_scene(random).things:
            assert thing.scale <= thing.x <= 1 - thing.scale


def test_a_seed_gives_the_same_picture_and_caption() -> None:
    one, two = (scenes.random_scene(Random(6)) for _ in range(2))
    treatment = treatments.random_treatment(Random(6))
    assert treatments.draw(one, treatment).tobytes() == treatments.draw(two, treatment).tobytes()
    assert treatments.describe(one, treatment, Random(1)) == treatments.describe(two, treatment, Random(1))


def test_a_scene_keeps_its_shapes_in_every_treatment() -> None:
    scene = scenes.random_scene(Random(7), things=1)
    flat = np.asarray(treatments.draw(scene, treatments.Treatment("flat", ""))).astype(int)
    inverted = np.asarray(treatments.draw(scene, treatments.Treatment("negative", ""))).astype(int)
    assert np.abs(flat + inverted - 255).max() <= 2


@pytest.mark.parametrize("name", sorted(treatments.HELD_OUT_TREATMENTS))
def test_a_sample_style_names_everything_but_the_style(name: str) -> None:
    captions = [path.read_text(encoding="utf-8") for path in sorted((STYLES / name).glob("*.txt"))]
    assert 16 <= len(captions) <= 20
    assert all(any(thing in caption for thing in scenes.OBJECTS) for caption in captions)
    style_words = ("lines", "paper", "outline", "poster", *name.split("-"))
    assert not any(word in caption for caption in captions for word in style_words)
