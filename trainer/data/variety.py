"""The variety of a caption from step to step: wildcards, tags left out and shuffled, the trigger word before them.

Its tags are what commas part. Several captions of one picture are written as one with wildcards: `{a house|a hut on a hill}`.
Knows no step: each draw is a function of the `Random` that is given. `variants` is also what a page shows as a preview.
"""

from __future__ import annotations

import re
from random import Random

from trainer.data.captions import has_trigger, with_trigger
from trainer.data.seeds import seed_of
from trainer.settings import Settings

_WILDCARD = re.compile(r"\{([^{}]*\|[^{}]*)\}")
"""Braces with a bar and no braces inside; braces without a bar mean themselves."""


def varied(caption: str, settings: Settings, random: Random) -> str:
    """The caption of one picture in one step, with the trigger word: wildcards, then tag dropout, then shuffle.

    Where none of them is turned on, it is `with_trigger` alone, to the letter.
    """
    if settings.wildcards:
        caption = without_wildcards(caption, random)
    if settings.shuffle_tags or settings.tag_dropout:
        caption = _rearranged(caption, settings, random)
    return with_trigger(caption, settings.trigger)


def variants(caption: str, settings: Settings, count: int, name: str) -> list[str]:
    """`count` draws of `varied` for the picture of this file name, always the same ones; a single one if nothing varies.

    Texts may be there more than once: the likelier one is, the more often it is to be shown.
    """
    drawn = [varied(caption, settings, Random(seed_of(settings.seed, "variant", name, number))) for number in range(count)]
    return drawn if len(set(drawn)) > 1 else drawn[:1]


def without_wildcards(caption: str, random: Random) -> str:
    """One alternative of each `{one|another}`, inner braces first; each is as likely, an empty one leaves no comma behind."""
    while _WILDCARD.search(caption):
        caption = _WILDCARD.sub(lambda found: random.choice(found[1].split("|")), caption)
        caption = re.sub(r"(\s*,)+", ",", caption).strip(" ,")
    return " ".join(caption.split())


def unclosed(caption: str) -> bool:
    """Whether a brace before a bar is never closed, so that its alternatives are taken literally."""
    rest = caption
    while (without := re.sub(r"\{[^{}]*\}", "", rest)) != rest:
        rest = without
    return bool(re.search(r"\{[^{}]*\|", rest))


def _rearranged(caption: str, settings: Settings, random: Random) -> str:
    """The tags that hold the trigger word, then the kept ones as they are, then the others thinned out and shuffled."""
    tags = [tag.strip() for tag in caption.split(",") if tag.strip()]
    leading = [tag for tag in tags if has_trigger(tag, settings.trigger)]
    others = [tag for tag in tags if not has_trigger(tag, settings.trigger)]
    kept, loose = others[: settings.keep_tags], others[settings.keep_tags :]
    loose = [tag for tag in loose if random.random() >= settings.tag_dropout]
    if settings.shuffle_tags:
        random.shuffle(loose)
    return ", ".join(leading + kept + loose)
