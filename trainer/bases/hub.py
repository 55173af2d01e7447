"""A base from the Hugging Face Hub: only the files it needs, into the Hub's own cache, resumed where they were cut off.

What other programs have put into that cache is used, and the reverse. A base that is whole there is never asked for again:
training goes on with the weights it began with, and without a network. huggingface_hub throws a half-downloaded file away;
weight files are therefore brought here, checked against the hash that the Hub lists. Knows nothing of what is in them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, constants, get_session, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    SafetensorsParsingError,
)
from huggingface_hub.utils import WeakFileLock, build_hf_headers, hf_raise_for_status

from trainer.bases.kinds import SDXL, kind_of
from trainer.bases.layout import INDEX, UNET_CONFIG, missing, names_in, needed, refusal
from trainer.errors import BaseModelError, StorageError, storage_reason
from trainer.home import write_atomically
from trainer.tensorfile import TensorInfo, read_header

MARGIN = 2**30
"""Bytes that stay free on the disk."""
TRIES = 5
"""How often in a row a connection may break without a byte having come."""
PAUSE = 1.0
"""Seconds before a broken connection is tried again."""
_TIMEOUT = 30.0
_GIB = 2**30
_SOURCE = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:/(.+\.safetensors))?")


@dataclass(frozen=True)
class _Remote:
    """One file on the Hub."""

    size: int
    sha256: str
    """Of a large file; empty for a small one, which huggingface_hub brings."""


@dataclass(frozen=True)
class _Repo:
    """A repository at one commit, and where it lies in the cache."""

    name: str
    commit: str
    files: Mapping[str, _Remote]

    @property
    def snapshot(self) -> Path:
        """The folder that will look like the repository."""
        return _storage(self.name) / "snapshots" / self.commit

    def lacking(self, names: list[str]) -> list[str]:
        """Which of `names` are not in the cache."""
        return [name for name in names if not (self.snapshot / name).is_file()]

    def part(self, name: str) -> Path:
        """Where a large file grows; named by its content, so that it is never continued with another."""
        return _storage(self.name) / "blobs" / f"{self.files[name].sha256}.impasto-part"

    def read_json(self, name: str) -> dict[str, Any]:
        """A small file of the repository; empty if it has no such file."""
        if name not in self.files:
            return {}
        path = Path(hf_hub_download(self.name, name, revision=self.commit, cache_dir=constants.HF_HUB_CACHE))
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found


def is_hub_source(text: str) -> bool:
    """Whether `text` has the form of a Hub id, `owner/name`, or of one file there, `owner/name/file.safetensors`."""
    return _SOURCE.fullmatch(text) is not None


def cached(source: str) -> Path | None:
    """The base in the Hub's cache, a diffusers folder or a single file, if all of it is there; asks no server."""
    name, file = _split(source)
    storage = _storage(name)
    ref = storage / "refs" / "main"
    if not ref.is_file():
        return None
    snapshot = storage / "snapshots" / ref.read_text(encoding="utf-8").strip()
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
    with _sentences(name):
        repo = _listed(name)
        file = file or _only_file(repo)
        names = _file_needed(repo, file) if file else _folder_needed(repo)
        storage = _storage(name)
        storage.joinpath("blobs").mkdir(parents=True, exist_ok=True)
        with WeakFileLock(storage / "impasto.lock"):
            _check_disk(repo, names)
            yield from _bring(repo, names)
            write_atomically(storage / "refs" / "main", repo.commit.encode())


def _split(source: str) -> tuple[str, str]:
    """A source as the repository's name and the file in it, which may be empty."""
    found = _SOURCE.fullmatch(source)
    if not found:
        raise BaseModelError(f"{source} is no Hub id: it must read owner/name, or owner/name/file.safetensors.")
    return found[1], found[2] or ""


def _storage(name: str) -> Path:
    return Path(constants.HF_HUB_CACHE).expanduser() / f"models--{name.replace('/', '--')}"


def _listed(name: str) -> _Repo:
    """What the Hub has under this name now."""
    info = HfApi().model_info(name, files_metadata=True, timeout=_TIMEOUT)
    files = {each.rfilename: _Remote(each.size or 0, each.lfs.sha256 if each.lfs else "") for each in info.siblings or []}
    return _Repo(name, info.sha or "main", files)


def _loose(names: Iterator[str] | set[str] | Mapping[str, Any]) -> list[str]:
    """The .safetensors files at the top of a repository."""
    return sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)


def _only_file(repo: _Repo) -> str:
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


def _file_needed(repo: _Repo, file: str) -> list[str]:
    """`file`, after its header has been seen to be that of an SDXL base."""
    if file not in repo.files:
        others = ", ".join(_loose(repo.files)) or "none"
        raise BaseModelError(f"{repo.name} on the Hub has no file {file}. Its .safetensors files: {others}.")
    if repo.lacking([file]):
        header = HfApi().parse_safetensors_file_metadata(repo.name, file, revision=repo.commit, timeout=_TIMEOUT)
        kind = kind_of(
            {key: TensorInfo(str(each.dtype), tuple(each.shape), *each.data_offsets) for key, each in header.tensors.items()}
        )
        if kind is not SDXL:
            raise BaseModelError(f"{repo.name}/{file} on the Hub is {kind.name}, not an SDXL base: {kind.advice}.")
    return [file]


