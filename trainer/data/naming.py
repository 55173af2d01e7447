"""Captions from the names of files, where there is no model to write them."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePath

from trainer.data.captions import one_line

_CAMERA = re.compile(
    r"(img|image|dsc[nf]?|dcim|pxl|mvimg|gopr|dji|pict?|picture|photo|scan|screen ?shot|whatsapp image|untitled)(?![^\W\d_])",
    re.IGNORECASE,
)
"""What cameras, telephones and programs begin a name with that says nothing."""

_COPY = re.compile(r"\s*(\(\d+\)|\bcopy( \d+)?)\s*$", re.IGNORECASE)
_NUMBER = re.compile(r"(?=.*\d)[\da-f]{6,}|\d+[a-z]?", re.IGNORECASE)
"""A number, a date, a hash: a word that nobody would say of a picture."""

_TIME = re.compile(rf"{_NUMBER.pattern}|at|[ap]m|wa\d+", re.IGNORECASE)
"""The same in a name that a camera or a telephone has made."""


def caption_of(filename: str, template: str = "{name}") -> str:
    """What a file's name says of the picture, in the place of `{name}` in the template: "03_red-house (2).jpg" -> "red house".

    Numbers at either end, marks of copies and what cameras write are left out; where nothing is left, so is the place, with its
    comma. Every other brace of the template stays.
    """
    name = unicodedata.normalize("NFC", PurePath(filename).stem)
    name = _COPY.sub("", re.sub(r"[\s_+.]+|(?<=\w)-(?=\w)|-+", " ", name).strip())
    words, noise = name.split(), _NUMBER
    if camera := _CAMERA.match(name):
        words, noise = name[camera.end() :].split(), _TIME
    while words and noise.fullmatch(words[0].strip("()[],")):
        words.pop(0)
    while words and noise.fullmatch(words[-1].strip("()[],")):
        words.pop()
    said = " ".join(words)
    caption = template.replace("{name}", said)
    return one_line(caption if said else re.sub(r"(\s*,)+", ",", caption).strip(" ,"))
