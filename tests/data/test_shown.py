"""A picture as it is trained: what is said of it, with or without the trigger word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from trainer.data.buckets import place, sizes
from trainer.data.dataset import Picture
from trainer.data.shown import Shown
from trainer.data.variety import varied
from trainer.settings_text import validated

SHOWN = Shown(Picture(Path("a.png"), 512, 512, noted="a, b, c"), place(512, 512, sizes(512)))


@pytest.mark.parametrize(("prior", "text"), [(False, "glassy, a, b, c"), (True, "a, b, c")])
def test_only_pictures_of_the_style_get_the_trigger_word(prior: bool, text: str) -> None:
    settings, shown = validated({"trigger": "glassy"}), replace(SHOWN, prior=prior)
    assert shown.variants(settings) == [text]
    assert varied(shown.caption, shown.captioned(settings), None) == text  # type: ignore[arg-type]


def test_the_settings_say_how_many_variants_there_are() -> None:
    assert len(SHOWN.variants(validated({"shuffle_tags": True, "caption_variants": 7}))) == 7


def test_pictures_of_one_caption_vary_each_by_itself() -> None:
    settings = validated({"shuffle_tags": True})
    other = replace(SHOWN, picture=replace(SHOWN.picture, path=Path("b.png")))
    assert SHOWN.variants(settings) != other.variants(settings)
    assert SHOWN.variants(settings) == replace(SHOWN, weight=2.0).variants(settings)
