"""Whole trainings on bases kept in fewer bits: what is learnt, the same form of file, float16's scale, exact resumption."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import save_dataset, short_run
from tests.training.test_loop import same, tensors, trained, until
from trainer.errors import RunError
from trainer.home import Home
from trainer.lora.file import LoraFile
from trainer.sdxl.base import load_base
from trainer.settings import Recompute
from trainer.training import batch, checkpoint, diffusion, optim
from trainer.training.events import Finished, Sampled, Started, Stepped, Stopped
from trainer.training.optim import LossScale
from trainer.training.run import Run

COMPUTED_IN = {"fp32": "no", "bf16": "bf16", "fp16": "fp16", "int8": "no", "nf4": "no"}
"""`ss_mixed_precision` of each precision on a processor, where packed weights are computed with in float32."""


def scale_of(run: Run) -> LossScale | None:
    """The scale in the run's newest checkpoint."""
    found = checkpoint.newest(run.checkpoints)
    assert found is not None
    return found.scale


@pytest.mark.parametrize("precision", ["bf16", "fp16", "int8", "nf4"])
def test_steps_on_one_and_the_same_draw_lower_its_loss(
    precision: str, toy_base: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "seed_of", lambda *_: 7)
    dataset = save_dataset(tmp_path / "one", ((64, 64),))
    run = short_run(tmp_path / "run", dataset, toy_base, steps=8, warmup=0, checkpoint_every=8, precision=precision)
    losses = [event.loss for event in trained(run, home) if isinstance(event, Stepped)]
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("precision", ["bf16", "fp16", "int8", "nf4"])
def test_the_file_has_the_same_form_and_tells_how_the_base_was_kept(
    precision: str, toy_base: Path, dataset: Path, home: Home, tmp_path: Path
) -> None:
    runs = {each: short_run(tmp_path / each, dataset, toy_base, precision=each) for each in ("fp32", precision)}
    for each, run in runs.items():
        started = [event.precision for event in trained(run, home) if isinstance(event, Started)]
        texts = LoraFile.read(run.lora).metadata
        assert started == [texts["impasto.precision"]] == [each]
        assert texts["ss_mixed_precision"] == COMPUTED_IN[each]
    full, fewer = (tensors(run) for run in runs.values())
    assert {name: (value.shape, value.dtype) for name, value in fewer.items()} == {
        name: (value.shape, value.dtype) for name, value in full.items()
    }
    assert all(value.isfinite().all() for value in fewer.values())
    assert not same(full, fewer)


