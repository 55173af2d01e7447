"""The optimizer's groups, the curve of the learning rate, and the scale of the loss."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from trainer.lora.adapter import Adapter
from trainer.sdxl.base import load_base
from trainer.settings import validated
from trainer.training.optim import LossScale, curve, make_optimizer, rates, set_rates


def test_a_part_with_rate_zero_is_not_trained() -> None:
    assert rates(validated({"unet_lr": 1e-4, "te1_lr": 0, "te2_lr": 2e-5})) == {"unet": 1e-4, "te2": 2e-5}


def test_each_part_has_its_rate_and_its_matrices(toy_base: Path) -> None:
    settings = validated({"unet_lr": 1e-3, "te1_lr": 1e-4, "te2_lr": 1e-5, "weight_decay": 0.03})
    base = load_base(str(toy_base), torch.device("cpu"), torch.float32)
    adapter = Adapter.inject(base.parts, 4, 2.0, 1)
    groups = make_optimizer(adapter, settings).param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1e-3, 0.03), (1e-4, 0.03), (1e-5, 0.03)]
    for group, part in zip(groups, adapter.layers, strict=True):
        assert [id(matrix) for matrix in group["params"]] == [id(matrix) for matrix in adapter.parameters(part)]


def test_the_rate_rises_evenly_and_then_falls_as_a_cosine() -> None:
    factors = [curve(step, 100, 0.1) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert all(later < earlier for earlier, later in pairwise(factors[10:]))
    assert 0 < factors[-1] < 0.001


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (1, 1.0), (3, 0.05), (10, 1.0)])
def test_short_trainings_have_a_rate_above_zero(steps: int, warmup: float) -> None:
    assert all(0 < curve(step, steps, warmup) <= 1 for step in range(steps))


def test_rates_are_set_from_the_first_ones() -> None:
    optimizer = torch.optim.AdamW([{"params": [torch.zeros(1, requires_grad=True)], "lr": 0.4, "initial_lr": 0.4}])
    set_rates(optimizer, 0.5)
    set_rates(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_the_scale_of_the_loss_is_undone_exactly() -> None:
    matrix, alone = torch.nn.Parameter(torch.randn(5, 3)), torch.nn.Parameter(torch.ones(2))
    gradient = torch.randn(5, 3)
    matrix.grad = gradient * 2.0**16
    LossScale().undo([matrix, alone])
    assert torch.equal(matrix.grad, gradient)
    assert alone.grad is None


def test_the_scale_of_the_loss_falls_to_one_and_no_lower() -> None:
    scale = LossScale(4.0, steps=7)
    assert [scale.lower() for _ in range(3)] == [True, True, False]
    assert scale == LossScale(1.0, steps=0)


def test_the_scale_of_the_loss_rises_after_many_steps() -> None:
    scale = LossScale(4.0)
    for _ in range(LossScale.PATIENCE - 1):
        scale.took_step()
    assert scale == LossScale(4.0, LossScale.PATIENCE - 1)
    scale.took_step()
    assert scale == LossScale(8.0, 0)
