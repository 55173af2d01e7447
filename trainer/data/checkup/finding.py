"""A finding: something in a dataset that may spoil a training, in a sentence; and the table of all kinds of them.

Knows neither how anything is found nor how it is mended.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What was found, and where."""

    kind: str
    """A name in `KINDS`."""
    sentence: str
    names: tuple[str, ...] = ()
    """The pictures that it concerns, by file name; for `lone`, captions."""
    groups: tuple[tuple[str, ...], ...] = ()
    """Those of them that are alike: of each group the one that is best kept comes first."""
    mend: str = ""
    """What a button says that mends it; empty where only a person can."""
    advice: str = ""
    """What to do, or what mending does."""


KINDS: dict[str, tuple[str, str]] = {
    "damaged": ("Damaged pictures", "Move aside"),
    "trigger": ("No trigger word", ""),
    "bare": ("No caption", "Take from file names"),
    "duplicate": ("Exact copies", "Keep one of each"),
    "similar": ("Nearly the same", "Keep the best of each"),
    "small": ("Too small", "Take out"),
    "upscaled": ("Enlarged", "Take out"),
    "blurred": ("Blurred", "Take out"),
    "blocks": ("Compressed too hard", "Take out"),
    "border": ("Frames", "Cut off"),
    "watermark": ("Watermarks", ""),
    "ratio": ("Extreme shapes", ""),
    "encoding": ("Captions in other encodings", "Rewrite as UTF-8"),
    "long": ("Captions that are cut off", ""),
    "style": ("Captions that name the style", "Leave it out"),
    "leak": ("One subject in most pictures", ""),
    "shared": ("Pictures that share a caption", ""),
    "lone": ("Captions without a picture", ""),
    "few": ("Few pictures", ""),
    "many": ("Seen too rarely", ""),
    "turned": ("All of one shape", ""),
    "idle": ("Does nothing", ""),
}
"""Every kind, the most serious first: its title, and what the button says that mends it, if one can."""


TAKEN_OUT = ("small", "upscaled", "blurred", "blocks")
"""Kinds that are mended by leaving out the pictures."""


def found(kind: str, sentence: str, names: Iterable[str], advice: str) -> Finding:
    """A finding of a kind that can always be mended, or never."""
    return Finding(kind, sentence, tuple(names), mend=KINDS[kind][1], advice=advice)


def counted(count: int, one: str, many: str) -> str:
    """How a sentence about so many of something begins: "1 picture is", "3 pictures are"."""
    return f"{count:,} {one if count == 1 else many}"
