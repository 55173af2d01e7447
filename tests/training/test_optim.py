"""The optimizer's groups, the curve of the learning rate, and the scale of the loss."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers.optimization import get_scheduler
from torch import nn

from trainer.errors import RunError
from trainer.lora.adapter import Adapter
from trainer.lora.keys import Component
from trainer.lora.shape import Shape
from trainer.sdxl.base import load_base
from trainer.settings import LrSchedule, OptimizerName, Settings
from trainer.settings_text import validated
from trainer.training.optim import (
    EXTRAS,
    Lion,
    LossScale,
    averaged,
    curve,
    make_optimizer,
    part_rates,
    rates,
    require,
    rest,
    set_rates,
)


def test_a_part_with_rate_zero_is_not_trained() -> None:
    assert rates(validated({"unet_lr": 1e-4, "te1_lr": 0, "te2_lr": 2e-5})) == {"unet": 1e-4, "te2": 2e-5}


def test_each_part_has_its_rate_and_its_matrices(toy_base: Path) -> None:
    settings = validated({"unet_lr": 1e-3, "te1_lr": 1e-4, "te2_lr": 1e-5, "weight_decay": 0.03})
    base = load_base(str(toy_base), torch.device("cpu"), torch.float32)
    adapter = Adapter.inject(base.parts, Shape(4, 2.0), 1)
    groups = make_optimizer(adapter, settings).param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1e-3, 0.03), (1e-4, 0.03), (1e-5, 0.03)]
    assert [group["part"] for group in groups] == ["unet", "te1", "te2"]
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


def grouped(settings: Settings) -> torch.optim.Optimizer:
    """An optimizer with a group for each part that is trained."""
    groups = [
        {"params": [torch.zeros(1, requires_grad=True)], "part": part, "lr": rate, "initial_lr": rate, "factor": 1.0}
        for part, rate in rates(settings).items()
    ]
    return torch.optim.SGD(groups)


def shares(settings: Settings, step: int, steps: int, factor: float = 1.0) -> list[float]:
    """What of the first rates is left at a step."""
    optimizer = grouped(settings)
    set_rates(optimizer, settings, step, steps, factor)
    return [group["lr"] / group["initial_lr"] for group in optimizer.param_groups]


def test_rates_are_set_from_the_first_ones() -> None:
    settings = validated({"unet_lr": 0.4, "te1_lr": 0, "te2_lr": 0.2, "lr_schedule": "linear", "warmup": 0})
    optimizer = grouped(settings)
    set_rates(optimizer, settings, 1, 4)
    set_rates(optimizer, settings, 2, 4, factor=0.5)
    assert part_rates(optimizer) == pytest.approx({"unet": 0.1, "te2": 0.05})


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


# Curves -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "cycles"),
    [("cosine", 1), ("constant", 1), ("linear", 1), ("cosine_restarts", 1), ("cosine_restarts", 3)],
)
def test_after_the_warm_up_the_curves_are_diffusers(schedule: LrSchedule, cycles: int) -> None:
    theirs = "cosine_with_restarts" if schedule == "cosine_restarts" else schedule
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = get_scheduler(theirs, optimizer, num_warmup_steps=0, num_training_steps=90, num_cycles=cycles)
    expected = []
    for _ in range(90):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert [curve(step, 100, 0.1, schedule, cycles) for step in range(10, 100)] == pytest.approx(expected, abs=1e-9)
    assert curve(4, 100, 0.1, schedule, cycles) == pytest.approx(0.5)


def test_each_part_stops_by_itself_after_a_share_or_a_step() -> None:
    settings = validated({"lr_schedule": "constant", "warmup": 0, "te1_stop": 0.25, "te2_stop": 7})
    assert [shares(settings, step, 20) for step in (0, 4, 5, 6, 7, 19)] == [
        [1, 1, 1], [1, 1, 1], [1, 0, 1], [1, 0, 1], [1, 0, 0], [1, 0, 0],
    ]  # fmt: skip


def test_the_stop_of_a_part_is_its_own_where_another_is_not_trained() -> None:
    settings = validated({"lr_schedule": "constant", "warmup": 0, "te1_lr": 0, "te2_stop": 0.5})
    assert shares(settings, 15, 20) == [1, 0]


@pytest.mark.parametrize("name", ["schedulefree_adamw", "schedulefree_prodigy"])
def test_a_schedule_free_rate_stays_after_its_warm_up(name: OptimizerName) -> None:
    settings = validated({"optimizer": name, "warmup": 0.5})
    assert [shares(settings, step, 4)[0] for step in range(4)] == [0.5, 1, 1, 1]


# Optimizers -------------------------------------------------------------------------------------------------------------


def matrices(seed: int = 1) -> list[torch.nn.Parameter]:
    random = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(6, 5, generator=random)) for _ in range(3)]


def test_lion_is_the_papers_in_float64() -> None:
    matrix = matrices()[0]
    weight, memory = matrix.detach().double(), torch.zeros(6, 5, dtype=torch.float64)
    optimizer = Lion([{"params": [matrix], "lr": 0.01, "weight_decay": 0.1}])
    for gradient in matrices(2):
        matrix.grad = gradient.detach().clone()
        optimizer.step()
        ahead = 0.9 * memory + 0.1 * gradient.detach().double()
        weight = weight - 0.01 * (ahead.sign() + 0.1 * weight)
        memory = 0.99 * memory + 0.01 * gradient.detach().double()
    torch.testing.assert_close(matrix.detach().double(), weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", EXTRAS)
def test_a_package_that_is_missing_is_told_of(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    module, _, package = EXTRAS[name]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RunError, match=rf"^The optimizer {name} needs the package .* python -m pip install {package}, or"):
        require(validated({"optimizer": name}))


def test_prodigy_takes_one_rate_for_all_parts() -> None:
    require(validated({"optimizer": "prodigy", "unet_lr": 1, "te1_lr": 0, "te2_lr": 1}))
    with pytest.raises(RunError, match="Prodigy finds one learning rate for all parts"):
        require(validated({"optimizer": "prodigy", "unet_lr": 1, "te1_lr": 0.5, "te2_lr": 1}))


@pytest.mark.parametrize("settings", [{"lora_plus": 4}, {"block_rates": "up_blocks=2"}])
def test_prodigy_takes_one_rate_for_all_layers(settings: dict[str, object]) -> None:
    one = {"unet_lr": 1, "te1_lr": 1, "te2_lr": 1, **settings}
    require(validated({**one, "optimizer": "schedulefree_prodigy"}))
    with pytest.raises(RunError, match="Prodigy finds one learning rate for all layers"):
        require(validated({**one, "optimizer": "prodigy"}))
    require(validated({**one, "optimizer": "prodigy", "lora_plus": 1, "block_rates": "up_blocks=0|mid_block=1.0"}))


def test_the_rate_that_prodigy_finds_is_told() -> None:
    group = {"params": matrices()[:1], "part": "te2", "lr": 0.5, "factor": 1.0}
    assert part_rates(torch.optim.SGD([{**group, "d": 1e-3}])) == pytest.approx({"te2": 5e-4})
    assert part_rates(torch.optim.SGD([group])) == {"te2": 0.5}


# Rates of blocks and of matrices ----------------------------------------------------------------------------------------


def test_blocks_and_outer_matrices_have_rates_of_their_own(toy_base: Path) -> None:
    settings = validated(
        {"block_rates": "mid_block=0.5|up_blocks.0=2|down_blocks=0", "lora_plus": 4, "unet_lr": 0.01, "te2_lr": 0}
    )
    base = load_base(str(toy_base), torch.device("cpu"), torch.float32)
    parts: dict[Component, nn.Module] = {"unet": base.unet, "te1": base.te1}
    adapter = Adapter.inject(parts, Shape.of(settings), 1)
    optimizer = make_optimizer(adapter, settings)
    found = {id(matrix): group["lr"] for group in optimizer.param_groups for matrix in group["params"]}
    assert len(found) == sum(len(adapter.parameters(part)) for part in adapter.layers)
    for path, layer in adapter.layers["unet"].items():
        assert not path.startswith("down_blocks")
        block = 0.5 if path.startswith("mid_block") else 2 if path.startswith("up_blocks.0") else 1
        assert found[id(layer.down)] == pytest.approx(0.01 * block)
        assert found[id(layer.up)] == pytest.approx(0.04 * block)
    for layer in adapter.layers["te1"].values():
        assert (found[id(layer.down)], found[id(layer.up)]) == pytest.approx((1e-5, 4e-5))
    set_rates(optimizer, settings, 0, 100, factor=0.5)
    assert part_rates(optimizer) == pytest.approx({"unet": 0.001, "te1": 1e-6})


def test_the_rate_that_is_told_is_the_parts_where_all_its_blocks_have_others(toy_base: Path) -> None:
    settings = validated({"style_blocks_only": True, "block_rates": "up_blocks.0=4", "unet_lr": 0.01})
    base = load_base(str(toy_base), torch.device("cpu"), torch.float32)
    optimizer = make_optimizer(Adapter.inject(base.parts, Shape.of(settings), 1), settings)
    assert optimizer.param_groups[0]["lr"] == 0.04
    assert list(part_rates(optimizer)) == ["unet", "te1", "te2"]
    assert part_rates(optimizer)["unet"] == pytest.approx(0.01)


def test_a_part_at_rest_has_no_gradient() -> None:
    one, other, _ = matrices()
    for matrix in (one, other):
        matrix.grad = torch.ones_like(matrix)
    rest(torch.optim.SGD([{"params": [one], "lr": 0.0}, {"params": [other], "lr": 0.1}]))
    assert [matrix.grad is None for matrix in (one, other)] == [True, False]


def test_an_optimizer_without_an_average_shows_what_it_trains() -> None:
    (matrix, *_), before = matrices(), matrices()
    with averaged(torch.optim.SGD([matrix], lr=0.1)):
        assert torch.equal(matrix, before[0])
