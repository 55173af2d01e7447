"""Where it is computed and in what type, how much memory is free there, and how torch says that it has run out.

Needs nothing but torch, so that asking is quick. Knows nothing of models.
"""

from __future__ import annotations

import os
from typing import Literal

import psutil
import torch

from trainer.errors import UsageError
from trainer.settings import Precision

_RAN_OUT = ("out of memory", "DefaultCPUAllocator", "ALLOC_FAILED")
"""In what a card's driver and its libraries say, Apple's MPS, and the CPU's allocator: plain `RuntimeError`s, all of them."""


def best_device() -> torch.device:
    """CUDA, else Apple's MPS, else the CPU. `IMPASTO_DEVICE` overrules. Raises `UsageError`."""
    named = os.environ.get("IMPASTO_DEVICE")
    if named:
        try:
            return torch.device(named)
        except RuntimeError:
            raise UsageError(f"IMPASTO_DEVICE names no device: {named}. It can be cpu, cuda, cuda:1 or mps.") from None
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def training_dtype(device: torch.device, precision: Literal["auto", Precision] = "auto") -> torch.dtype:
    """What a base computes in while it is trained on: as asked, else bfloat16 on a card that has it, float16 on an older
    one (RTX 20 and before, which only emulate bfloat16), and float32 elsewhere.
    """
    asked = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    if asked or device.type != "cuda":
        return asked or torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def drawing_dtype(device: torch.device) -> torch.dtype:
    """float16 on a card, because bfloat16 swallows weak LoRAs when they are merged; float32 on a CPU."""
    return torch.float32 if device.type == "cpu" else torch.float16


def free_bytes(device: torch.device) -> int:
    """What can still be allocated on a device."""
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # kept by torch for its next tensors
    return int(torch.cuda.mem_get_info(device)[0]) + unused


def filled(device: torch.device) -> tuple[int, int]:
    """Bytes of a card's memory that are taken, by whomever, and that there are. A driver that puts tensors into the
    computer's memory hides that from its own count, not from torch's.
    """
    free, total = torch.cuda.mem_get_info(device)
    return max(total - free, torch.cuda.memory_reserved(device)), total


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch says that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in _RAN_OUT)
