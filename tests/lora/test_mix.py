"""A mix on live weights: exactly the formula, no trace of what was there before, nothing changed when refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.lora.test_layer import answer, apart
from trainer.errors import LoraFileError
from trainer.lora.adapter import Adapter
from trainer.lora.file import Factors, LoraFile
from trainer.lora.keys import COMPONENTS, component_of, table
from trainer.lora.mix import Canvas, Weighted
from trainer.lora.shape import Shape
from trainer.sdxl.base import Base, load_base
from trainer.settings import Targets


@pytest.fixture
def base(toy_base: Path) -> Base:
    return load_base(str(toy_base), torch.device("cpu"), torch.float32)


@pytest.fixture
def canvas(base: Base) -> Canvas:
    return Canvas(base.parts, base.version)


def weights(base: Base) -> dict[str, torch.Tensor]:
    """Every parameter of the models, copied."""
    return {f"{part}.{name}": value.clone() for part in COMPONENTS for name, value in base.parts[part].state_dict().items()}


def adapted(base: Base) -> dict[str, str]:
    """Name in a LoRA file -> name in `weights`."""
    found: dict[str, str] = {}
    for part, model in base.parts.items():
        layers = [path for path, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        found |= {name: f"{part}.{path}.weight" for name, path in table(part, layers).items()}
    return found


def a_lora(base: Base, seed: int, rank: int = 3, alpha: float = 2.0, every: int = 1, version: str = "") -> LoraFile:
    """Random layers for every `every`-th module of the base."""
    random, live, layers = torch.Generator().manual_seed(seed), weights(base), {}
    for name, path in list(adapted(base).items())[::every]:
        out, inward, *window = live[path].shape
        down = torch.randn(rank, inward, *window, generator=random)
        up = torch.randn(out, rank, *(1 for _ in window), generator=random)
        layers[name] = Factors(down.half(), up.half(), alpha)
    return LoraFile(f"lora{seed}", layers, {"ss_base_model_version": version} if version else {})


def expected(base: Base, before: dict[str, torch.Tensor], mix: list[Weighted]) -> dict[str, torch.Tensor]:
    """The formula, in float64."""
    after = {name: value.double() if value.is_floating_point() else value for name, value in before.items()}
    names = adapted(base)
    for part in mix:
        for name, layer in part.lora.layers.items():
            weight = part.unet if component_of(name) == "unet" else part.text
            change = layer.up.double().flatten(1) @ layer.down.double().flatten(1) * (layer.alpha / layer.down.shape[0])
            live = after[names[name]]
            after[names[name]] = live + weight * change.view(live.shape)
    return after


def assert_is(base: Base, wanted: dict[str, torch.Tensor]) -> None:
    """Every weight is the wanted one to float32's precision."""
    for name, value in weights(base).items():
        assert torch.allclose(value.double(), wanted[name].double(), rtol=1e-6, atol=2e-6), name


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_one_lora_is_the_formula(base: Base, canvas: Canvas) -> None:
    before, mix = weights(base), [Weighted(a_lora(base, 1), 0.7, 0.7)]
    canvas.lay(mix)
    assert_is(base, expected(base, before, mix))


def test_the_canvas_has_every_layer_that_loras_adapt(base: Base, canvas: Canvas) -> None:
    lora = a_lora(base, 1)
    assert {layer.down.dim() for layer in lora.layers.values()} == {2, 4}
    assert {tuple(layer.down.shape[2:]) for layer in lora.layers.values()} == {(), (1, 1), (3, 3)}
    canvas.check(lora)


@pytest.mark.parametrize("targets", ["attention", "transformer", "everything"])
def test_the_mix_draws_what_the_trained_layers_drew(base: Base, toy_base: Path, targets: Targets) -> None:
    shape = Shape(4, 3.0, rslora=True, targets=targets, conv_rank=2, block_ranks={"up_blocks": 8})
    adapter = Adapter.inject(base.parts, shape, seed=1)
    random = torch.Generator().manual_seed(1)
    for _, layer in adapter.named():
        nn.init.normal_(layer.up, std=0.1, generator=random)
    other = load_base(str(toy_base), torch.device("cpu"), torch.float32)
    Canvas(other.parts, other.version).lay([Weighted(LoraFile("trained", adapter.factors(), {}), 1.0, 1.0)])
    for component in COMPONENTS:
        drawn = answer(component, other.parts[component])
        assert apart(drawn, answer(component, base.parts[component])) <= 1e-5
    adapter.eject()
    assert apart(answer("unet", other.unet), answer("unet", base.unet)) > 1e-2


def test_a_convolution_with_another_window_does_not_fit(base: Base, canvas: Canvas) -> None:
    name = "lora_unet_input_blocks_1_0_in_layers_2"
    good = a_lora(base, 1).layers[name]
    wrong = LoraFile("odd", {name: Factors(good.down[..., :1, :1], good.up, 2.0)}, {})
    with pytest.raises(LoraFileError, match=r"1 of its 1 layers have no counterpart here, such as lora_unet_input_blocks_1_0"):
        canvas.lay([Weighted(wrong, 1.0, 1.0)])


