"""The proof: what a whole file tells, what is wrong with others, and what a training makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.lora.test_layer import answer
from tests.tiny import short_run, starter_like
from trainer.errors import ImpastoError, LoraFileError, StorageError
from trainer.home import Home
from trainer.lora import file, sidecar
from trainer.lora.adapter import Adapter, ranks
from trainer.lora.file import Factors, LoraFile
from trainer.lora.keys import component_of, file_name
from trainer.lora.mix import Canvas
from trainer.lora.shape import Shape
from trainer.lora.weights import Weighted
from trainer.sdxl.base import Base, load_base
from trainer.sdxl.quantise import quantise
from trainer.settings import Packing
from trainer.settings_text import validated
from trainer.training.events import Finished, Sampled, Stepped, Warned
from trainer.training.loop import train
from trainer.training.optim import rates
from trainer.training.proof import prove

PLAIN = Shape(3, 1.5)
FOLDED = Shape(3, 0.1, rslora=True, targets="everything", conv_rank=2, block_ranks={"up_blocks": 7})


@pytest.fixture
def base(toy_base: Path) -> Base:
    return load_base(str(toy_base), torch.device("cpu"), torch.float32)


def taught(base: Base, shape: Shape = PLAIN) -> Adapter:
    """An adapter of all parts that has learnt something."""
    adapter = Adapter.inject(base.parts, shape, 1)
    generator = torch.Generator().manual_seed(1)
    for _, layer in adapter.named():
        layer.up.data = torch.randn(layer.up.shape, generator=generator) * 0.01
    return adapter


@pytest.mark.parametrize("packing", [None, "int8"])
@pytest.mark.parametrize("shape", [PLAIN, FOLDED], ids=["plain", "folded"])
def test_a_whole_file_is_told_of(base: Base, tmp_path: Path, packing: Packing | None, shape: Shape) -> None:
    weights = sum(matrix.numel() for model in base.parts.values() for matrix in model.parameters())
    if packing:
        for model in base.parts.values():
            quantise(model, packing, torch.device("cpu"))
    adapter, path = taught(base, shape), tmp_path / "style.safetensors"
    file.write(path, adapter.factors(), {})
    proof = prove(path, adapter.factors(), base.parts)
    assert proof.layers == len(list(adapter.named()))
    assert proof.size == path.stat().st_size
    assert proof.share == sum(matrix.numel() for matrix in adapter.state().values()) / weights
    assert proof.doubts == []
    layers = LoraFile.read(path).layers
    for part, norm in proof.change.items():
        changes = [layer.change().double().flatten() for name, layer in layers.items() if component_of(name) == part]
        assert norm == pytest.approx(float(torch.cat(changes).norm()), rel=1e-6)
        assert norm == pytest.approx(adapter.size_of_change(part), rel=1e-3)


def other_content(name: str, factors: dict[str, Factors]) -> dict[str, Factors]:
    """The layers of a file that something is wrong with."""
    key = next(iter(factors))
    layer = factors[key]
    match name:
        case "one number":
            up = layer.up.clone()
            up[0, 0] += 0.001
            return {**factors, key: Factors(layer.down, up, layer.alpha)}
        case "another alpha":
            return {**factors, key: Factors(layer.down, layer.up, 2.0)}
        case "a layer less":
            return {each: factors[each] for each in factors if each != key}
        case "a layer more":
            return {**factors, "lora_unet_extra_to_q": layer}
        case "no number":
            return {**factors, key: Factors(layer.down, torch.full_like(layer.up, 1e6), layer.alpha)}
    raise AssertionError(name)


@pytest.mark.parametrize("wrong", ["one number", "another alpha", "a layer less", "a layer more", "no number"])
def test_a_file_that_is_not_what_was_trained_is_refused(base: Base, tmp_path: Path, wrong: str) -> None:
    adapter, path = taught(base), tmp_path / "style.safetensors"
    file.write(path, other_content(wrong, adapter.factors()), {})
    sentence = "values that are not numbers" if wrong == "no number" else "does not hold what was trained"
    with pytest.raises(LoraFileError, match=sentence):
        prove(path, adapter.factors(), base.parts)


# In a training ------------------------------------------------------------------------------------------------------------


def test_a_finished_training_tells_its_proof(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, te2_lr=0)
    events = list(run.recorded(train(run, home)))
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.layers, last.size) == (len(LoraFile.read(run.lora).layers), run.lora.stat().st_size)
    assert last.change.keys() == {"unet", "te1"}
    assert min(last.change.values()) > 0
    assert 0 < last.share < 1
    assert not any(isinstance(event, Warned) for event in events)


KINDS: dict[str, dict[str, Any]] = {
    "rslora": {"rslora": True, "targets": "transformer"},
    "blocks": {"block_ranks": "down_blocks=0|mid_block=2|up_blocks.0.attentions.1=8", "block_rates": "mid_block=0.5"},
    "convolutions": {"targets": "everything", "conv_rank": 2, "lora_plus": 4},
    "convolutions, rounded": {"targets": "everything", "rslora": True, "precision": "int8", "recompute": "selective"},
    "style": {"style_blocks_only": True, "targets": "everything", "te1_lr": 0, "te2_lr": 0},
    "text alone": {"unet_lr": 0, "te1_lr": 0, "targets": "transformer"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_lora_is_trained_proved_and_mixed(
    base: Base, toy_base: Path, dataset: Path, home: Home, tmp_path: Path, kind: str
) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, **validated(KINDS[kind]).model_dump(include=set(KINDS[kind])))
    last = list(run.recorded(train(run, home)))[-1]
    assert isinstance(last, Finished)
    lora, shape = LoraFile.read(run.lora), Shape.of(run.settings)
    trained = {component: base.parts[component] for component in rates(run.settings)}
    wanted = {
        file_name(part, path): rank for part, model in trained.items() for path, rank in ranks(part, model, shape).items()
    }
    assert {name: factors.rank for name, factors in lora.layers.items()} == wanted
    assert {round(factors.alpha, 5) for factors in lora.factors.values()} == {round(shape.file_alpha, 5)}
    assert min(factors.size() for factors in lora.layers.values()) > 0
    before = {component: answer(component, model) for component, model in base.parts.items()}
    Canvas(base.parts, base.version).lay([Weighted(lora, 1.0, 1.0)])
    for component, model in base.parts.items():
        assert torch.equal(answer(component, model), before[component]) == (component not in trained)


def test_a_part_that_did_not_change_is_told_of(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, te1_lr=1e-12)
    events = list(run.recorded(train(run, home)))
    assert [event.message for event in events if isinstance(event, Warned)] == [
        "Text encoder 1 was to be trained, but the LoRA does not change it: train longer, or raise te1_lr."
    ]
    assert isinstance(events[-1], Finished)
    assert events[-1].change["te1"] == 0


def test_a_lora_that_was_written_wrong_does_not_finish_and_is_written_again(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path
) -> None:
    run, write = short_run(tmp_path / "run", dataset, toy_base), file.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file, "write", lambda path, layers, texts: write(path, other_content("a layer less", layers), texts))
        with pytest.raises(ImpastoError, match="does not hold what was trained"):
            list(run.recorded(train(run, home)))
    assert isinstance(list(run.recorded(train(run, home)))[-1], Finished)


def test_a_finished_training_leaves_what_other_programs_show_it_by(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path
) -> None:
    run = short_run(tmp_path / "ink", dataset, toy_base, trigger="glassy", sample_every=4)
    drawn = [event for event in run.recorded(train(run, home)) if isinstance(event, Sampled)]
    fields = json.loads(run.lora.with_suffix(".json").read_text(encoding="utf-8"))
    assert fields["activation text"] == "glassy"
    assert fields["description"] == "ink: a style learnt from 4 pictures in 4 steps."
    assert fields["sd version"] == "SDXL"
    with Image.open(run.lora.with_suffix(".png")) as small, Image.open(run.folder / drawn[-1].path) as large:
        assert small.tobytes() == large.tobytes()
        assert small.info["parameters"] == large.info["parameters"]


def test_a_lora_for_the_starter_says_so(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    run = short_run(tmp_path / "run", dataset, starter_like(toy_base, tmp_path / "starter"), steps=1)
    list(run.recorded(train(run, home)))
    fields = json.loads(run.lora.with_suffix(".json").read_text(encoding="utf-8"))
    assert fields["sd version"] == "Unknown"
    assert fields["notes"].startswith("Only for Impasto's starter base")
    assert not run.lora.with_suffix(".png").exists()


def test_a_card_that_cannot_be_written_does_not_take_the_lora_away(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("The disk is full.")

    monkeypatch.setattr(sidecar, "write", full)
    run = short_run(tmp_path / "run", dataset, toy_base)
    *_, warned, last = run.recorded(train(run, home))
    assert isinstance(warned, Warned)
    assert warned.message == "The disk is full."
    assert isinstance(last, Finished)


@pytest.mark.parametrize("part", ["unet", "te1", "te2"])
def test_one_part_can_be_trained_alone(part: str, toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    """And its own rate and stop count: it is still from the step on at which it stops."""
    others = {f"{other}_lr": 0.0 for other in ("unet", "te1", "te2") if other != part}
    run = short_run(tmp_path / "run", dataset, toy_base, **others, **{f"{part}_stop": 3, f"{part}_lr": 2e-3}, warmup=0)
    events = list(run.recorded(train(run, home)))
    steps = [event for event in events if isinstance(event, Stepped)]
    assert all(event.rates.keys() == event.change.keys() == {part} for event in steps)
    assert steps[0].rates[part] == pytest.approx(2e-3)
    assert [event.rates[part] > 0 for event in steps] == [True, True, True, False]
    assert 0 < steps[1].change[part] != steps[2].change[part] == steps[3].change[part]
    layers = LoraFile.read(run.lora).factors
    assert {component_of(name) for name in layers} == {part}
    assert all(layer.up.any() for layer in layers.values())
