"""The anatomy of LoRAs against numpy's SVD and sums over whole changes, in float64."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainer.lora.anatomy import SHARES, Anatomy, Overlap, block_of, inner, overlaps
from trainer.lora.delta import Difference, Dora, Factors, Hadamard, Kronecker, Layer, Pair, Tucker
from trainer.lora.file import LoraFile, serialise
from trainer.lora.keys import file_name
from trainer.lora.lowrank import rank_holding, singular_values

GOLDEN = Path(__file__).parents[1] / "golden"
OUT1 = "lora_unet_output_blocks_1_1_transformer_blocks_0_attn1_to_q"
OUT1_V = "lora_unet_output_blocks_1_1_transformer_blocks_0_attn1_to_v"
IN4 = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
CONV = "lora_unet_middle_block_0_in_layers_2"
TE1 = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"


def normal(seed: int, *shape: int) -> torch.Tensor:
    """Random numbers that float16 holds, as they come out of a file."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).half()


def plain(seed: int = 0, rank: int = 6, out: int = 20, inward: int = 24, alpha: float = 3.0, decay: float = 0.7) -> Factors:
    """A linear layer whose singular values fall."""
    fall = decay ** torch.arange(rank)
    return Factors(normal(seed, rank, inward), (normal(seed + 1000, out, rank) * fall).half(), alpha)


def conv(seed: int = 0, rank: int = 5) -> Factors:
    """A 3 x 3 convolution from 7 to 10 channels."""
    return Factors(normal(seed, rank, 7, 3, 3), normal(seed + 1000, 10, rank, 1, 1), 2.0)


def lora(layers: Mapping[str, Layer], name: str = "style") -> LoraFile:
    return LoraFile(name, layers, {})


def whole(layer: Layer) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A layer's change by its formula in float64, flat: (out, in)."""
    if not isinstance(layer, Factors):
        return layer.change().flatten(1).double().numpy()
    up, down = layer.up.flatten(1).double().numpy(), layer.down.flatten(1).double().numpy()
    change: np.ndarray[Any, np.dtype[np.float64]] = up @ down * (layer.alpha / layer.rank)
    return change


