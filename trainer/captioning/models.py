"""The models that can write captions, by name, and what may stand in the place of a name. Knows no torch, opens no file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer.errors import UsageError

Kind = Literal["names", "florence", "blip", "tags"]
Length = Literal["short", "long", "longest"]

LENGTHS: tuple[Length, ...] = ("short", "long", "longest")
"""How much Florence-2 is asked to say: a sentence, some, or a paragraph."""


@dataclass(frozen=True)
class Model:
    """What writes captions. `source` is a Hub id or a folder; empty for file names, which need no model."""

    name: str
    source: str
    kind: Kind | None
    """None: told by its files once they are here."""
    about: str = ""
    gigabytes: float = 0
    """How much is downloaded, about."""


MODELS = (
    Model("names", "", "names", "No model: what the file's name says, put into a template."),
    Model(
        "florence-base", "florence-community/Florence-2-base", "florence",
        "Sentences, short or long; the one to begin with; without a card, seconds a picture.", 0.5,
    ),
    Model(
        "florence-large", "florence-community/Florence-2-large", "florence",
        "Sentences, short or long; sees more and errs less, best on a card.", 1.6,
    ),
    Model(
        "blip-large", "Salesforce/blip-image-captioning-large", "blip",
        "One short sentence; good with photographs.", 1.9,
    ),
    Model(
        "wd-vit", "SmilingWolf/wd-vit-tagger-v3", "tags",
        "Tags as on Danbooru, for anime and for Illustrious, NoobAI and Pony.", 0.4,
    ),
    Model(
        "wd-swinv2", "SmilingWolf/wd-swinv2-tagger-v3", "tags",
        "Tags as on Danbooru; a little more exact, slower.", 0.5,
    ),
)  # fmt: skip

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def chosen(name: str) -> Model:
    """The model of that name; or a folder, or a Hub id, that holds one. Raises `UsageError`."""
    for model in MODELS:
        if name == model.name:
            return model
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Model(folder.name, str(folder.resolve()), None)
    if _HUB_ID.fullmatch(name):
        return Model(name, name, None)
    known = ", ".join(model.name for model in MODELS)
    raise UsageError(f"There is no model {name} that writes captions: choose one of {known}, a folder, or a Hub id owner/name.")
