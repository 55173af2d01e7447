"""Files from the Hugging Face Hub: only those that are asked for, into the Hub's own cache, resumed where they were cut off.

What other programs have put into that cache is used, and the reverse. huggingface_hub throws a half-downloaded file away;
large files are therefore brought here, checked against the hash that the Hub lists. Knows nothing of what is in them.
"""

from __future__ import annotations

import hashlib
import json
import os
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

from trainer.errors import BaseModelError, StorageError, storage_reason
from trainer.home import write_atomically

MARGIN = 2**30
"""Bytes that stay free on the disk."""
TRIES = 5
"""How often in a row a connection may break without a byte having come."""
PAUSE = 1.0
"""Seconds before a broken connection is tried again."""
TIMEOUT = 30.0
"""Seconds without an answer after which a connection counts as broken."""
_GIB = 2**30


@dataclass(frozen=True)
class Remote:
    """One file on the Hub."""

    size: int
    sha256: str
    """Of a large file; empty for a small one, which huggingface_hub brings."""


@dataclass(frozen=True)
class Repo:
    """A repository at one commit, and where it lies in the cache."""

    name: str
    commit: str
    files: Mapping[str, Remote]

    @property
    def snapshot(self) -> Path:
        """The folder that will look like the repository."""
        return storage(self.name) / "snapshots" / self.commit

    def lacking(self, names: list[str]) -> list[str]:
        """Which of `names` are not in the cache."""
        return [name for name in names if not (self.snapshot / name).is_file()]

    def part(self, name: str) -> Path:
        """Where a large file grows; named by its content, so that it is never continued with another."""
        return storage(self.name) / "blobs" / f"{self.files[name].sha256}.impasto-part"

    def read_json(self, name: str) -> dict[str, Any]:
        """A small file of the repository; empty if it has no such file."""
        if name not in self.files:
            return {}
        path = Path(hf_hub_download(self.name, name, revision=self.commit, cache_dir=constants.HF_HUB_CACHE))
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found


def latest(name: str) -> Path | None:
    """Where a repository lies in the cache, as it was when it came last, whole or not; None if it never came."""
    ref = storage(name) / "refs" / "main"
    return storage(name) / "snapshots" / ref.read_text(encoding="utf-8").strip() if ref.is_file() else None


def bringing(name: str, choose: Callable[[Repo], list[str]]) -> Iterator[tuple[int, int]]:
    """Bring the files that `choose` wants of a repository; yields bytes that are there, and that there will be.

    Afterwards `latest` tells the place. Raises `BaseModelError`, `StorageError`, and what `choose` raises.
    """
    with _sentences(name):
        repo = _listed(name)
        names = choose(repo)
        place = storage(name)
        place.joinpath("blobs").mkdir(parents=True, exist_ok=True)
        with WeakFileLock(place / "impasto.lock"):
            _check_disk(repo, names)
            yield from _bring(repo, names)
            write_atomically(place / "refs" / "main", repo.commit.encode())


def storage(name: str) -> Path:
    """The folder of a repository in the Hub's cache."""
    return Path(constants.HF_HUB_CACHE).expanduser() / f"models--{name.replace('/', '--')}"


def _listed(name: str) -> Repo:
    """What the Hub has under this name now."""
    info = HfApi().model_info(name, files_metadata=True, timeout=TIMEOUT)
    files = {each.rfilename: Remote(each.size or 0, each.lfs.sha256 if each.lfs else "") for each in info.siblings or []}
    return Repo(name, info.sha or "main", files)


def _check_disk(repo: Repo, names: list[str]) -> None:
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


def _bring(repo: Repo, names: list[str]) -> Iterator[tuple[int, int]]:
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


def _bring_large(repo: Repo, name: str) -> Iterator[int]:
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
    with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT) as response:
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
        raise StorageError(f"Could not write {storage(name)}: {storage_reason(error)}. {kept}") from error
