"""Sizes as people write them, and what is known of machines."""

from __future__ import annotations

import psutil
import pytest
import torch

from trainer.errors import RunError, UsageError
from trainer.sdxl import device
from trainer.sdxl.counts import Count
from trainer.training.machine import CARDS, Machine, example, machine_of, parse_memory

SIZES = {
    "12GiB": 12 * 2**30,
    "12 GB": 12 * 10**9,
    "8192MiB": 2**33,
    "7.5gib": 15 * 2**29,
    "7,5 GiB": 15 * 2**29,
    "500mb": 5 * 10**8,
    "123456": 123456,
}


@pytest.mark.parametrize(("text", "size"), SIZES.items())
def test_sizes(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "lots", "GiB", "12 gigs", "-3GiB", "0GiB", "12GiB GiB", "1e3GiB", "nan GiB"])
def test_what_is_no_size_is_a_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="takes a size such as 12GiB"):
        parse_memory(text)


def test_the_example_is_the_smallest_card_that_has_so_much() -> None:
    assert (example(11 * 2**30).name, example(11 * 2**30).free) == ("GeForce RTX 3060", 11 * 2**30)
    assert example(6 * 2**30).native == "fp16"
    assert example(2**40).name == CARDS[-1].name
    assert [card.free for card in CARDS] == sorted(card.free for card in CARDS)


def test_a_computation_waits_for_what_is_slowest() -> None:
    machine = Machine("", 0, "bf16", rate=100.0, bandwidth=10.0, launch=1.0)
    assert machine.seconds(Count(0, 0, flops=1000, traffic=50, launches=3)) == 15
    assert machine.seconds(Count(0, 0, flops=1000, traffic=50, launches=30)) == 30
    assert machine.seconds(Count(0, 0, flops=1000, traffic=50, launches=3), single=True) == 25


def test_published_times_are_met_within_a_factor_of_two() -> None:
    """SDXL at 1024 px with guidance: 2.99 it/s on an RTX 3090, 4.6 on an RTX 4080, 30 steps in 3.31 s on an A100."""
    guided = Count(0, 0, flops=int(13.52e12), traffic=int(42.1 * 2**30), launches=2287)
    for name, published in (("GeForce RTX 4080", 1 / 4.6), ("A100", 3.31 / 30), ("H200", 1 / 14.9)):
        (card,) = (card for card in CARDS if card.name == name)
        assert published / 2 < card.seconds(guided) < published * 2


def test_a_card_that_others_have_filled_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: torch.device) -> int:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(device, "free_bytes", full)
    with pytest.raises(RunError, match="No memory is free on cuda: close other programs"):
        machine_of(torch.device("cuda"))


def test_this_computers_cpu() -> None:
    machine = machine_of(torch.device("cpu"))
    assert (machine.name, machine.native, machine.there) == ("CPU", "fp32", True)
    assert 0 < machine.free <= psutil.virtual_memory().total
    assert 1e8 < machine.rate < 1e14
