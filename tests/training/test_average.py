"""The running average: against its formula, and in a training that it becomes the LoRA of."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.tiny import short_run
from trainer.home import Home
from trainer.lora.adapter import Adapter
from trainer.lora.file import LoraFile
from trainer.lora.shape import Shape
from trainer.sdxl.base import load_base
from trainer.training.average import Average, holding, weighed
from trainer.training.loop import train
from trainer.training.run import Run


def adapter_on(toy_base: Path) -> Adapter:
    base = load_base(str(toy_base), torch.device("cpu"), torch.float32)
    return Adapter.inject({"te1": base.te1}, Shape(2, 1.0), seed=3)


def learn(adapter: Adapter, step: int) -> None:
    """Something that each step changes."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for matrix in adapter.state().values():
            matrix.add_(torch.randn(matrix.shape, generator=generator))


def test_it_is_the_weighted_mean_of_all_steps(toy_base: Path) -> None:
    adapter = adapter_on(toy_base)
    average, seen = Average(adapter, 0.6), [{name: m.detach().double() for name, m in adapter.state().items()}]
    for step in range(1, 12):
        learn(adapter, step)
        average.follow(adapter, step)
        seen.append({name: m.detach().double() for name, m in adapter.state().items()})
    decays = [min(0.6, (1 + step) / (10 + step)) for step in range(1, 12)]
    for name, matrix in average.matrices.items():
        wanted = seen[0][name]
        for decay, later in zip(decays, seen[1:], strict=True):
            wanted = decay * wanted + (1 - decay) * later[name]
        assert torch.allclose(matrix.double(), wanted, rtol=1e-5, atol=1e-6)


def test_what_is_held_is_given_back_bit_for_bit(toy_base: Path) -> None:
    adapter = adapter_on(toy_base)
    learn(adapter, 1)
    before = {name: matrix.detach().clone() for name, matrix in adapter.state().items()}
    change = adapter.size_of_change("te1")
    with holding(adapter, weighed(adapter, 0.3)):
        assert adapter.size_of_change("te1") < 0.31 * change
        assert all(torch.equal(matrix, before[name]) for name, matrix in adapter.state().items() if name.endswith("down"))
    assert all(torch.equal(matrix, before[name]) for name, matrix in adapter.state().items())
    assert weighed(adapter, 1) == {}


def test_the_lora_is_the_average_and_it_is_resumed_exactly(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    plain, alone, broken = (
        short_run(tmp_path / name, dataset, toy_base, steps=6, ema=ema)
        for name, ema in (("plain", 0.0), ("alone", 0.5), ("broken", 0.5))
    )
    for run in (plain, alone):
        list(run.recorded(train(run, home)))
    for event in (recording := broken.recorded(train(broken, home))):
        if event.kind == "stepped" and getattr(event, "step", 0) == 5:
            recording.close()  # type: ignore[attr-defined]
            break
    again = Run.open(broken.folder)
    list(again.recorded(train(again, home)))
    files = {run.folder.name: load_file(run.lora) for run in (plain, alone, again)}
    assert all(torch.equal(matrix, files["broken"][name]) for name, matrix in files["alone"].items())
    assert any(not torch.equal(matrix, files["plain"][name]) for name, matrix in files["alone"].items())
    kept = load_file(alone.checkpoints / "000006" / "average.safetensors")
    layers = LoraFile.read(alone.lora).factors
    assert all(torch.equal(layers[name.rpartition(".")[0]].down, m.half()) for name, m in kept.items() if name.endswith("down"))
    trained = load_file(alone.checkpoints / "000006" / "adapter.safetensors")
    base = load_file(plain.checkpoints / "000006" / "adapter.safetensors")
    assert all(torch.equal(matrix, base[name]) for name, matrix in trained.items()), "the average follows, and changes nothing"
