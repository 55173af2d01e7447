"""Devices, their types and their memory; no card is needed to tell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from trainer.sdxl.device import best_device, drawing_dtype, free_bytes, out_of_memory, training_dtype

CPU = torch.device("cpu")


def test_the_device_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMPASTO_DEVICE", "meta")
    assert best_device() == torch.device("meta")


def test_a_processor_trains_and_draws_in_float32() -> None:
    assert training_dtype(CPU) == torch.float32
    assert drawing_dtype(CPU) == torch.float32


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_card_trains_in_bfloat16_only_where_it_is_not_emulated(
    native: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    card = torch.device("cuda")
    told = [training_dtype(card, precision) for precision in ("auto", "int8", "nf4", "fp32", "bf16", "fp16")]
    assert told == [expected] * 3 + [torch.float32, torch.bfloat16, torch.float16]
    assert [training_dtype(CPU, precision) for precision in ("int8", "nf4")] == [torch.float32] * 2


def test_a_card_draws_in_float16() -> None:
    assert drawing_dtype(torch.device("cuda")) == torch.float16


def test_what_torch_keeps_for_its_next_tensors_counts_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    card = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 300)
    assert free_bytes(card) == 300
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=77))
    assert free_bytes(CPU) == 77


@pytest.mark.parametrize(
    "sentence",
    [
        "CUDA error: out of memory",
        "MPS backend out of memory (MPS allocated: 8.00 GB)",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "[enforce fail at alloc_cpu.cpp:116] . DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.",
    ],
)
def test_memory_runs_out_in_many_words(sentence: str) -> None:
    assert out_of_memory(RuntimeError(sentence))
    assert out_of_memory(torch.OutOfMemoryError())
    assert not out_of_memory(RuntimeError("shapes cannot be multiplied"))


def test_what_torch_says_here_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(caught.value)


def test_asking_loads_no_models() -> None:
    code = "import sys, trainer.sdxl.device; print([name for name in ('diffusers', 'transformers') if name in sys.modules])"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout == "[]\n"
