"""Merged LoRAs against the sum of their changes in float64, and TIES and DARE against the papers' own steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from tests.lora.test_layer import answer
from tests.lora.test_mix import a_lora, adapted, weights
from trainer.errors import LoraFileError, UsageError
from trainer.lora.delta import Difference, Dora, Factors, Hadamard, Kronecker, Layer, Pair
from trainer.lora.file import LoraFile, write
from trainer.lora.keys import component_of
from trainer.lora.merge import dare, equalised, gathered, is_whole, merged, one_alpha, ties
from trainer.lora.mix import Canvas
from trainer.lora.ways import ALL, Keep, Merging, Method
from trainer.lora.weights import Weighted
from trainer.sdxl.base import Base, load_base

LINEAR = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
OTHER = "lora_unet_output_blocks_0_1_transformer_blocks_0_ff_net_2"
CONV = "lora_unet_input_blocks_4_0_in_layers_2"
POINT = "lora_unet_input_blocks_4_0_skip_connection"
TEXT = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"


def layer(seed: int, rank: int, alpha: float, out: int = 20, inward: int = 12, window: tuple[int, ...] = ()) -> Factors:
    """Random matrices of a trained layer's size, that float16 holds exactly."""
    random = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, inward, *window, generator=random) * 0.1
    up = torch.randn(out, rank, *(1 for _ in window), generator=random) * 0.02
    return Factors(down.half(), up.half(), alpha)


def lora(seed: int, rank: int, alpha: float, *left_out: str) -> LoraFile:
    """Layers of all kinds, each with its own matrices."""
    layers: dict[str, Layer] = {
        LINEAR: layer(seed, rank, alpha),
        OTHER: layer(seed + 100, rank, alpha),
        CONV: layer(seed + 200, rank, alpha, window=(3, 3)),
        POINT: layer(seed + 300, rank, alpha, window=(1, 1)),
        TEXT: layer(seed + 400, rank, alpha),
    }
    kept = {name: one for name, one in layers.items() if name not in left_out}
    return LoraFile(f"lora{seed}", kept, {"modelspec.trigger_phrase": f"word{seed}"})


MIX = [
    Weighted(lora(1, 3, 1.5), 0.8, 0.3),
    Weighted(lora(2, 5, 7.0, OTHER), -1.3, 0.0),
    Weighted(lora(3, 2, 2.0, TEXT), 0.4, 1.0),
]


def change(part: Weighted, name: str) -> torch.Tensor:
    """What a LoRA adds to a layer in a mix, in float64, written out."""
    one = part.lora.layers[name]
    assert isinstance(one, Factors)
    product = one.up.double().flatten(1) @ one.down.double().flatten(1) * (one.alpha / one.down.shape[0])
    return product.view(one.shape) * (part.unet if component_of(name) == "unet" else part.text)


def changes(mix: list[Weighted], name: str) -> list[torch.Tensor]:
    return [found for part in mix if name in part.lora.layers and (found := change(part, name)).any()]


