"""What every optimizer remembers, against the optimizers themselves after a step."""

from __future__ import annotations

import importlib
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest
import torch

from trainer.lora.adapter import Adapter
from trainer.lora.shape import Shape
from trainer.sdxl.base import load_base
from trainer.sdxl.counting import count_matrices
from trainer.sdxl.counts import Matrices, Subject
from trainer.settings import OptimizerName, Settings
from trainer.settings_text import validated
from trainer.training.moments import remembered
from trainer.training.optim import EXTRAS, make_optimizer


def settings_for(name: OptimizerName) -> Settings:
    """One rate for all, as Prodigy must have it; convolutions too, whose matrices have four axes."""
    rates = {f"{part}_lr": 1.0 if "prodigy" in name else 1e-3 for part in ("unet", "te1", "te2")}
    return validated({"optimizer": name, "rank": 8, "conv_rank": 4, "targets": "everything", **rates})


def missing(name: str) -> bool:
    """Whether its package is not installed."""
    return name in EXTRAS and find_spec(EXTRAS[name][0].split(".")[0]) is None


def kept(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of every tensor that the optimizer remembers, each once, but for single numbers."""
    found = {
        tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes()
        for state in optimizer.state.values()
        for name, tensor in state.items()
        if isinstance(tensor, torch.Tensor) and tensor.numel() > 1 and not name.startswith("qmap")
    }
    return sum(found.values())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.skipif(missing(name), reason="not installed"))
        for name in get_args(OptimizerName)
        if name != "adamw8bit"  # has no kernel for a CPU: see below
    ],
)
def test_what_is_predicted_is_there_after_a_step(toy_base: Path, name: OptimizerName) -> None:
    settings = settings_for(name)
    base = load_base(str(toy_base), torch.device("cpu"), torch.float32)
    adapter = Adapter.inject(base.parts, Shape.of(settings), seed=1)
    optimizer = make_optimizer(adapter, settings)
    for matrix in adapter.state().values():
        matrix.grad = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(1))
    optimizer.step()
    subject = Subject(toy_base, ("unet", "te1", "te2"), Shape.of(settings), 64, half=False)
    counted = [
        Matrices(tuple(shape), number, zero) for found in count_matrices(subject).values() for shape, number, zero in found
    ]
    assert Counter(tuple(matrix.shape) for matrix in adapter.state().values()) == sum(
        (Counter({each.shape: each.number}) for each in counted), Counter()
    )
    assert remembered(name, counted) == kept(optimizer)


@pytest.mark.skipif(missing("adamw8bit"), reason="not installed")
@pytest.mark.parametrize("shape", [(16, 320), (16, 200), (8, 512), (7, 1001)])
def test_adamw_in_8_bits_keeps_what_it_makes_room_for(shape: tuple[int, int]) -> None:
    matrix = torch.nn.Parameter(torch.zeros(shape))
    optimizer = importlib.import_module("bitsandbytes.optim").AdamW8bit([matrix])
    optimizer.init_state(optimizer.param_groups[0], matrix, 0, 0)
    assert remembered("adamw8bit", [Matrices(shape, 1, True)]) == kept(optimizer)


def test_by_hand_for_one_matrix() -> None:
    """1,000 x 16 numbers, of which 8 bits share a scale for every 256: 62.5 blocks."""
    down, up = Matrices((16, 1000), 3, zero=False), Matrices((1000, 16), 3, zero=True)
    numbers = 3 * 16_000
    assert remembered("adamw", [down]) == 8 * numbers
    assert remembered("adamw8bit", [down]) == 2 * numbers + 3 * 2 * 63 * 4
    assert remembered("adamw8bit", [Matrices((4, 1000), 1, zero=False)]) == 8 * 4000
    assert remembered("adafactor", [down]) == remembered("adafactor", [up]) == 3 * 4 * (16 + 1000)
    assert remembered("lion", [down]) == 4 * numbers
    assert remembered("prodigy", [down, up]) == (16 + 12) * numbers
    assert remembered("schedulefree_adamw", [down, up]) == 16 * numbers


def test_the_scale_of_optimizers_on_the_shipped_shape() -> None:
    """As people compare them: Adafactor next to nothing, Lion half, 8 bits a quarter, Prodigy most."""
    matrices = [Matrices((16, 1280), 70, zero=False), Matrices((1280, 16), 70, zero=True)]
    sizes = {name: remembered(name, matrices) for name in get_args(OptimizerName)}
    assert sizes["lion"] == sizes["adamw"] / 2
    assert sizes["adafactor"] < sizes["adamw8bit"] < 0.26 * sizes["adamw"]
    assert max(sizes, key=lambda name: sizes[name]) == "prodigy"
    assert sizes["adamw"] < sizes["schedulefree_prodigy"] < 1.1 * sizes["adamw"]