KINDS: dict[str, Layer] = {
    "plain": plain(),
    "rank 1": plain(rank=1),
    "negative alpha": plain(alpha=-1.5),
    "rank above a side": plain(rank=16, out=8, inward=12, decay=1.0),
    "convolution": conv(),
    "zero": Factors(normal(0, 4, 24), torch.zeros(20, 4), 4.0),
    "deficient": Factors(normal(0, 4, 24), torch.cat([normal(1, 20, 1)] * 4, 1), 4.0),
    "loha": Hadamard(
        Pair(normal(1, 20, 3), normal(2, 3, 24)), Pair(normal(3, 20, 3), normal(4, 3, 24)), 2.0, torch.Size((20, 24))
    ),
    "lokr": Kronecker(normal(1, 4, 3), Pair(normal(2, 5, 2), normal(3, 2, 8)), 1.5, torch.Size((20, 24))),
    "lokr of a convolution": Kronecker(normal(1, 2, 3), normal(2, 5, 4, 3, 3), 1.0, torch.Size((10, 12, 3, 3))),
    "tucker": Tucker(normal(1, 3, 7), normal(2, 3, 3, 3, 3), normal(3, 10, 3), 2.0),
    "full": Difference(normal(1, 20, 24)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_spectra_are_those_of_the_whole_change(kind: str) -> None:
    layer = KINDS[kind]
    expected = np.linalg.svd(whole(layer), compute_uv=False)
    found = singular_values(layer).numpy()
    count = min(len(found), len(expected))
    assert np.abs(found[:count] - expected[:count]).max() <= 1e-6 * max(expected[0], 1e-30)
    assert all(values[count:].max(initial=0) <= 1e-6 * expected[0] for values in (found, expected)), "the rest is nothing"
    assert (np.diff(found) <= 0).all()


def test_a_falling_spectrum_is_right_to_its_end() -> None:
    layer = plain(rank=32, out=160, inward=128, decay=0.75)
    expected = np.linalg.svd(whole(layer), compute_uv=False)[:32]
    assert singular_values(layer).numpy() == pytest.approx(expected, rel=1e-6)
    assert expected[0] > 1000 * expected[-1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", SHARES)
def test_effective_ranks_are_those_of_the_whole_change(kind: str, share: float) -> None:
    layer = KINDS[kind]
    squares = np.linalg.svd(whole(layer), compute_uv=False) ** 2
    total = squares.sum()
    expected = next(rank for rank in range(len(squares) + 1) if squares[:rank].sum() >= share * total * (1 - 1e-9))
    assert rank_holding(share, singular_values(layer).square()) == expected


def test_a_share_that_a_rank_holds_exactly_takes_that_rank() -> None:
    assert [rank_holding(share, torch.full((20,), 0.1, dtype=torch.float64)) for share in (0.9, 0.95, 0.99)] == [18, 19, 20]


@pytest.mark.parametrize(("one", "other"), itertools.combinations_with_replacement(
    [name for name in KINDS if KINDS[name].shape == (20, 24)], 2
))  # fmt: skip
def test_inner_products_are_those_of_the_whole_changes(one: str, other: str) -> None:
    first, second = whole(KINDS[one]), whole(KINDS[other])
    bound = 1e-6 * float(np.linalg.norm(first) * np.linalg.norm(second))
    assert inner(KINDS[one], KINDS[other]) == pytest.approx(float((first * second).sum()), rel=0, abs=bound)


def test_inner_products_of_convolutions_of_other_ranks() -> None:
    one, other = conv(1, rank=5), conv(2, rank=3)
    assert inner(one, other) == pytest.approx(float((whole(one) * whole(other)).sum()), rel=1e-5)


def test_sizes_are_told_by_block_and_by_part_of_the_base() -> None:
    layers = {OUT1: plain(1), OUT1_V: plain(2), IN4: plain(3, rank=2), CONV: conv(4), TE1: plain(5)}
    found = Anatomy.of(lora(layers))
    norms = {name: float(np.linalg.norm(whole(layer))) for name, layer in layers.items()}
    expected = {
        "input 4": norms[IN4],
        "middle": norms[CONV],
        "output 1": math.hypot(norms[OUT1], norms[OUT1_V]),
        "te1": norms[TE1],
    }
    assert found.blocks == pytest.approx(expected, rel=1e-6)
    assert list(found.blocks) == list(expected), "in the order of the model"
    assert found.parts == pytest.approx(
        {"unet": math.hypot(*(size for name, size in norms.items() if name != TE1)), "te1": norms[TE1], "te2": 0.0}, rel=1e-6
    )
    assert found.size == pytest.approx(math.hypot(*norms.values()), rel=1e-6)
    assert {block: found.share(block) for block in expected} == pytest.approx(
        {block: (size / found.size) ** 2 for block, size in expected.items()}, rel=1e-6
    )
    assert found.share("output 0") == 0


def test_every_layer_of_sdxl_has_a_block_that_is_told_of() -> None:
    names = json.loads((GOLDEN / "sdxl_lora_modules.json").read_text(encoding="utf-8"))
    blocks = {block_of(name) for name in names}
    sides = {f"input {number}" for number in (4, 5, 7, 8)} | {f"output {number}" for number in range(6)}
    assert blocks == sides | {"middle", "te1", "te2"}
    assert block_of("lora_unet_time_embed_0") == block_of("lora_unet_out_2") == "outer"
    assert block_of("lora_unet_input_blocks_3_0_op") == "input 3"


def test_blocks_go_by_the_names_of_diffusers_too() -> None:
    attention = [f"down_blocks.{i}.attentions.{j}.proj_in" for i in (1, 2) for j in range(2)]
    attention += [
        "mid_block.attentions.0.proj_in",
        *(f"up_blocks.{i}.attentions.{j}.proj_in" for i in (0, 1) for j in range(3)),
    ]
    rest = ["down_blocks.0.resnets.0.conv1", "down_blocks.0.resnets.1.conv1", "up_blocks.2.resnets.2.conv1"]
    rest += ["down_blocks.0.downsamplers.0.conv", "down_blocks.1.downsamplers.0.conv"]
    for path in attention + rest:
        (told,) = Anatomy.of(lora({file_name("unet", path): plain()})).to_json(0)["blocks"]
        assert path.startswith(f"{told['diffusers']}."), told
        assert told["diffusers"] in (path.rpartition(".")[0], "mid_block")
    assert Anatomy.of(lora({TE1: plain()})).to_json(0)["blocks"][0]["diffusers"] == ""


@pytest.mark.parametrize("share", SHARES)
def test_the_rank_that_holds_a_share_is_that_of_all_layers_together(share: float) -> None:
    layers = {OUT1: plain(1, rank=8), IN4: plain(2, rank=3, alpha=0.4), CONV: conv(3)}
    spectra = [np.linalg.svd(whole(layer), compute_uv=False) ** 2 for layer in layers.values()]
    total = sum(squares.sum() for squares in spectra)
    expected = next(rank for rank in range(20) if sum(squares[:rank].sum() for squares in spectra) >= share * total)
    assert Anatomy.of(lora(layers)).rank_holding(share) == expected


@pytest.mark.parametrize("rank", [1, 3, 6, 8])
def test_the_bytes_at_a_rank_are_those_of_a_file_cut_to_it(rank: int) -> None:
    layers = {OUT1: plain(1, rank=8), IN4: plain(2, rank=3), CONV: conv(3)}
    cut = {name: Factors(layer.down[:rank], layer.up[:, :rank], layer.alpha) for name, layer in layers.items()}
    content = serialise(cut, {})
    assert Anatomy.of(lora(layers)).bytes_at(rank) == len(content) - 8 - int.from_bytes(content[:8], "little")


def test_progress_is_told_layer_by_layer() -> None:
    done: list[int] = []
    Anatomy.of(lora({OUT1: plain(1), IN4: plain(2), CONV: conv(3)}), done.append)
    assert done == [1, 1, 1]


def test_what_is_told_is_json_and_tells_of_each_layer() -> None:
    layers = {OUT1: plain(1), CONV: conv(2)}
    found = Anatomy.of(lora(layers))
    told = json.loads(json.dumps(found.to_json(around=1000)))
    assert [one["rank"] for one in told["holding"]] == [found.rank_holding(share) for share in SHARES]
    assert [one["bytes"] for one in told["holding"]] == [found.bytes_at(one["rank"]) + 1000 for one in told["holding"]]
    assert told["layers"][CONV]["size"] == pytest.approx(float(np.linalg.norm(whole(layers[CONV]))), rel=1e-6)
    assert told["layers"][CONV]["ranks"] == [rank_holding(share, singular_values(layers[CONV]).square()) for share in SHARES]


def test_a_lora_of_zeros_changes_nothing() -> None:
    found = Anatomy.of(lora({OUT1: KINDS["zero"], IN4: KINDS["zero"]}))
    assert (found.size, found.share("output 1"), [found.rank_holding(share) for share in SHARES]) == (0, 0, [0, 0, 0])
    json.dumps(found.to_json(0), allow_nan=False)


@pytest.mark.parametrize(("left", "empty"), [(0.0, True), (1e-7, True), (1e-5, False)])
def test_a_change_that_is_undone_but_for_rounding_is_none(left: float, empty: bool) -> None:
    one = plain(rank=3)
    up = one.up.float()
    undone = Factors(torch.cat([one.down, one.down]), torch.cat([up, up * (left - 1)], 1), one.alpha)
    assert (Anatomy.of(lora({OUT1: undone})).size == 0) == empty


def test_a_dora_is_left_out_and_named() -> None:
    found = Anatomy.of(lora({OUT1: plain(), IN4: Dora(plain(), torch.ones(20), "out")}))
    assert list(found.blocks) == ["output 1"]
    told = found.to_json(0)
    assert told["left_out"] == [IN4]
    assert {one["bytes"] for one in told["holding"]} == {None}, "nobody knows what a smaller file would be"


def pair(one: Mapping[str, Layer], other: Mapping[str, Layer]) -> Overlap:
    return Overlap.of(Anatomy.of(lora(one, "a")), Anatomy.of(lora(other, "b")))


def flat(layers: Mapping[str, Layer], names: list[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The whole changes of these layers as one vector, zeros for those that are not there."""
    sizes = {OUT1: 480, OUT1_V: 480, IN4: 480, TE1: 480, CONV: 630}
    return np.concatenate([whole(layers[name]).ravel() if name in layers else np.zeros(sizes[name]) for name in names])


def cosine(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_cosines_are_those_of_the_whole_changes() -> None:
    shared = plain(1)
    one: dict[str, Layer] = {OUT1: shared, OUT1_V: plain(2), CONV: conv(3), TE1: plain(4)}
    other: dict[str, Layer] = {OUT1: Factors(shared.down[:4], shared.up[:, :4], 9.0), IN4: plain(6), CONV: conv(7, rank=2)}
    found = pair(one, other)
    for block, names in {"output 1": [OUT1, OUT1_V], "middle": [CONV]}.items():
        assert found.cosine(block) == pytest.approx(cosine(flat(one, names), flat(other, names)), rel=1e-6, abs=1e-7)
    assert (found.cosine("input 4"), found.cosine("te1")) == (0, 0), "one of them has nothing there"
    everything = [OUT1, OUT1_V, IN4, CONV, TE1]
    assert found.whole == pytest.approx(cosine(flat(one, everything), flat(other, everything)), rel=1e-6, abs=1e-7)
    assert found.cosine("output 1") > 0.2, "else this would test noise"


def test_what_is_common_is_the_lesser_share_of_each_block() -> None:
    one, other = {OUT1: plain(1), IN4: plain(2)}, {OUT1: plain(3), TE1: plain(4)}
    shares = [float(np.linalg.norm(whole(both[OUT1])) ** 2 / sum(np.linalg.norm(whole(layer)) ** 2 for layer in both.values()))
              for both in (one, other)]  # fmt: skip
    assert pair(one, other).common == pytest.approx(min(shares), rel=1e-6)


def turned(layer: Layer, cosine: float, size: float = 1.0) -> Difference:
    """A change at this cosine to a layer's, `size` times as large."""
    own, other = whole(layer).ravel(), normal(77, 480).double().numpy()
    along = own / np.linalg.norm(own)
    across = other - (other @ along) * along
    change = np.linalg.norm(own) * size * (cosine * along + math.sqrt(1 - cosine**2) * across / np.linalg.norm(across))
    return Difference(torch.from_numpy(change).view(20, 24))


def test_loras_on_other_blocks_are_apart() -> None:
    verdict, sentence = pair({OUT1: plain(1)}, {IN4: plain(2)}).verdict()
    assert (verdict, sentence) == ("apart", "a and b work on different blocks.")


def test_loras_that_undo_each_other_where_both_are_strong_fight() -> None:
    mine = plain(1)
    found = pair({OUT1: mine, IN4: plain(2)}, {OUT1: turned(mine, -0.3), IN4: turned(plain(2), 0.3)})
    assert found.cosine("output 1") == pytest.approx(-0.3, rel=1e-5)
    assert found.verdict() == ("fight", "a and b fight in output 1: lower one, or merge with TIES.")
    assert [block["block"] for block in found.to_json()["blocks"] if block["fight"]] == ["output 1"]


def test_a_fight_in_several_blocks_names_them_all() -> None:
    mine = {OUT1: plain(1), IN4: plain(2), TE1: plain(3)}
    found = pair(mine, {name: turned(layer, -0.5) for name, layer in mine.items()})
    assert found.verdict()[1] == "a and b fight in input 4, output 1 and te1: lower one, or merge with TIES."


@pytest.mark.parametrize(
    ("cosine", "size", "fight"), [(-0.09, 1, False), (-0.11, 1, True), (-0.04, 2, False), (-0.06, 2, True), (-0.04, 9, False)]
)
def test_they_fight_if_they_are_opposed_and_one_undoes_a_tenth_of_the_other(cosine: float, size: float, fight: bool) -> None:
    mine = plain(1)
    for change in (turned(mine, cosine, size), turned(mine, cosine, 1 / size)):
        found = pair({OUT1: mine}, {OUT1: change})
        assert found.cosine("output 1") == pytest.approx(cosine, rel=1e-5)
        assert (found.verdict()[0] == "fight") == fight
    assert fight or found.verdict()[1] == "a and b work on the same blocks, and not against each other."


@pytest.mark.parametrize(("small", "fight"), [(0.41, True), (0.40, False)])
def test_a_block_that_hardly_counts_is_none_to_fight_in(small: float, fight: bool) -> None:
    """A fair share of two blocks is a quarter: `small` is this block's size as a part of the other's, times the root of 2."""
    mine, beside = plain(1), plain(2)
    size = math.sqrt(2) * small * float(np.linalg.norm(whole(beside)) / np.linalg.norm(whole(mine)))
    one: dict[str, Layer] = {OUT1: Factors(mine.down, mine.up, mine.alpha * size), IN4: beside}
    found = pair(one, {OUT1: turned(one[OUT1], -0.5), IN4: turned(beside, 0.0)})
    assert found.one.share("output 1") == pytest.approx(2 * small**2 / (1 + 2 * small**2), rel=1e-6)
    assert bool(found.fights) == fight == (found.one.share("output 1") >= 0.25)


def test_a_block_has_to_count_for_both_to_be_fought_in() -> None:
    mine, beside = plain(1), plain(2)
    faint = Factors(mine.down, mine.up, mine.alpha / 10)
    strong, weak = {OUT1: mine, IN4: turned(beside, 0.0, 0.1)}, {OUT1: turned(faint, -0.5), IN4: beside}
    assert (pair(strong, weak).fights, pair(weak, strong).fights) == ([], [])
    assert pair(strong, weak).cosine("output 1") == pytest.approx(-0.5, rel=1e-5)


def test_a_lora_is_like_itself_whatever_its_strength() -> None:
    mine = {OUT1: plain(1), CONV: conv(2)}
    double = {name: Factors(layer.down, layer.up, 2 * layer.alpha) for name, layer in mine.items()}
    found = pair(mine, double)
    assert found.whole == pytest.approx(1, rel=1e-6)
    assert found.verdict() == ("alike", "a and b do much the same: lower both where they are mixed.")


def test_loras_that_cannot_be_compared_are_told_of() -> None:
    others: dict[str, Mapping[str, Layer]] = {
        "a and b are made for different models: no base takes both.": {OUT1: plain(out=10)},
        "b changes nothing.": {OUT1: KINDS["zero"]},
        "b cannot be compared without a base: it is a DoRA.": {OUT1: Dora(plain(), torch.ones(20), "out")},
    }
    for sentence, other in others.items():
        found = pair({OUT1: plain()}, other)
        assert found.verdict() == ("unknown", sentence)
        json.dumps(found.to_json(), allow_nan=False)


def test_several_loras_are_compared_pair_by_pair() -> None:
    found = overlaps([Anatomy.of(lora({OUT1: plain(seed)}, str(seed))) for seed in range(3)])
    assert [one.to_json()["files"] for one in found] == [["0", "1"], ["0", "2"], ["1", "2"]]
