"""By what a base is known again: a fingerprint of its weights that no form of the file changes, and the field's two hashes.

The fingerprint is of what a LoRA changes, the U-Net and both text encoders. The VAE is left out: people bake other VAEs into
the same model, and a LoRA draws with it as before. Values are taken in float16, so that a model and its float16 copy are one.
Reading gigabytes takes seconds; what was found is remembered for as long as the files keep their size and time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from trainer.bases import single
from trainer.bases.layout import names_in, weights
from trainer.bases.origin import UNREAD, Identity, Origin, Remark, compare
from trainer.bases.source import Facts
from trainer.errors import BaseModelError
from trainer.home import write_atomically
from trainer.lora.keys import COMPONENTS, Component

NO_FILE = "IsADirectory"
"""What kohya's tools write in place of a hash where a base is a folder."""

MEMORY = "bases.json"
"""What is remembered, in the cache folder: by path, with the size and time of each file."""

_OF_TEXT = ("embeddings.", "encoder.", "final_layer_norm.")


def origin_of(facts: Facts, cache: Path) -> Origin:
    """All that is known of a base that is here; without hashes if its files cannot be read now."""
    assert facts.place is not None, "a base is fetched before it is read"
    try:
        return Origin.of(facts, identify(facts.place, cache))
    except BaseModelError:
        return Origin.of(facts)


def remarks(facts: Facts, loras: Iterable[tuple[str, Mapping[str, str]]], cache: Path) -> list[Remark]:
    """What to say about LoRAs, each given by its name and its header's texts, on a base; see `origin.compare`.

    The base is read for it only where nothing but its weights can tell whether it is the LoRA's own under another name.
    """
    assert facts.place is not None, "a base is fetched before it is read"
    base, found = Origin.of(facts, recall(facts.place, cache)), []
    for name, metadata in loras:
        made_on = Origin.told_by(metadata)
        remark = compare(name, made_on, base)
        if remark and made_on.identity.fingerprint and base.identity == UNREAD:
            base = origin_of(facts, cache)
            remark = compare(name, made_on, base)
        found += [remark] if remark else []
    return found


def identify(place: Path, cache: Path) -> Identity:
    """The identity of a base, a folder or a file: read once, and remembered in the folder `cache`. Raises `BaseModelError`."""
    known = recall(place, cache)
    if known:
        return known
    try:
        stamp = _stamp(place)
        if place.is_dir():
            found = Identity(fingerprint(place), NO_FILE, NO_FILE)
        else:
            with place.open("rb") as file:
                found = Identity(fingerprint(place), hashlib.file_digest(file, "sha256").hexdigest(), short_hash(place))
    except (OSError, SafetensorError) as error:
        raise BaseModelError(f"The base {place} could not be read ({error}): download or copy it again.") from None
    entry = {str(place.resolve()): {"stamp": stamp, "identity": asdict(found)}}
    with suppress(OSError):  # what cannot be remembered is read again
        write_atomically(cache / MEMORY, json.dumps({**_remembered(cache), **entry}, indent=1).encode())
    return found


def recall(place: Path, cache: Path) -> Identity | None:
    """What is remembered of a base whose files are as they were; reads no weight."""
    try:
        entry = _remembered(cache)[str(place.resolve())]
        return Identity(**entry["identity"]) if entry["stamp"] == _stamp(place) else None
    except (KeyError, TypeError, OSError):
        return None


def fingerprint(place: Path) -> str:
    """SHA-256 over the sorted SHA-256 of every weight that a LoRA may change: of its name, its shape, its float16 values.

    One weight is in memory at a time, in the order of the file. A weight's name is diffusers' or transformers', the text
    encoders' without the `text_model.` that comes and goes between versions.
    """
    digests = []
    for part, name, tensor in _weights(place):
        if part == "unet" or name.startswith(_OF_TEXT) or (part, name) == ("te2", "text_projection.weight"):
            digest = hashlib.sha256(f"{part}.{name} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.to(torch.float16).flatten().numpy().data)
            digests.append(digest.digest())
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def short_hash(file: Path) -> str:
    """The first 8 digits of the SHA-256 of 64 KiB at 1 MiB: how the field named models before it hashed them whole."""
    with file.open("rb") as opened:
        opened.seek(0x100000)
        return hashlib.sha256(opened.read(0x10000)).hexdigest()[:8]


def _weights(place: Path) -> Iterator[tuple[str, str, torch.Tensor]]:
    """Part, name and value of every weight, and of what else lies in the files."""
    if place.is_file():
        yield from ((part, name, tensor) for part, name, tensor in single.weights_in(place) if part != "vae")
        return
    for part, file in _files(place):
        with safe_open(file, framework="pt") as opened:
            for name in opened.offset_keys():
                short = name.removeprefix("text_model.")
                if not short.endswith("position_ids"):
                    yield part, short, opened.get_tensor(name)


def _files(folder: Path) -> Iterator[tuple[Component, Path]]:
    """The files of a diffusers folder that hold the parts which a LoRA may change."""
    names = names_in(folder)
    for part in COMPONENTS:
        yield from ((part, folder / name) for name in weights(names, part) if name.endswith(".safetensors"))


def _stamp(place: Path) -> list[list[str | int]]:
    """Name, size and time of every file that the identity depends on."""
    files = [place] if place.is_file() else sorted(path for _, path in _files(place))
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _remembered(cache: Path) -> dict[str, Any]:
    """All that is remembered; nothing if the file is missing or damaged."""
    try:
        found = json.loads((cache / MEMORY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
