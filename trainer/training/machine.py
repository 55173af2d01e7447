"""How much memory is free, and how fast it is computed: of the card that is there, or of a card of a size that was named.

Rates are estimates: of a card that is there, measured for a moment; of one that is not, from its data sheet. Knows nothing
of models. torch is loaded only to ask a card or to measure.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trainer.errors import RunError, UsageError
from trainer.sdxl.counts import Count
from trainer.settings import Precision

if TYPE_CHECKING:
    import torch

_UNITS = {
    "": 1,
    "b": 1,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "m": 2**20,
    "g": 2**30,
}

SUSTAINED = 0.6
"""Share of a card's data-sheet rate that SDXL's multiplications reach. Fits published times of drawing on RTX 3090 and A100
within a third, once `traffic` has been counted for itself."""

CARD_LAUNCH = 35e-6
"""Seconds that Python and torch take to start an operation on a card. Fits an H100 at batch 1, which waits for nothing else:
14.9 steps of drawing a second, 0.6 s a step of training."""

OF_MEASURED = 0.75
"""Share of the rate measured on one large product that SDXL's products of many sizes reach."""

CPU_LAUNCH = 12e-6
CPU_BANDWIDTH = 10e9


@dataclass(frozen=True)
class Machine:
    """What computes: its free memory in bytes, and its rates."""

    name: str
    free: int
    native: Precision
    """The plainest precision in which it is fast."""
    rate: float
    """Floating-point operations a second in matrix products of the native type."""
    bandwidth: float
    """Bytes a second between its memory and its cores."""
    launch: float
    """Seconds to start an operation."""
    there: bool = True
    """Whether it is in this computer."""
    fused: bool = True
    """Whether it computes attention without keeping the score of every pair."""
    ram: int | None = None
    """Free bytes of the computer's own memory, where that is another one and is known."""

    @property
    def card(self) -> bool:
        """Whether its memory is another one than the computer's own."""
        return self.native != "fp32"

    def seconds(self, count: Count, single: bool = False) -> float:
        """An estimate of how long a computation takes; `single` for one in float32."""
        rate = self.rate / 2 if single and self.native != "fp32" else self.rate
        return max(count.flops / rate + count.traffic / self.bandwidth, count.launches * self.launch)


def _card(name: str, gib: float, teraflops: float, bandwidth: float, native: Precision = "bf16") -> Machine:
    rate = SUSTAINED * teraflops * 1e12
    return Machine(name, int(gib * 2**30), native, rate, bandwidth * 1e9, CARD_LAUNCH, there=False)


CARDS = (
    _card("GeForce RTX 2060", 6, 25.8, 336, "fp16"),
    _card("GeForce RTX 4060", 8, 30, 272),
    _card("GeForce RTX 3080", 10, 59.5, 760),
    _card("GeForce RTX 3060", 12, 25.5, 360),
    _card("GeForce RTX 4080", 16, 97.5, 717),
    _card("GeForce RTX 4090", 24, 165, 1008),
    _card("GeForce RTX 5090", 32, 209, 1792),
    _card("L40S", 48, 362, 864),
    _card("A100", 80, 312, 2039),
    _card("H200", 141, 989, 4800),
)
"""One common card of each size: memory in GiB; 16-bit matrix products summed in float32 in TFLOP/s, dense; memory in GB/s."""


def parse_memory(text: str) -> int:
    """`12GiB`, `12 GB`, `8192MiB` in bytes. Raises `UsageError`."""
    found = re.fullmatch(r"\s*(\d+(?:[.,]\d+)?)\s*([a-z]*)\s*", text.lower())
    if not found or found[2] not in _UNITS or not (size := float(found[1].replace(",", ".")) * _UNITS[found[2]]) >= 1:
        raise UsageError(f"--memory takes a size such as 12GiB, 12GB or 8192MiB, not {text!r}.")
    return int(size)


def example(free: int) -> Machine:
    """A card that has so much memory, as an example of what can be expected."""
    card = next((card for card in CARDS if card.free >= free), CARDS[-1])
    return replace(card, free=free)


def machine_of(device: torch.device) -> Machine:
    """What is known of a device of this computer, its rates measured in a fraction of a second. Raises `RunError` where
    even that is too much, because other programs have all its memory.
    """
    from trainer.sdxl.device import out_of_memory

    try:
        return _measured(device)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise RunError(f"No memory is free on {device}: close other programs that use it.") from None


def _measured(device: torch.device) -> Machine:
    import psutil
    import torch

    from trainer.sdxl.device import free_bytes, training_dtype

    free, dtype = free_bytes(device), training_dtype(device)
    own = int(psutil.virtual_memory().available) if device.type == "cuda" else None
    if device.type == "cpu":
        square = torch.ones(512, 512)
        rate = 2 * 512**3 / _shortest(lambda: square @ square)
        return Machine("CPU", free, "fp32", rate, CPU_BANDWIDTH, CPU_LAUNCH)
    square = torch.ones(4096, 4096, device=device, dtype=dtype)

    def finished(run: Callable[[], torch.Tensor]) -> None:
        run()
        torch.get_device_module(device).synchronize()

    rate = OF_MEASURED * 2 * 4096**3 / _shortest(lambda: finished(lambda: square @ square))
    bandwidth = 2 * square.nbytes / _shortest(lambda: finished(square.clone))
    natives: dict[torch.dtype, Precision] = {torch.bfloat16: "bf16", torch.float16: "fp16"}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    fused = device.type != "mps"  # where a gradient is wanted, Apple's attention spells the scores out
    return Machine(name, free, natives.get(dtype, "fp32"), rate, bandwidth, CARD_LAUNCH, fused=fused, ram=own)


def _shortest(run: Callable[[], object]) -> float:
    """Seconds of the shortest of five runs, after one to warm up."""
    run()
    times = []
    for _ in range(5):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)
