"""Groups of pictures that are the same, or nearly: against a search through all chains of pairs."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from PIL import Image, ImageEnhance

from tests.data.photographs import compressed, photograph
from trainer.data.checkup import likeness
from trainer.data.checkup.likeness import alike, same
from trainer.data.checkup.measures import Measure, measure


def made(hash: int, digest: str, colours: int = 0, **more: float) -> Measure:
    given = {
        "width": 100,
        "height": 100,
        "sharpness": 1.0,
        "detail": 100,
        "upscaled": 1.0,
        "blocks": 0.0,
        "corner": 0.0,
        **more,
    }
    hashed = f"{hash:016x}{bytes([colours] * 12).hex()}"
    return Measure(border=(0, 0, 0, 0), hash=hashed, digest=digest, **given)  # type: ignore[arg-type]


def chains(measures: dict[str, Measure]) -> set[frozenset[str]]:
    """The groups by an exhaustive search."""

    def near(one: Measure, other: Measure) -> bool:
        bits = (int(one.hash[:16], 16) ^ int(other.hash[:16], 16)).bit_count()
        apart = abs(int(one.hash[16:18], 16) - int(other.hash[16:18], 16))
        return bits <= likeness.BITS and apart <= likeness.COLOURS

    groups, left = set(), set(measures)
    while left:
        group = {left.pop()}
        while more := {name for name in left if any(near(measures[name], measures[known]) for known in group)}:
            group |= more
            left -= more
        if len(group) > 1:
            groups.add(frozenset(group))
    return groups


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_all_chains_of_near_pairs(seed: int) -> None:
    random = Random(seed)
    centres = [random.getrandbits(64) for _ in range(12)]
    measures = {}
    for number in range(80):
        flipped = sum(1 << bit for bit in random.sample(range(64), random.randint(0, 6)))
        measures[f"{number}.png"] = made(random.choice(centres) ^ flipped, str(number), colours=random.choice([0, 20, 40, 90]))
    assert {frozenset(group) for group in alike(measures)} == chains(measures)


def test_the_best_of_a_group_comes_first() -> None:
    measures = {
        "enlarged.png": made(1, "a", width=4000, height=4000, upscaled=4.0),
        "blocks.png": made(1, "b", width=2000, height=2000, blocks=0.5),
        "best.png": made(1, "c", width=2000, height=2000),
        "soft.png": made(1, "d", width=2000, height=2000, sharpness=0.5),
    }
    assert alike(measures) == [("best.png", "blocks.png", "soft.png", "enlarged.png")]


def test_exact_copies_are_no_near_ones() -> None:
    measures = {"a (1).png": made(1, "x"), "a.png": made(1, "x"), "b.png": made(0xFFFF, "y")}
    assert same(measures) == [("a.png", "a (1).png")]
    assert alike(measures) == []
    assert alike({}) == same({}) == []


def test_what_was_saved_again_is_alike_and_other_pictures_are_not(tmp_path: Path) -> None:
    measures = {}
    for seed in range(3):
        picture = photograph(seed, (400, 320))
        copies = {
            "whole": picture,
            "saved": compressed(picture, 60),
            "smaller": picture.resize((250, 200)),
            "brighter": ImageEnhance.Brightness(picture).enhance(1.12),
            "cropped": picture.crop((6, 6, 394, 314)),
            "mirrored": picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        }
        for name, copy in copies.items():
            copy.save(tmp_path / f"{name} {seed}.png")
            measures[f"{name} {seed}.png"] = measure(tmp_path / f"{name} {seed}.png")
    groups = {frozenset(group) for group in alike(measures)}
    wanted = ("whole", "saved", "smaller", "brighter", "cropped")
    assert groups == {frozenset(f"{name} {seed}.png" for name in wanted) for seed in range(3)}
