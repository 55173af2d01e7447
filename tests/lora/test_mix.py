"""A mix on live weights: exactly the formula, no trace of what was there before, nothing changed when refused."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import Linear as LoraLinear
from torch import nn

from tests.lora.test_layer import answer, apart
from trainer.errors import LoraFileError, UsageError
from trainer.lora.adapter import Adapter
from trainer.lora.delta import Factors, Layer
from trainer.lora.file import LoraFile
from trainer.lora.keys import COMPONENTS, component_of, file_name, table
from trainer.lora.mix import Canvas
from trainer.lora.shape import Shape
from trainer.lora.weights import Weighted
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


def factors_of(lora: LoraFile) -> dict[str, Factors]:
    """The layers of a LoRA that has no other kinds."""
    return {name: layer for name, layer in lora.layers.items() if isinstance(layer, Factors)}


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
        for name, layer in factors_of(part.lora).items():
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
    assert {layer.down.dim() for layer in factors_of(lora).values()} == {2, 4}
    assert {tuple(layer.down.shape[2:]) for layer in factors_of(lora).values()} == {(), (1, 1), (3, 3)}
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
    good = factors_of(a_lora(base, 1))[name]
    wrong = LoraFile("odd", {name: Factors(good.down[..., :1, :1], good.up, 2.0)}, {})
    with pytest.raises(
        LoraFileError, match=r"1 of its 1 layers have no counterpart here, such as lora_unet_input_blocks_1_0.* Choose .+ base"
    ):
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


def products(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The devices of the products that are added to weights, as they are."""
    made: list[str] = []
    addmm = torch.addmm

    def seen(base: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        made.append(base.device.type)
        return addmm(base, up, down)

    monkeypatch.setattr(torch, "addmm", seen)
    return made


def test_a_change_is_made_where_the_weights_are(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's matrices come to the card, not their product, which is many times as large."""
    lora, made = a_lora(base, seed=1), products(monkeypatch)
    parts = {part: model.to("meta") for part, model in base.parts.items()}
    Canvas(parts, base.version).lay([Weighted(lora, 1.0, 1.0)])
    assert made == ["meta"] * len(lora.layers)


def test_only_what_has_moved_is_laid_anew(base: Base, canvas: Canvas, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, made = a_lora(base, 1), a_lora(base, 2, every=5), products(monkeypatch)
    canvas.lay([Weighted(one, 0.5, 0.5), Weighted(two, 0.5, 0.5)])
    assert len(made) == len(one.layers), "both lie on a layer in one product"
    for mix, layers in (
        ([Weighted(one, 0.5, 0.5), Weighted(two, 0.5, 0.5)], 0),
        ([Weighted(one, 0.5, 0.5), Weighted(two, 0.7, 0.5)], sum(component_of(name) == "unet" for name in two.layers)),
        ([Weighted(one, 0.5, 0.5)], len(two.layers)),
        ([Weighted(one, 0.5, 0.5, {"mid_block": 2.0})], sum("_middle_block_" in name for name in one.layers)),
        ([Weighted(a_lora(base, 1), 0.5, 0.5, {"mid_block": 2.0})], len(one.layers)),
    ):
        made.clear()
        canvas.lay(mix)
        assert len(made) == layers


def test_a_layer_at_which_memory_ran_out_is_laid_next_time(base: Base, canvas: Canvas, monkeypatch: pytest.MonkeyPatch) -> None:
    before, one = weights(base), a_lora(base, 1)
    canvas.lay([Weighted(one, 0.5, 0.5)])
    wanted, addmm, calls = [Weighted(one, -1.0, 0.7)], torch.addmm, []

    def short(*given: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 20:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return addmm(*given)

    monkeypatch.setattr(torch, "addmm", short)
    with pytest.raises(torch.OutOfMemoryError):
        canvas.lay(wanted)
    canvas.lay(wanted)
    assert_is(base, expected(base, before, wanted))
    canvas.lay([])
    assert same(before, weights(base))


@pytest.mark.parametrize(
    ("blocks", "where"),
    [
        ({"mid_block": 0.5}, {"middle_block": 0.5}),
        ({"unet": 0.0, "up_blocks.0.attentions.1": 1.0}, {"": 0.0, "output_blocks_1_1_": 1.0}),
        (
            {"down_blocks": 0.3, "down_blocks.1": -2.0},
            {"input_blocks": 0.3, "input_blocks_0_": 1.0, **{f"input_blocks_{number}_": -2.0 for number in (4, 5, 6)}},
        ),
        ({"up_blocks.0": 0.0, "unet": 2.0}, {"": 2.0, **{f"output_blocks_{number}_": 0.0 for number in range(3)}}),
    ],
    ids=["group", "style", "within another", "the rest"],
)  # fmt: skip
def test_blocks_have_factors_of_their_own(
    base: Base, canvas: Canvas, blocks: dict[str, float], where: dict[str, float]
) -> None:
    """`where` says the same by the names in the file, the last that fits counting."""
    before, lora = weights(base), a_lora(base, 1)
    scaled = {}
    for name, layer in factors_of(lora).items():
        fitting = [factor for start, factor in where.items() if name.startswith(f"lora_unet_{start}")]
        scaled[name] = Factors(layer.down, layer.up, layer.alpha * (fitting or [1.0])[-1])
    canvas.lay([Weighted(lora, 0.8, 0.3, blocks)])
    assert_is(base, expected(base, before, [Weighted(LoraFile("scaled", scaled, {}), 0.8, 0.3)]))


def test_a_block_that_the_base_has_not_is_refused_and_nothing_changes(base: Base, canvas: Canvas) -> None:
    before, lora = weights(base), a_lora(base, 1)
    for block in ("up_block", "down_blocks.7", "mid_block.attentions.0.transformer_blocks.5", "encoder"):
        with pytest.raises(UsageError, match=f"The U-Net has no block {block}: name one such as down_blocks"):
            canvas.lay([Weighted(lora, 1.0, 1.0), Weighted(lora, 1.0, 1.0, {block: 1.0})])
    assert same(before, weights(base))


def test_pefts_exact_sum_of_two_adapters_is_ours(base: Base, canvas: Canvas) -> None:
    """Its `cat` is the sum of the products; the adapters are its own, random in both matrices."""
    random = torch.Generator().manual_seed(3)
    model = PeftModel(copy.deepcopy(base.unet), LoraConfig(r=3, lora_alpha=2, target_modules=["to_q", "to_out.0"]), "one")
    model.add_adapter("two", LoraConfig(r=5, lora_alpha=7, target_modules=["to_q", "to_v"]))
    files: dict[str, dict[str, Layer]] = {"one": {}, "two": {}}
    for path, layer in model.base_model.model.named_modules():
        for name in files:
            if isinstance(layer, LoraLinear) and name in layer.lora_A:
                down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
                nn.init.normal_(up, generator=random)
                alpha = layer.scaling[name] * layer.r[name]
                files[name][file_name("unet", path)] = Factors(down.detach().clone(), up.detach().clone(), alpha)
    model.add_weighted_adapter(["one", "two"], [0.7, 0.4], "both", "cat")
    model.set_adapter("both")
    merged = model.merge_and_unload().state_dict()
    canvas.lay([Weighted(LoraFile(name, files[name], {}), weight, 0.0) for name, weight in (("one", 0.7), ("two", 0.4))])
    assert apart(base.unet.get_submodule("mid_block").state_dict()["attentions.0.transformer_blocks.0.attn1.to_q.weight"],
                 merged["mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"]) < 1e-6  # fmt: skip
    for name, value in base.unet.state_dict().items():
        assert torch.allclose(value, merged[name], rtol=1e-5, atol=1e-5), name


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
    sentence = (
        r"wide does not fit this base \(sdxl_base_v1-0\).*made for the starter base only.* Choose the starter as the base"
    )
    with pytest.raises(LoraFileError, match=sentence):
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
