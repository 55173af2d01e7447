"""A base from the Hugging Face Hub: which of a repository's files it needs, and where it is once they have come.

A base that is whole in the Hub's cache is never asked for again: training goes on with the weights it began with, and without
a network. How files come, `remote.py` knows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from trainer.bases.kinds import SDXL, kind_of
from trainer.bases.layout import INDEX, UNET_CONFIG, missing, names_in, needed, refusal
from trainer.bases.remote import TIMEOUT, Repo, bringing, latest
from trainer.errors import BaseModelError
from trainer.tensorfile import TensorInfo, read_header

_GIB = 2**30
_SOURCE = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:/(.+\.safetensors))?")


def is_hub_source(text: str) -> bool:
    """Whether `text` has the form of a Hub id, `owner/name`, or of one file there, `owner/name/file.safetensors`."""
    return _SOURCE.fullmatch(text) is not None


def cached(source: str) -> Path | None:
    """The base in the Hub's cache, a diffusers folder or a single file, if all of it is there; asks no server."""
    name, file = _split(source)
    snapshot = latest(name)
    if snapshot is None:
        return None
    names = names_in(snapshot)
    if not file and INDEX not in names:  # what has come of it may be another file, such as a LoRA that lies beside the base
        loose = [name for name in _loose(names) if _is_base(snapshot / name)]
        file = loose[0] if len(loose) == 1 else ""
    if file:
        return snapshot / file if file in names else None
    return None if missing(names) else snapshot


def _is_base(file: Path) -> bool:
    """Whether a file here is an SDXL base."""
    try:
        return kind_of(read_header(file, BaseModelError).tensors) is SDXL
    except BaseModelError:
        return False


def fetch(source: str, told: Callable[[int, int], None] | None = None) -> Path:
    """Bring a base from the Hub: the diffusers folder, or the single file, in the Hub's cache.

    `source` is `owner/name` or `owner/name/file.safetensors`; `told` is called with the bytes that are there and that there
    will be, many times a second. Raises `BaseModelError` and `StorageError`.
    """
    for done, total in fetching(source):
        if told:
            told(done, total)
    place = cached(source)
    assert place is not None, "what was fetched is in the cache"
    return place


def fetching(source: str) -> Iterator[tuple[int, int]]:
    """`fetch` step by step: bytes that are there, bytes that there will be. Afterwards `cached` tells the place."""
    if cached(source):
        return
    name, file = _split(source)
    yield from bringing(name, lambda repo: _needed(repo, file))


def _split(source: str) -> tuple[str, str]:
    """A source as the repository's name and the file in it, which may be empty."""
    found = _SOURCE.fullmatch(source)
    if not found:
        raise BaseModelError(f"{source} is no Hub id: it must read owner/name, or owner/name/file.safetensors.")
    return found[1], found[2] or ""


def _needed(repo: Repo, file: str) -> list[str]:
    """What is to come: `file`, or the only one, or a diffusers folder. Raises `BaseModelError`."""
    file = file or _only_file(repo)
    return _file_needed(repo, file) if file else _folder_needed(repo)


def _loose(names: Iterator[str] | set[str] | Mapping[str, Any]) -> list[str]:
    """The .safetensors files at the top of a repository."""
    return sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)


def _only_file(repo: Repo) -> str:
    """The single file that a repository without a diffusers folder consists of; empty if it is a diffusers folder."""
    if INDEX in repo.files:
        return ""
    loose = _loose(repo.files)
    if len(loose) == 1:
        return loose[0]
    if not loose:
        raise BaseModelError(
            f"{repo.name} on the Hub holds neither a diffusers folder nor a .safetensors file at its top: choose another."
        )
    several = ", ".join(f"{name} ({repo.files[name].size / _GIB:.1f} GiB)" for name in loose)
    raise BaseModelError(
        f"{repo.name} on the Hub holds several models: {several}. Name the one you want, such as {repo.name}/{loose[0]}."
    )


def _file_needed(repo: Repo, file: str) -> list[str]:
    """`file`, after its header has been seen to be that of an SDXL base."""
    if file not in repo.files:
        others = ", ".join(_loose(repo.files)) or "none"
        raise BaseModelError(f"{repo.name} on the Hub has no file {file}. Its .safetensors files: {others}.")
    if repo.lacking([file]):
        header = HfApi().parse_safetensors_file_metadata(repo.name, file, revision=repo.commit, timeout=TIMEOUT)
        kind = kind_of(
            {key: TensorInfo(str(each.dtype), tuple(each.shape), *each.data_offsets) for key, each in header.tensors.items()}
        )
        if kind is not SDXL:
            raise BaseModelError(f"{repo.name}/{file} on the Hub is {kind.name}, not an SDXL base: {kind.advice}.")
    return [file]


def _folder_needed(repo: Repo) -> list[str]:
    """The files of a diffusers folder, after its configs have been seen to be those of an SDXL base."""
    what = refusal(repo.read_json(INDEX), repo.read_json(UNET_CONFIG))
    if what:
        raise BaseModelError(f"{repo.name} on the Hub {what}.")
    lacking = missing(repo.files)
    if lacking:
        raise BaseModelError(f"{repo.name} on the Hub is not a whole SDXL base: it has no {', no '.join(lacking)}.")
    return needed(repo.files)
