"""What the text encoders say of captions in a training: at every step anew where one of them is trained, else once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trainer.data.features import TextCache
from trainer.sdxl.base import Base
from trainer.sdxl.text import TextFeatures, encode_text


class Texts:
    """Reads captions for a training on `base`; what is encoded once is kept in `cache`."""

    def __init__(self, base: Base, cache: TextCache | None) -> None:
        self._base = base
        self._cache = cache

    @property
    def kept(self) -> bool:
        """Whether a caption is encoded only once."""
        return self._cache is not None

    def read(self, captions: Sequence[str]) -> TextFeatures:
        """The features of captions, on the base's device; differentiable where an encoder is trained."""
        if self._cache is None:
            return encode_text(self._base, captions)
        found = [self._cache.get(caption) for caption in captions]
        context, pooled = (torch.stack(parts).to(self._base.device) for parts in zip(*found, strict=True))
        return TextFeatures(context, pooled)