def _folder_needed(repo: _Repo) -> list[str]:
    """The files of a diffusers folder, after its configs have been seen to be those of an SDXL base."""
    what = refusal(repo.read_json(INDEX), repo.read_json(UNET_CONFIG))
    if what:
        raise BaseModelError(f"{repo.name} on the Hub {what}.")
    lacking = missing(repo.files)
    if lacking:
        raise BaseModelError(f"{repo.name} on the Hub is not a whole SDXL base: it has no {', no '.join(lacking)}.")
    return needed(repo.files)


def _check_disk(repo: _Repo, names: list[str]) -> None:
    """Raise `StorageError` if what is still to come does not fit."""
    come = sum(_size(repo.part(name)) for name in names if repo.files[name].sha256)
    need = sum(repo.files[name].size for name in repo.lacking(names)) - come
    cache = Path(constants.HF_HUB_CACHE).expanduser()
    free = shutil.disk_usage(cache).free
    if need and need + MARGIN > free:
        raise StorageError(
            f"{repo.name} needs {(need + MARGIN) / _GIB:.1f} GiB on the disk of {cache}, and {free / _GIB:.1f} GiB are free: "
            "free some space, or let HF_HOME name a folder on another disk."
        )


def _bring(repo: _Repo, names: list[str]) -> Iterator[tuple[int, int]]:
    """Every file of `names` into the snapshot; yields how much of all is there."""
    total, before = sum(repo.files[name].size for name in names), 0
    for name in names:
        yield before, total
        if repo.lacking([name]):
            if repo.files[name].sha256:
                yield from ((before + come, total) for come in _bring_large(repo, name))
            else:
                hf_hub_download(repo.name, name, revision=repo.commit, cache_dir=constants.HF_HUB_CACHE)
        before += repo.files[name].size
    yield total, total


def _bring_large(repo: _Repo, name: str) -> Iterator[int]:
    """One large file: downloaded from where it was cut off, checked, and put where the cache has its files."""
    remote, part = repo.files[name], repo.part(name)
    blob, pointer = part.with_name(remote.sha256), repo.snapshot / name
    if not blob.is_file():
        yield from _download(hf_hub_url(repo.name, name, revision=repo.commit), part, remote.size)
        with part.open("rb") as file:
            damaged = hashlib.file_digest(file, "sha256").hexdigest() != remote.sha256
        if damaged:
            part.unlink()
            raise BaseModelError(f"{repo.name}/{name} arrived damaged and was thrown away: start the download again.")
        os.replace(part, blob)
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.unlink(missing_ok=True)  # it may be dangling
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:  # Windows lets only developers make links; the cache then holds the file itself here
        os.replace(blob, pointer)


def _download(url: str, part: Path, size: int) -> Iterator[int]:
    """Let `part` grow to `size` bytes, over as many connections as it takes; yields how long it is."""
    tries = TRIES
    while (have := _size(part)) != size:
        try:
            yield from _stream(url, part, have if have < size else 0)
        except httpx2.TransportError:
            tries = TRIES - 1 if _size(part) > have else tries - 1
            if not tries:
                raise
            time.sleep(PAUSE)
        else:
            if _size(part) != size:
                part.unlink()
                raise BaseModelError(
                    f"In place of {url} came something else: a proxy or a login page may be in between. Open it in a browser."
                )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _stream(url: str, part: Path, have: int) -> Iterator[int]:
    """Append what one connection brings after the first `have` bytes; yields how many there are."""
    headers = {**build_hf_headers(), "Accept-Encoding": "identity", "Range": f"bytes={have}-"}
    with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT) as response:
        if response.status_code >= 400:
            response.read()
        hf_raise_for_status(response)
        with part.open("ab") as file:
            file.truncate(have if response.status_code == 206 else 0)  # 200: the server sends the whole file
            for chunk in response.iter_bytes():
                file.write(chunk)
                yield file.tell()


@contextmanager
def _sentences(name: str) -> Iterator[None]:
    """The Hub's refusals and the network's failures, for a person."""
    kept = "What has come so far is kept: start again and it goes on from there."
    try:
        yield
    except GatedRepoError:
        raise BaseModelError(
            f"{name} is gated: open https://huggingface.co/{name}, agree to its terms, then run `hf auth login` here."
        ) from None
    except RepositoryNotFoundError:
        raise BaseModelError(
            f"There is no {name} on the Hugging Face Hub, or it is private, and no folder or file {name} here: check the "
            "spelling; if it is private, run `hf auth login`."
        ) from None
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, httpx2.TransportError, json.JSONDecodeError) as error:
        why = "HF_HUB_OFFLINE is set" if isinstance(error, OfflineModeIsEnabled) else "the Hugging Face Hub cannot be reached"
        raise BaseModelError(f"{name} is not on this machine, or not all of it, and {why}. {kept}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise BaseModelError(f"The Hugging Face Hub refused {name} (HTTP {status}): try again later. {kept}") from None
    except SafetensorsParsingError:
        raise BaseModelError(f"{name} on the Hub has a damaged .safetensors file: choose another.") from None
    except HFValidationError:
        raise BaseModelError(f"{name} is no Hub id: it must read owner/name.") from None
    except OSError as error:  # the Hub's own errors are OSErrors too, and are told of above
        raise StorageError(f"Could not write {_storage(name)}: {storage_reason(error)}. {kept}") from error
