"""Captions from the names of files, where there is no model to write them."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePath

from trainer.data.captions import one_line
from trainer.errors import UsageError

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

    Numbers at either end, marks of copies and what cameras write are left out; empty where nothing is left. Every other brace
    of the template stays.
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
    return one_line(template.replace("{name}", " ".join(words))) if words else ""


def check_template(template: str) -> str:
    """A template as it is. Raises `UsageError` if it has no place for the name, or another one."""
    rest = re.sub(r"\{[^{}]*\|[^{}]*\}", "", template)  # wildcards
    if places := sorted(set(re.findall(r"\{[^{}]*\}?", rest)) - {"{name}"}):
        raise UsageError(f"The template has {', '.join(places)}, which means nothing: write {{name}} for the file's name.")
    if "{name}" not in template:
        raise UsageError("The template has no {name}: every picture would get the same caption.")
    return template