def total(mix: list[Weighted], name: str) -> torch.Tensor:
    return torch.stack(changes(mix, name)).sum(0)


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Distance as a share of the second."""
    return float((one.detach().double() - other.detach()).norm() / other.detach().norm())


def made(mix: list[Weighted], method: Method = "exact", keep: Keep = ALL, **more: float) -> dict[str, Factors]:
    how = Merging(method, keep, **more)  # type: ignore[arg-type]
    return one_alpha({name: merged(name, terms, how) for name, terms in gathered(mix).items()})


# The sum ----------------------------------------------------------------------------------------------------------------


def test_exact_is_the_true_sum() -> None:
    found = made(MIX)
    assert found.keys() == {LINEAR, OTHER, CONV, POINT, TEXT}
    for name, one in found.items():
        assert one.shape == total(MIX, name).shape
        assert apart(one.change(), total(MIX, name)) <= 1e-6
    assert {name: one.rank for name, one in found.items()} == {LINEAR: 10, OTHER: 5, CONV: 10, POINT: 10, TEXT: 3}


def test_kinds_add_up() -> None:
    random = torch.Generator().manual_seed(5)
    first, second = (Pair(torch.randn(20, 2, generator=random) * 0.1, torch.randn(2, 12, generator=random)) for _ in range(2))
    kinds: list[Layer] = [
        Hadamard(first, second, 1.0, torch.Size((20, 12))),
        Kronecker(torch.randn(4, 3, generator=random), torch.randn(5, 4, generator=random) * 0.1, 1.0, torch.Size((20, 12))),
        Difference(torch.randn(20, 12, generator=random) * 0.1),
    ]
    mix = [Weighted(LoraFile("odd", {LINEAR: kind}, {}), 0.7, 0.0) for kind in kinds]
    wanted = total(MIX, LINEAR) + sum(0.7 * kind.change().double() for kind in kinds)
    found = made([*mix, *MIX])
    assert apart(found[LINEAR].change(), wanted) <= 1e-6
    assert apart(found[TEXT].change(), total(MIX, TEXT)) <= 1e-6


def test_loras_of_a_text_encoder_alone_add_up() -> None:
    mix = [Weighted(lora(seed, 3, 1.5, LINEAR, OTHER, CONV, POINT), 9.0, 0.5) for seed in (1, 2)]
    found = made(mix)
    assert found.keys() == {TEXT}
    assert apart(found[TEXT].change(), total(mix, TEXT)) <= 1e-6
    assert [part.unet for part in equalised(mix)] == [9.0, 9.0]


def test_equal_strength_is_of_the_unets_change() -> None:
    mix = [Weighted(lora(1, 3, 1.5), 1.0, 0.3), Weighted(lora(2, 5, 40.0), 1.0, 1.0), Weighted(lora(3, 2, 2.0), -0.5, 1.0)]
    found = equalised(mix)
    assert [part.text for part in found] == [part.text for part in mix]
    sizes = [torch.cat([change(part, name).flatten() for name in (LINEAR, OTHER, CONV, POINT)]).norm() for part in found]
    torch.testing.assert_close(torch.stack(sizes) / sizes[0], torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64))
    off = [replace(mix[0], unet=0.0), *mix[1:]]
    assert [part.unet for part in equalised(off)[1:]] == [part.unet for part in equalised(mix[1:])]


@pytest.mark.parametrize(
    ("method", "keep", "whole"),
    [
        ("exact", ALL, True),
        ("svd", Keep(rank=9), False),
        ("svd", Keep(rank=10), True),
        ("svd", Keep(energy=0.999), False),
        ("svd", Keep(energy=1.0), True),
        ("ties", Keep(energy=1.0), False),
    ],
)
def test_it_is_known_whether_something_is_left_out(method: Method, keep: Keep, whole: bool) -> None:
    assert is_whole(gathered(MIX), Merging(method, keep)) == whole


def test_svd_of_the_full_rank_is_the_true_sum() -> None:
    for name, one in made(MIX, "svd", Keep(rank=10)).items():
        assert apart(one.change(), total(MIX, name)) <= 1e-6


def test_svd_of_a_smaller_rank_is_the_nearest() -> None:
    for name, one in made(MIX, "svd", Keep(rank=2)).items():
        whole = total(MIX, name).flatten(1)
        left, values, right = torch.linalg.svd(whole, full_matrices=False)
        nearest = (left[:, :2] * values[:2] @ right[:2]).view(one.shape)
        assert one.rank == 2
        assert apart(one.change(), nearest) <= 1e-6


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.999, 1.0])
def test_energy_keeps_what_it_says_and_no_more(energy: float) -> None:
    ranks = set()
    for name, one in made(MIX, "svd", Keep(energy=energy)).items():
        values = torch.linalg.svdvals(total(MIX, name).flatten(1)).square()
        shares = values.cumsum(0) / values.sum()
        assert shares[one.rank - 1] >= energy - 1e-9
        assert one.rank == 1 or shares[one.rank - 2] < energy
        assert apart(one.change(), total(MIX, name)) ** 2 == pytest.approx(float(1 - shares[one.rank - 1]), abs=1e-6)
        ranks.add(one.rank)
    assert len(ranks) > 1


def test_a_layer_that_changes_nothing_stays_one(tmp_path: Path) -> None:
    nothing = Factors(torch.ones(4, 12).half(), torch.zeros(20, 4).half(), 4.0)
    mix = [Weighted(LoraFile("still", {LINEAR: nothing}, {}), 1.0, 1.0)]
    for how in (Keep(rank=2), Keep(energy=0.9)):
        found = made(mix, "svd", how)[LINEAR]
        assert found.rank == 1
        assert not found.change().any()


# The file ---------------------------------------------------------------------------------------------------------------


def test_a_part_of_the_base_has_one_alpha() -> None:
    found = made(MIX, "svd", Keep(energy=0.9))
    unet = [one for name, one in found.items() if component_of(name) == "unet"]
    assert len({one.alpha for one in unet}) == 1
    assert len({one.rank for one in unet}) > 1


@pytest.mark.parametrize(("size", "alpha"), [(1e-4, 1.0), (0.02, 128.0), (3.0, 4.0)])
def test_float16_loses_nothing_of_a_small_or_a_large_matrix(tmp_path: Path, size: float, alpha: float) -> None:
    random = torch.Generator().manual_seed(1)
    down, up = torch.randn(128, 64, generator=random), torch.randn(64, 128, generator=random) * size
    mix = [Weighted(LoraFile("one", {LINEAR: Factors(down.half(), up.half(), alpha), OTHER: layer(1, 2, 1.0)}, {}), 1.0, 1.0)]
    write(tmp_path / "out.safetensors", made(mix), {})
    found = LoraFile.read(tmp_path / "out.safetensors").layers[LINEAR]
    assert apart(found.change(), change(mix[0], LINEAR)) <= 5e-4


@pytest.fixture
def base(toy_base: Path) -> Base:
    return load_base(str(toy_base), torch.device("cpu"), torch.float32)


def test_the_merged_file_mixes_to_the_weights_of_the_live_mix(base: Base, tmp_path: Path) -> None:
    canvas, before = Canvas(base.parts, base.version), weights(base)
    mix = [Weighted(a_lora(base, 1), 0.7, 0.2), Weighted(a_lora(base, 2, rank=5, alpha=7.0, every=2), -1.3, 0.5)]
    canvas.lay(mix)
    live = weights(base)
    write(tmp_path / "out.safetensors", made(mix), {})
    canvas.lay([Weighted(LoraFile.read(tmp_path / "out.safetensors"), 1.0, 1.0)])
    for name, value in weights(base).items():
        if name in adapted(base).values():
            assert apart(value - before[name], (live[name] - before[name]).double()) <= 5e-4, name
        else:
            assert torch.equal(value, live[name])


def test_diffusers_draws_what_a_file_with_many_ranks_holds(base: Base, toy_base: Path, tmp_path: Path) -> None:
    mix = [Weighted(a_lora(base, 1, rank=4), 0.1, 0.02), Weighted(a_lora(base, 2, rank=2, alpha=7.0, every=3), -0.1, 0.05)]
    layers = made(mix, "svd", Keep(energy=0.8))
    del layers["lora_te2_text_projection"]  # diffusers reads it at the rank of the other layers alone
    assert len({one.rank for one in layers.values()}) > 2
    write(tmp_path / "out.safetensors", layers, {})
    Canvas(base.parts, base.version).lay([Weighted(LoraFile.read(tmp_path / "out.safetensors"), 1.0, 1.0)])
    pipeline = StableDiffusionXLPipeline.from_pretrained(toy_base)
    pipeline.load_lora_weights(tmp_path, weight_name="out.safetensors")
    theirs = {"unet": pipeline.unet, "te1": pipeline.text_encoder, "te2": pipeline.text_encoder_2}
    for component, model in base.parts.items():
        assert apart(answer(component, theirs[component]), answer(component, model).double()) <= 1e-4


# TIES and DARE ----------------------------------------------------------------------------------------------------------


def ties_of_the_paper(found: list[torch.Tensor], density: float) -> torch.Tensor:
    """Algorithm 1 of arXiv 2306.01708, number by number."""
    count = round(density * found[0].numel())
    trimmed = []
    for one in found:
        largest = sorted(range(one.numel()), key=lambda i: -abs(float(one.flatten()[i])))[:count]
        trimmed.append([float(one.flatten()[i]) if i in set(largest) else 0.0 for i in range(one.numel())])
    out = []
    for numbers in zip(*trimmed, strict=True):
        positive, negative = sum(n for n in numbers if n > 0), -sum(n for n in numbers if n < 0)
        agreeing = [n for n in numbers if (n > 0 if positive > negative else n < 0)]
        out.append(sum(agreeing) / len(agreeing) if agreeing else 0.0)
    return torch.tensor(out, dtype=torch.float64).view(found[0].shape)


@pytest.mark.parametrize("name", [LINEAR, CONV, TEXT])
@pytest.mark.parametrize("density", [0.2, 0.5])
def test_ties_is_the_papers_on_whole_changes(name: str, density: float) -> None:
    found = made(MIX, "ties", Keep(energy=1.0), density=density)[name]
    assert apart(found.change(), ties_of_the_paper(changes(MIX, name), density)) <= 1e-6


def test_ties_of_many_rows_is_done_by_parts() -> None:
    found = [torch.randn(150, 7, generator=torch.Generator().manual_seed(seed)).double() for seed in range(3)]
    trimmed = []
    for one in found:
        least = np.sort(np.abs(one.numpy()), axis=None)[-round(0.3 * one.numel())]
        trimmed.append(np.where(np.abs(one.numpy()) >= least, one.numpy(), 0))
    side = np.sign(sum(trimmed))
    agreeing = [np.where(np.sign(one) == side, one, 0) for one in trimmed]
    counts = sum((one != 0).astype(int) for one in agreeing)
    assert apart(ties(found, 0.3), torch.from_numpy(sum(agreeing) / np.maximum(counts, 1))) <= 1e-12


def test_ties_is_made_low_rank_at_the_end() -> None:
    wanted = ties_of_the_paper(changes(MIX, LINEAR), 0.5)
    left, values, right = torch.linalg.svd(wanted, full_matrices=False)
    found = made(MIX, "ties", Keep(rank=3))[LINEAR]
    assert found.rank == 3
    assert apart(found.change(), left[:, :3] * values[:3] @ right[:3]) <= 1e-6


def test_ties_of_one_lora_that_keeps_everything_is_that_lora() -> None:
    assert torch.equal(ties([total(MIX, LINEAR)], 1.0), total(MIX, LINEAR))


def test_dare_drops_at_random_and_makes_the_others_larger() -> None:
    found = changes(MIX, CONV)
    draws = [torch.Generator().manual_seed(seed) for seed in range(3)]
    again = [torch.rand(one.shape, generator=torch.Generator().manual_seed(seed)) for seed, one in enumerate(found)]
    wanted = torch.zeros_like(found[0])
    for one, drawn in zip(found, again, strict=True):
        for i in range(one.numel()):
            if drawn.flatten()[i] < 0.3:
                wanted.view(-1)[i] += one.flatten()[i] / 0.3
    torch.testing.assert_close(dare(found, 0.3, draws), wanted, rtol=1e-12, atol=0)


def test_dares_mean_over_seeds_is_the_sum() -> None:
    mean = torch.stack([made(MIX, "dare", Keep(energy=1.0), seed=seed)[LINEAR].change() for seed in range(400)]).mean(0)
    spread = torch.stack([one.square() for one in changes(MIX, LINEAR)]).sum(0).sqrt()  # of one draw at a density of a half
    assert float(((mean - total(MIX, LINEAR)) / spread).square().mean().sqrt()) == pytest.approx(1 / 20, rel=0.2)


def test_a_seed_is_a_draw() -> None:
    one, again, other = (made(MIX, "dare", Keep(rank=4), seed=seed)[LINEAR] for seed in (1, 1, 2))
    assert torch.equal(one.change(), again.change())
    assert not torch.allclose(one.change(), other.change())


# What cannot be merged --------------------------------------------------------------------------------------------------


def test_a_loha_is_decomposed() -> None:
    random = torch.Generator().manual_seed(1)
    first, second = (Pair(torch.randn(20, 2, generator=random), torch.randn(2, 12 * 9, generator=random)) for _ in range(2))
    loha = Hadamard(first, second, 1.0, torch.Size((20, 12, 3, 3)))
    mix = [Weighted(LoraFile("loha", {CONV: loha}, {}), 0.5, 0.5), MIX[0]]
    found = made(mix)[CONV]
    assert found.rank == 4 + 3
    assert apart(found.change(), loha.change().double() * 0.5 + change(MIX[0], CONV)) <= 1e-6


def test_a_dora_is_refused() -> None:
    dora = Dora(layer(1, 2, 1.0), torch.ones(20), "out")
    with pytest.raises(LoraFileError, match=r"^fixed is a DoRA, which changes every base in its own way: .*\.$"):
        gathered([Weighted(LoraFile("fixed", {LINEAR: dora}, {}), 1.0, 1.0)])


def test_loras_for_different_models_are_refused() -> None:
    narrow = LoraFile("narrow", {LINEAR: layer(1, 2, 1.0, inward=8)}, {})
    with pytest.raises(
        LoraFileError, match=r"^lora1 and narrow are made for different models .* is 20 x 12 in one and 20 x 8 in"
    ):
        gathered([MIX[0], Weighted(narrow, 1.0, 1.0)])


def test_weights_of_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^Every weight is 0"):
        gathered([Weighted(MIX[0].lora, 0.0, 0.0)])
