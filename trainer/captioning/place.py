"""Where a model that writes captions lies: in a folder, or in the Hub's cache once it has come. Knows no torch.

Only what such a model is loaded from is downloaded. Pickles and a model's own code are refused: both can do anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from trainer.bases.remote import Repo, bringing, latest
from trainer.captioning.models import Kind, Model
from trainer.errors import CaptionerError

CONFIG, ONNX, TAGS = "config.json", "model.onnx", "selected_tags.csv"

_SMALL = (
    CONFIG, "generation_config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt",
)  # fmt: skip
_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d{5}-of-(\d{5})\.safetensors")
_PREPARATION = ({"preprocessor_config.json"}, {"processor_config.json"})
_VOCABULARIES = ({"tokenizer.json"}, {"vocab.json", "merges.txt"}, {"vocab.txt"})
"""One of each set is needed: how a picture is prepared, and the words."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_KINDS: dict[str, tuple[Kind, str]] = {
    "florence2": ("florence", "Florence2ForConditionalGeneration"), "blip": ("blip", "BlipForConditionalGeneration"),
}  # fmt: skip
"""What `config.json` calls a model -> what it is here, and the class that writes captions."""


def place_of(model: Model) -> Path | None:
    """The folder of a model, if all of it is here; asks no server. None for one that needs none, or that is to come.

    Raises `CaptionerError` if a person's own folder holds no such model.
    """
    if not model.source:
        return None
    folder = Path(model.source)
    if folder.is_absolute():
        kind_at(folder)
        return folder
    snapshot = latest(model.source)
    return snapshot if snapshot and not lacking(_names(snapshot)) else None


def fetching(model: Model) -> Iterator[tuple[int, int]]:
    """Bring a model that is not here: bytes that are there, and that there will be. Afterwards `place_of` tells the place.

    Raises `BaseModelError` and `StorageError` for what the Hub and the disk refuse, `CaptionerError` for a model of another
    kind, before its weights come.
    """

    def wanted(repo: Repo) -> list[str]:
        kind(f"{repo.name} on the Hub", repo.files, repo.read_json(CONFIG))
        return needed(repo.files)

    if model.source and place_of(model) is None:
        yield from bringing(model.source, wanted)


def kind_at(folder: Path) -> Kind:
    """What kind of model a folder holds. Raises `CaptionerError` if none that can be used."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise CaptionerError(f"{path} cannot be read ({error}): {again(folder)}.") from None
    return kind(str(folder), _names(folder), config if isinstance(config, dict) else {})


def again(folder: Path) -> str:
    """What to do about a damaged model: all that the Hub's cache has of it must go, or it would be taken for whole."""
    return f"delete the folder {folder.parents[1] if folder.parent.name == 'snapshots' else folder} and get the model again"


def kind(what: str, names: Collection[str], config: Mapping[str, Any]) -> Kind:
    """What kind of model these files are, `what` being their place in a sentence. Raises `CaptionerError`."""
    if _tagger(names):
        return "tags"
    type_, classes = config.get("model_type", ""), config.get("architectures") or ()
    found, written_by = _KINDS.get(type_, (None, ""))
    if found is None or (classes and written_by not in classes):
        called = f" but {', '.join(classes) or type_}" if classes or type_ else ""
        raise CaptionerError(f"{what} is none of the models that write captions here, Florence-2, BLIP and WD taggers{called}.")
    if "auto_map" in config:
        raise CaptionerError(
            f"{what} is made to be read by code of its own, which is not run here: choose its form for transformers, such as "
            "florence-community/Florence-2-base."
        )
    if without := lacking(names):
        pickled = not weights(names) and any(name.endswith(_PICKLES) for name in names)
        why = "has its weights only as pickles, which can run code when they are opened" if pickled else f"has no {without}"
        raise CaptionerError(f"{what} {why}: choose a model that is whole, such as florence-base or blip-large.")
    return found


def lacking(names: Collection[str]) -> str:
    """The first file that a model needs and `names` lack; empty if it is whole."""
    if _tagger(names):
        return ""
    if CONFIG not in names:
        return CONFIG
    for ways in (_PREPARATION, _VOCABULARIES):
        if not any(way <= set(names) for way in ways):
            return min(ways[0])
    return "" if weights(names) else "model.safetensors"


def needed(names: Collection[str]) -> list[str]:
    """The files among `names` that a model is loaded from, the small ones first."""
    return [TAGS, ONNX] if _tagger(names) else [name for name in _SMALL if name in names] + weights(names)


def weights(names: Collection[str]) -> list[str]:
    """The weight files, whole or else all the shards and their index; empty if neither is there."""
    if "model.safetensors" in names:
        return ["model.safetensors"]
    shards = {name: int(found[1]) for name in names if (found := _SHARD.fullmatch(name))}
    return [_INDEX, *sorted(shards)] if _INDEX in names and set(shards.values()) == {len(shards)} else []


def _names(folder: Path) -> set[str]:
    """The files of a folder; dangling links are left out."""
    return {path.name for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()


def _tagger(names: Collection[str]) -> bool:
    return ONNX in names and TAGS in names
