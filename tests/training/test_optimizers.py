"""Every optimizer: that it learns, stops where it should, and goes on from a checkpoint as if nothing had happened."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import short_run
from trainer.home import Home
from trainer.lora.adapter import Adapter
from trainer.lora.file import LoraFile
from trainer.lora.keys import COMPONENTS, Component
from trainer.lora.shape import Shape
from trainer.sdxl.base import load_base
from trainer.sdxl.sampler import sample
from trainer.settings import OptimizerName, Settings
from trainer.settings_text import validated
from trainer.training import checkpoint, optim
from trainer.training.events import Stepped
from trainer.training.loop import train
from trainer.training.metadata import OPTIMIZERS
from trainer.training.optim import EXTRAS, averaged, make_optimizer, part_rates, rest
from trainer.training.run import Run

RATES: dict[OptimizerName, float] = {
    "adamw": 1e-2, "adamw8bit": 1e-2, "adafactor": 1e-2, "lion": 2e-3, "prodigy": 1.0, "schedulefree_adamw": 1e-2,
    "schedulefree_prodigy": 1.0,
}  # fmt: skip
"""Rates with which each learns something in few steps."""


def missing(name: str) -> bool:
    """Whether its package is not installed."""
    return name in EXTRAS and find_spec(EXTRAS[name][0].split(".")[0]) is None


every = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.skipif(missing(name), reason="not installed")) for name in RATES]
)


def settings_for(name: OptimizerName, **more: Any) -> Settings:
    rate = RATES[name]
    return validated({"optimizer": name, "unet_lr": rate, "te1_lr": rate, "te2_lr": rate, "rank": 4, "alpha": 2.0, **more})


def adapter_of(toy_base: Path, settings: Settings) -> Adapter:
    base = load_base(str(toy_base), torch.device("cpu"), torch.float32)
    return Adapter.inject(base.parts, Shape.of(settings), settings.seed)


def distance(adapter: Adapter) -> torch.Tensor:
    """A loss: how far every matrix is from all tenths."""
    return torch.stack([(matrix - 0.1).square().sum() for matrix in adapter.state().values()]).sum()


def take_steps(adapter: Adapter, optimizer: torch.optim.Optimizer, factors: list[list[float]]) -> None:
    """Steps on `distance`, with the factors of each step's rates, by part."""
    for given in factors:
        of_part = dict(zip(COMPONENTS, given, strict=True))
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * of_part[group["part"]]
        optimizer.zero_grad()
        distance(adapter).backward()
        rest(optimizer)
        optimizer.step()