def test_auto_is_float32_on_a_processor(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    runs = [short_run(tmp_path / each, dataset, toy_base, precision=each) for each in ("auto", "fp32")]
    assert [[event.precision for event in trained(run, home) if isinstance(event, Started)] for run in runs] == [["fp32"]] * 2
    assert same(*(tensors(run) for run in runs))
    assert [scale_of(run) for run in runs] == [None, None]


def test_samples_on_a_packed_base_show_what_is_learnt(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, precision="nf4", sample_every=4, unet_lr=0.1)
    first, last = (
        (run.folder / event.path).read_bytes()
        for event in trained(run, home)
        if isinstance(event, Sampled) and event.path.endswith("-0.png")
    )
    assert first != last


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_recomputing_learns_the_same_on_a_packed_base(
    precision: str, toy_base: Path, dataset: Path, home: Home, tmp_path: Path
) -> None:
    runs = [short_run(tmp_path / how, dataset, toy_base, recompute=how, precision=precision) for how in get_args(Recompute)]
    for run in runs:
        trained(run, home)
    one, *others = (tensors(run) for run in runs)
    for other in others:
        for name, value in one.items():
            torch.testing.assert_close(value.float(), other[name].float(), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp16", "nf4"])
def test_a_run_that_broke_off_ends_as_if_nothing_had_happened(
    precision: str, toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LossScale, "PATIENCE", 3)  # so that the scale changes on the way
    runs = [short_run(tmp_path / name, dataset, toy_base, steps=6, precision=precision) for name in ("alone", "broken")]
    trained(runs[0], home)
    list(until(runs[1], home, 5))
    assert isinstance(trained(Run.open(runs[1].folder), home)[-1], Finished)
    assert same(*(tensors(run) for run in runs))
    assert scale_of(runs[0]) == scale_of(runs[1])
    assert (scale_of(runs[0]) is None) == (precision != "fp16")


# The scale of the loss ----------------------------------------------------------------------------------------------------


def begin_at(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """Trainings in float16 begin with this scale."""
    monkeypatch.setattr(optim, "LossScale", lambda: LossScale(value))


def test_an_overflow_lowers_the_scale_and_costs_no_step(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_at(monkeypatch, 2.0**40)
    run = short_run(tmp_path / "run", dataset, toy_base, precision="fp16")
    steps = [event for event in trained(run, home) if isinstance(event, Stepped)]
    settled = scale_of(run)
    assert settled is not None
    assert settled.value < 2.0**40
    assert [step.step for step in steps] == [1, 2, 3, 4]
    begin_at(monkeypatch, settled.value)
    other = short_run(tmp_path / "other", dataset, toy_base, precision="fp16")
    lower = [event for event in trained(other, home) if isinstance(event, Stepped)]
    assert scale_of(other) == LossScale(settled.value, steps=4)
    assert [step.loss for step in steps] == pytest.approx([step.loss for step in lower], rel=0.01)
    assert [step.gradient for step in steps] == pytest.approx([step.gradient for step in lower], rel=0.05)


def test_small_gradients_are_kept_by_the_scale(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = diffusion.loss
    monkeypatch.setattr(diffusion, "loss", lambda *asked: original(*asked) * 1e-6)
    lengths = {}
    for value in (1.0, 2.0**16):
        begin_at(monkeypatch, value)
        run = short_run(tmp_path / str(value), dataset, toy_base, precision="fp16", steps=1)
        (lengths[value],) = (event.gradient for event in trained(run, home) if isinstance(event, Stepped))
    run = short_run(tmp_path / "full", dataset, toy_base, precision="fp32", steps=1)
    (expected,) = (event.gradient for event in trained(run, home) if isinstance(event, Stepped))
    assert lengths[2.0**16] == pytest.approx(expected, rel=0.02)
    assert lengths[1.0] < 0.5 * expected


@pytest.mark.parametrize("broken", [math.inf, math.nan])
def test_a_gradient_that_overflows_at_every_scale_is_unstable(
    broken: float, toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = diffusion.loss, []

    def spoilt(answer: torch.Tensor, *others: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) >= 3:
            answer.register_hook(lambda gradient: torch.full_like(gradient, broken))
        return original(answer, *others)

    monkeypatch.setattr(diffusion, "loss", spoilt)
    run = short_run(tmp_path / "run", dataset, toy_base, precision="fp16")
    last = trained(run, home)[-1]
    assert isinstance(last, Stopped)
    assert last.step == 2
    assert len(calls) == 2 + 4 * 17  # at 2^16, and each half of it down to 1; and so with half the rates, three times
    assert [path.name for path in run.checkpoints.iterdir()] == ["000002"]


def test_a_loss_that_is_no_number_is_not_tried_at_lower_scales(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = diffusion.loss, []

    def spoilt(answer: torch.Tensor, *others: Any) -> torch.Tensor:
        calls.append(1)
        return original(answer, *others) * math.nan

    monkeypatch.setattr(diffusion, "loss", spoilt)
    with pytest.raises(RunError, match="at step 1 its loss is not a number"):
        trained(short_run(tmp_path / "run", dataset, toy_base, precision="fp16"), home)
    assert len(calls) == 1 + 3  # not at lower scales, but with half the rates


def test_masters_stay_float32(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, precision="fp16")
    trained(run, home)
    base = load_base(str(toy_base), torch.device("cpu"), torch.float16)
    assert {parameter.dtype for parameter in base.unet.parameters()} == {torch.float16}
    found = checkpoint.newest(run.checkpoints)
    assert found is not None
    kept = [load_file(found.folder / f"{name}.safetensors") for name in ("adapter", "optimizer")]
    assert {tensor.dtype for tensors in kept for tensor in tensors.values()} == {torch.float32}