def test_two_loras_add(base: Base, canvas: Canvas) -> None:
    before = weights(base)
    mix = [Weighted(a_lora(base, 1), 0.7, 0.7), Weighted(a_lora(base, 2, rank=5, alpha=7.0, every=2), -1.3, -1.3)]
    canvas.lay(mix)
    assert_is(base, expected(base, before, mix))


def test_the_text_encoders_have_a_weight_of_their_own(base: Base, canvas: Canvas) -> None:
    before, mix = weights(base), [Weighted(a_lora(base, 1), 1.0, 0.25)]
    canvas.lay(mix)
    assert_is(base, expected(base, before, mix))


def test_text_weight_zero_leaves_the_text_encoders_untouched(base: Base, canvas: Canvas) -> None:
    before = weights(base)
    canvas.lay([Weighted(a_lora(base, 1), 1.0, 0.0)])
    after = weights(base)
    assert same({n: v for n, v in before.items() if n.startswith("te")}, after)
    assert not same({n: v for n, v in before.items() if n.startswith("unet")}, after)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
def test_after_any_history_weight_zero_restores_every_bit(toy_base: Path, dtype: torch.dtype) -> None:
    base = load_base(str(toy_base), torch.device("cpu"), dtype)
    canvas, before = Canvas(base.parts, base.version), weights(base)
    one, two = a_lora(base, 1), a_lora(base, 2, every=3)
    for step in range(6):
        canvas.lay([Weighted(one, 0.3 * step, -0.1 * step), Weighted(two, 1.0 - step, 0.5)][step % 2 :])
        assert not same(before, weights(base))
    canvas.lay([Weighted(one, 0.0, 0.0), Weighted(two, 0.0, 0.0)])
    assert same(before, weights(base))


def test_the_same_mix_is_the_same_after_any_history(base: Base, canvas: Canvas) -> None:
    one, two = a_lora(base, 1), a_lora(base, 2)
    canvas.lay([Weighted(one, 0.8, 0.8)])
    alone = weights(base)
    canvas.lay([Weighted(two, 1.7, 1.7), Weighted(one, -1.0, 1.0)])
    canvas.lay([Weighted(one, 0.8, 0.8)])
    assert same(alone, weights(base))


def test_a_change_is_made_where_the_weights_are(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's factors come to the card, not their product, which is many times as large."""
    lora, made = a_lora(base, seed=1), []
    parts = {part: model.to("meta") for part, model in base.parts.items()}
    change = Factors.change

    def seen(factors: Factors) -> torch.Tensor:
        made.append(factors.down.device.type)
        return change(factors)

    monkeypatch.setattr(Factors, "change", seen)
    Canvas(parts, base.version).lay([Weighted(lora, 1.0, 1.0)])
    assert made == ["meta"] * len(lora.layers)


def test_a_mix_of_nothing_is_the_base(base: Base, canvas: Canvas) -> None:
    before = weights(base)
    canvas.lay([Weighted(a_lora(base, 1), 1.0, 1.0)])
    canvas.lay([])
    assert same(before, weights(base))


def foreign(base: Base, version: str) -> LoraFile:
    """A LoRA whose layers have this base's names, but a wider base's shapes."""
    layers = {name: Factors(torch.ones(2, 640), torch.ones(640, 2), 2.0) for name in a_lora(base, 1).layers}
    return LoraFile("wide", layers, {"ss_base_model_version": version})


def test_a_lora_for_another_base_is_refused_in_a_sentence_that_names_both(base: Base, canvas: Canvas) -> None:
    with pytest.raises(LoraFileError, match=r"wide does not fit this base \(sdxl_base_v1-0\).*made for the starter base only"):
        canvas.lay([Weighted(foreign(base, "impasto_starter"), 1.0, 1.0)])


def test_a_layer_that_the_base_has_not_is_named(base: Base, canvas: Canvas) -> None:
    strange = LoraFile("odd", {"lora_unet_input_blocks_4_1_odd": Factors(torch.ones(2, 4), torch.ones(4, 2), 2.0)}, {})
    with pytest.raises(LoraFileError, match=r"another base, and 1 of its 1 layers.*lora_unet_input_blocks_4_1_odd"):
        canvas.lay([Weighted(strange, 1.0, 1.0)])


def test_a_refused_mix_changes_nothing(base: Base, canvas: Canvas) -> None:
    good = a_lora(base, 1)
    canvas.lay([Weighted(good, 0.5, 0.5)])
    before = weights(base)
    with pytest.raises(LoraFileError):
        canvas.lay([Weighted(good, 1.0, 1.0), Weighted(foreign(base, "sdxl_base_v1-0"), 1.0, 1.0)])
    assert same(before, weights(base))
