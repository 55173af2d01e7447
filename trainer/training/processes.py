"""The processes that train one run together, one for each card: `accelerate launch -m trainer train …`.

Each takes its share of every step's batches; gradients and losses are averaged, so that all of them stay equal. The first
process alone writes files and tells of events. Knows nothing of what is trained, and no torch as long as it is alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


PATIENCE = timedelta(days=7)
"""So long the others wait for the first one, which encodes pictures, draws samples, and may be paused."""


@dataclass(frozen=True)
class Processes:
    """This process among the others; a run of one process talks to nobody."""

    index: int = 0
    count: int = 1

    @classmethod
    def found(cls) -> Processes:
        """Those that a launcher started this process with, connected to one another."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        from accelerate import PartialState

        from trainer.sdxl.device import best_device

        state = PartialState(cpu=best_device().type != "cuda", timeout=PATIENCE)
        return cls(state.process_index, state.num_processes)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.index == 0

    def agree(self, value: T) -> T:
        """What the first process says, in all of them: the others wait for it."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        said: list[T] = [value]
        broadcast_object_list(said)
        return said[0]

    def gathered(self, value: T) -> list[T]:
        """What each of them says, in all of them."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        said: list[T] = gather_object([value])
        return said

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Put the mean over all processes in place of each tensor; all of one type, on one device."""
        if self.count == 1 or not tensors:
            return
        import torch
        from accelerate.utils import reduce

        flat = reduce(torch.cat([tensor.reshape(-1) for tensor in tensors]), reduction="mean")
        with torch.no_grad():
            for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def leave(self) -> None:
        """Let go of the others: nothing is said any more."""
        if self.count > 1:
            from accelerate import PartialState

            PartialState().destroy_process_group()
