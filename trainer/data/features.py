"""Encode each text once. What is kept is named by everything it depends on, so that it can never be stale.

A cache entry holds what the text encoders say of one text: change a caption, and that caption alone is encoded again. Entries
are shared between runs and may be deleted at any time. Knows neither captions' variety nor the encoders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from trainer.errors import storing
from trainer.home import write_atomically

Read = Callable[[str], tuple[torch.Tensor, torch.Tensor]]
"""A text -> its context (77, C) and pooled output (P,), on any device and in any float type."""


class TextCache:
    """Texts as the U-Net reads them, in `folder`, for text encoders whose fingerprint is given."""

    def __init__(self, folder: Path, fingerprint: str, encode: Read) -> None:
        self._folder = folder
        self._fingerprint = fingerprint
        self._encode = encode

    def get(self, caption: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Context (77, C) and pooled output (P,) of a text, on the CPU in the type that they were made in.

        From the cache if they are there; the same bits either way. Raises `StorageError`.
        """
        name = hashlib.sha256(repr((self._fingerprint, caption)).encode("utf-8", errors="surrogatepass")).hexdigest()[:40]
        path = self._folder / f"{name}.safetensors"
        if path.is_file():
            try:
                kept = load(path.read_bytes())  # not mapped: the file may be deleted while it is used
                return kept["context"], kept["pooled"]
            except (SafetensorError, KeyError, OSError):
                path.unlink(missing_ok=True)  # cut off by a crash of the machine: encode it again
        context, pooled = (part.detach().cpu().contiguous() for part in self._encode(caption))
        with storing(path):
            write_atomically(path, save({"context": context, "pooled": pooled}))
        return context, pooled
