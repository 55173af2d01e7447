"""The running average of a LoRA (EMA), and other values that its matrices take for a while. Knows no optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from trainer.lora.adapter import Adapter


class Average:
    """An exponential moving average of every trained matrix, by its name in `Adapter.state`."""

    def __init__(self, adapter: Adapter, decay: float) -> None:
        """Begin at what the adapter is now."""
        self.decay = decay
        self.matrices = {name: matrix.detach().clone() for name, matrix in adapter.state().items()}

    @torch.no_grad()
    def follow(self, adapter: Adapter, step: int) -> None:
        """Take in what was learnt in `step`, from 1: the decay rises from 2/11 as (1 + step) / (10 + step), so that the
        beginning is soon forgotten.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, matrix in adapter.state().items():
            self.matrices[name].lerp_(matrix, 1 - decay)

    @torch.no_grad()
    def load(self, matrices: Mapping[str, torch.Tensor]) -> None:
        """Put back what a checkpoint kept. Raises `KeyError` if a matrix is missing."""
        for name, matrix in self.matrices.items():
            matrix.copy_(matrices[name])


@contextmanager
def holding(adapter: Adapter, matrices: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """While it lasts, the adapter holds these matrices; then, bit for bit, its own. Others than the named ones stay."""
    own = {name: matrix for name, matrix in adapter.state().items() if name in matrices}
    kept = {name: matrix.detach().clone() for name, matrix in own.items()}
    try:
        _put(own, matrices)
        yield
    finally:
        _put(own, kept)


def weighed(adapter: Adapter, weight: float) -> dict[str, torch.Tensor]:
    """The matrices that make the adapter work at `weight`, to be held."""
    if weight == 1:
        return {}
    return {name: matrix.detach() * weight for name, matrix in adapter.state().items() if name.endswith(".up")}


@torch.no_grad()
def _put(own: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor]) -> None:
    for name, matrix in own.items():
        matrix.copy_(values[name])