def copied(adapter: Adapter) -> dict[str, torch.Tensor]:
    return {name: matrix.detach().clone() for name, matrix in adapter.state().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@every
def test_every_optimizer_comes_closer(toy_base: Path, name: OptimizerName, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = adapter_of(toy_base, settings := settings_for(name))
    optimizer, before = make_optimizer(adapter, settings), distance(adapter).item()
    take_steps(adapter, optimizer, [[1.0] * 3] * 10)
    with averaged(optimizer):
        assert distance(adapter).item() < before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("parted", [False, True], ids=["plain", "parted"])
@every
def test_three_steps_and_three_after_a_checkpoint_are_six(
    toy_base: Path, tmp_path: Path, name: OptimizerName, parted: bool
) -> None:
    rated = {} if name == "prodigy" else {"lora_plus": 4, "block_rates": "mid_block=0.5"}
    settings = settings_for(name, **({"targets": "everything", "conv_rank": 2, **rated} if parted else {}))
    factors = [[0.5] * 3, [1.0] * 3, [1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.75, 0.0, 0.0], [0.5, 0.0, 0.0]]
    adapter = adapter_of(toy_base, settings)
    optimizer = make_optimizer(adapter, settings)
    take_steps(adapter, optimizer, factors[:3])
    run = Run(tmp_path, tmp_path, "", "", settings)
    checkpoint.write(run, checkpoint.Moment(step=3, smoothed=1.0, seconds=1.0), adapter, optimizer, lora=b"")
    take_steps(adapter, optimizer, factors[3:])

    again = adapter_of(toy_base, settings)
    restored = make_optimizer(again, settings)
    found = checkpoint.newest(run.checkpoints)
    assert found is not None
    checkpoint.restore(found, run, again, restored)
    take_steps(again, restored, factors[3:])
    assert same(copied(again), copied(adapter))
    assert part_rates(restored) == part_rates(optimizer)
    with averaged(restored), averaged(optimizer):
        assert same(copied(again), copied(adapter))
        assert all(matrix.isfinite().all() for matrix in copied(adapter).values())


@every
def test_a_part_that_has_stopped_does_not_move(toy_base: Path, name: OptimizerName) -> None:
    settings = settings_for(name, weight_decay=0.5)
    adapter = adapter_of(toy_base, settings)
    optimizer = make_optimizer(adapter, settings)
    take_steps(adapter, optimizer, [[1.0] * 3] * 2)
    before = copied(adapter)
    take_steps(adapter, optimizer, [[1.0, 0.0, 1.0]] * 2)
    moved = {key.split("_")[1] for key, matrix in adapter.state().items() if not torch.equal(matrix, before[key])}
    assert moved == {"unet", "te2"}


def test_adamw_is_torchs(toy_base: Path) -> None:
    settings = settings_for("adamw", te1_lr=1e-3, weight_decay=0.1)
    adapter, other = adapter_of(toy_base, settings), adapter_of(toy_base, settings)
    take_steps(adapter, make_optimizer(adapter, settings), [[1.0] * 3] * 3)
    asked: dict[Component, float] = {"unet": 1e-2, "te1": 1e-3, "te2": 1e-2}
    groups = [{"params": other.parameters(part), "lr": rate} for part, rate in asked.items()]
    plain = torch.optim.AdamW(groups, weight_decay=0.1)
    for _ in range(3):
        plain.zero_grad()
        distance(other).backward()
        plain.step()
    assert same(copied(adapter), copied(other))


@pytest.mark.skipif(missing("schedulefree_adamw"), reason="not installed")
def test_a_schedule_free_average_is_the_papers(toy_base: Path) -> None:
    """arXiv 2405.15682: x is the average of z, and what is trained on lies between them, y = 0.1 z + 0.9 x."""
    settings = settings_for("schedulefree_adamw", weight_decay=0.0)
    adapter = adapter_of(toy_base, settings)
    optimizer = make_optimizer(adapter, settings)
    averages: list[dict[str, torch.Tensor]] = []
    fast: list[torch.Tensor] = []
    for _ in range(4):
        take_steps(adapter, optimizer, [[1.0] * 3])
        trained_on = copied(adapter)
        with averaged(optimizer):
            averages.append(copied(adapter))
        assert same(copied(adapter), trained_on)
        fast.append(optimizer.state[adapter.parameters("unet")[0]]["z"].double().clone())
    first = next(iter(averages[-1]))
    x = torch.stack(fast).mean(dim=0)
    torch.testing.assert_close(averages[-1][first].double(), x, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(trained_on[first].double(), 0.1 * fast[-1] + 0.9 * x, rtol=1e-5, atol=1e-6)


# Whole trainings --------------------------------------------------------------------------------------------------------


def learnt(run: Run, home: Home) -> dict[str, torch.Tensor]:
    """What a run's LoRA holds at its end."""
    list(run.recorded(train(run, home)))
    layers = LoraFile.read(run.lora).layers
    return {f"{name}.{which}": getattr(layer, which) for name, layer in layers.items() for which in ("down", "up")}


@every
def test_a_training_with_every_optimizer_goes_on_exactly(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, name: OptimizerName
) -> None:
    asked = {key: getattr(settings_for(name), key) for key in ("optimizer", "unet_lr", "te1_lr", "te2_lr")}
    alone = short_run(tmp_path / "alone", dataset, toy_base, **asked)
    whole = learnt(alone, home)
    assert LoraFile.read(alone.lora).metadata["ss_optimizer"] == OPTIMIZERS[name]
    run = short_run(tmp_path / "run", dataset, toy_base, **asked, sample_every=1)
    for event in (recording := run.recorded(train(run, home))):
        if isinstance(event, Stepped) and event.step == 3:
            recording.close()  # type: ignore[attr-defined]
            break
    assert same(learnt(Run.open(run.folder), home), whole)
    assert any(matrix.any() for key, matrix in whole.items() if key.endswith("up"))


@pytest.mark.skipif(missing("schedulefree_adamw"), reason="not installed")
def test_the_lora_and_the_samples_are_of_the_average(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn_with: list[bool] = []
    made: list[tuple[Adapter, torch.optim.Optimizer]] = []

    def make(adapter: Adapter, settings: Settings) -> torch.optim.Optimizer:
        made.append((adapter, make_optimizer(adapter, settings)))
        return made[-1][1]

    def draw(*asked: Any) -> Any:
        drawn_with.append(made[-1][1].param_groups[0]["train_mode"])
        yield from sample(*asked)

    monkeypatch.setattr(optim, "make_optimizer", make)
    monkeypatch.setattr("trainer.training.samples.sample", draw)
    run = short_run(tmp_path / "run", dataset, toy_base, optimizer="schedulefree_adamw", sample_every=2)
    learnt(run, home)
    assert drawn_with == [False] * 6, "two prompts at three moments"
    ((adapter, optimizer),) = made
    trained_on = copied(adapter)
    layers = LoraFile.read(run.lora).factors
    with averaged(optimizer):
        assert all(torch.equal(layers[name].down, layer.down.half()) for name, layer in adapter.factors().items())
        assert all(torch.equal(layers[name].up, layer.up.half()) for name, layer in adapter.factors().items())
        assert not same(copied(adapter), trained_on)


def test_a_text_encoder_that_stops_stays_as_it_is(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, te1_stop=0.5, te2_stop=3)
    learnt(run, home)
    steps = [event for event in run.events() if isinstance(event, Stepped)]
    for part, last in (("te1", 2), ("te2", 3), ("unet", 4)):
        changes = [step.change[part] for step in steps]
        assert [step.rates[part] > 0 for step in steps] == [number < last for number in range(4)]
        assert len(set(changes[:last])) == last
        assert len(set(changes[last - 1 :])) == 1
