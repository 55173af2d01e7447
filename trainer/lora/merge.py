"""Several LoRAs made one: exactly, or smaller, or with what they disagree about left out.

    exact   the matrices of all, stacked: the true sum, of the sum of their ranks
    svd     the nearest to that sum of a smaller rank
    ties    of each change its largest numbers; where signs disagree, the side with more weight; the mean of those that agree
            (arXiv 2306.01708), made low-rank again
    dare    of each change a random share of its numbers, made larger for the missing ones; their sum (arXiv 2311.03099),
            made low-rank again

TIES and DARE work on changes, `up @ down`, never on the matrices apart: the same change has many pairs of matrices, and what
is elected among their numbers means nothing. Knows no files; how a merged file tells of itself is said in `lineage.py`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from trainer.errors import LoraFileError, UsageError
from trainer.lora.delta import Dora, Factors, Layer
from trainer.lora.keys import COMPONENTS, component_of
from trainer.lora.lowrank import UNDONE, LowRank, Spectrum, thin
from trainer.lora.paths import place_of
from trainer.lora.ways import Keep, Merging
from trainer.lora.weights import Weighted, equalising

_EXACT = 1 - 1e-12
"""Of a change's energy: what is left out is a millionth of its size, no more than float32 leaves out."""
_ROWS = 64
"""So many rows of a change are in a processor's nearest memory."""


@dataclass(frozen=True)
class Term:
    """One LoRA's part in one layer."""

    place: int
    """The LoRA's place in the mix."""
    weight: float
    layer: Layer


def gathered(mix: Sequence[Weighted]) -> dict[str, list[Term]]:
    """What there is to be added in each layer, by the layer's name in the file; weights of 0 are left out.

    Raises `LoraFileError` if the LoRAs are made for different models or cannot be added, `UsageError` if nothing is left.
    """
    found: dict[str, list[Term]] = {}
    for place, part in enumerate(mix):
        for name, layer in part.lora.layers.items():
            terms, place_in_base = found.setdefault(name, []), place_of(name)
            if place_in_base is None:
                raise LoraFileError(f"{part.lora.name} cannot be merged: SDXL has no layer {name}.")
            if isinstance(layer, Dora):
                raise LoraFileError(
                    f"{part.lora.name} is a DoRA, which changes every base in its own way: mix it while drawing, or bake it "
                    "into a base: no plain LoRA is what it is."
                )
            weight = part.weight_of(*place_in_base)
            if terms and terms[0].layer.shape != layer.shape:
                raise LoraFileError(
                    f"{mix[terms[0].place].lora.name} and {part.lora.name} are made for different models and cannot be merged: "
                    f"{name} is {_sides(terms[0].layer.shape)} in one and {_sides(layer.shape)} in the other."
                )
            terms.append(Term(place, weight, layer))
    kept = {name: [term for term in terms if term.weight] for name, terms in sorted(found.items())}
    kept = {name: terms for name, terms in kept.items() if terms}
    if not kept:
        raise UsageError("Every weight is 0, so that nothing would be merged: give at least one LoRA a weight.")
    return kept


def equalised(mix: Sequence[Weighted]) -> list[Weighted]:
    """The mix with other weights in the U-Net: see `equalising`. What a DoRA changes is not known, but none is merged."""
    sizes = [
        math.hypot(*(layer.size() for name, layer in part.lora.layers.items() if component_of(name) == "unet" and part.unet))
        for part in mix
    ]
    return [replace(part, unet=part.unet * factor) for part, factor in zip(mix, equalising(sizes), strict=True)]


def is_whole(found: Mapping[str, Sequence[Term]], how: Merging) -> bool:
    """Whether nothing of the sum is left out, so that a file's numbers should not lose any of it either."""
    if how.method != "svd":
        return how.method == "exact"
    return how.keep.energy == 1 or (how.keep.rank or 0) >= max(map(_most, found.values()))


def merged(name: str, terms: Sequence[Term], how: Merging) -> LowRank:
    """One layer of the merged LoRA, float32."""
    if how.method in ("exact", "svd"):
        joined = LowRank.joined([_low_rank(term) for term in terms])
        return _single(joined if how.method == "exact" else Spectrum.of(joined).kept(how.keep))
    changes = [term.layer.change(dtype=torch.float64) * term.weight for term in terms]
    if how.method == "ties":
        change = ties(changes, how.share)
    else:
        change = dare(changes, how.share, [_generator(how.seed or 0, term.place, name) for term in terms])
    return _single(Spectrum.dense(change, how.keep).kept(how.keep))


def is_undone(found: Mapping[str, Sequence[Term]], layers: Mapping[str, LowRank]) -> bool:
    """Whether the LoRAs cancel each other, so that the merged one changes nothing. Of most mixes one layer tells that not."""
    return all(
        float(layer.values.norm()) <= UNDONE * math.fsum(abs(term.weight) * term.layer.size() for term in found[name])
        for name, layer in layers.items()
    )


def ties(changes: Sequence[torch.Tensor], density: float) -> torch.Tensor:
    """Trim, elect sign, merge: changes of one shape, already weighted -> theirs together. `density` counts for each alone.

    Done by a few rows at a time, for there are many numbers, and all of them to be held several times.
    """
    least = torch.tensor([_least(change, density) for change in changes], dtype=changes[0].dtype)
    parts = zip(*(change.flatten(1).split(_ROWS) for change in changes), strict=True)
    return torch.cat([_elected(torch.stack(part), least[:, None, None]) for part in parts]).view(changes[0].shape)


def dare(changes: Sequence[torch.Tensor], density: float, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Drop and rescale, then add: each number stays with the chance `density`, divided by it. On the CPU."""
    found = torch.zeros_like(changes[0])
    for change, generator in zip(changes, generators, strict=True):
        found += change * (torch.rand(change.shape, generator=generator) < density) / density
    return found


def one_alpha(layers: Mapping[str, LowRank]) -> dict[str, Factors]:
    """The layers as a file holds them: one alpha for each part of the base, the smallest rank in it.

    diffusers mixes layers' alphas up where they differ. The smallest, so that nothing grows too small for float16.
    """
    found: dict[str, Factors] = {}
    for component in COMPONENTS:
        own = {name: layer for name, layer in layers.items() if component_of(name) == component}
        found |= {name: layer.factors(float(min(one.rank for one in own.values()))) for name, layer in own.items()}
    return found


def _least(change: torch.Tensor, density: float) -> float:
    """The size of the smallest of the numbers that are kept; numpy finds it in a tenth of torch's time."""
    sizes = change.abs().flatten().numpy()
    last = len(sizes) - max(1, round(density * len(sizes)))
    return float(np.partition(sizes, last)[last])


def _elected(changes: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
    """The mean of those numbers that are large enough and have the sign of their sum: (changes, …) -> (…)."""
    trimmed = torch.where(changes.abs() >= least, changes, 0.0)
    agrees = trimmed * trimmed.sum(0) > 0
    return (trimmed * agrees).sum(0) / agrees.sum(0).clamp(min=1)


def _most(terms: Sequence[Term]) -> int:
    """The largest rank that a layer's sum can have."""
    shape = terms[0].layer.shape
    side = min(shape[0], math.prod(shape[1:]))
    return min(side, sum(term.layer.rank if isinstance(term.layer, Factors) else side for term in terms))


def _low_rank(term: Term) -> LowRank:
    """A LoRA's part in a layer as two thin matrices. One of another kind is decomposed, to a millionth."""
    if isinstance(term.layer, Factors):
        return LowRank.of(term.layer, term.weight)
    factors = thin(term.layer, term.weight)
    found = Spectrum.of(factors) if factors else Spectrum.dense(term.layer.change(dtype=torch.float64) * term.weight)
    return found.kept(Keep(energy=_EXACT))


def _single(layer: LowRank) -> LowRank:
    """In float32: as fine as any file, in half the memory."""
    return LowRank(layer.up.float(), layer.down.float(), layer.shape)


def _generator(seed: int, place: int, name: str) -> torch.Generator:
    """Draws of a LoRA's layer alone, whatever else is merged."""
    digest = hashlib.sha256(f"{seed}:{place}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _sides(shape: torch.Size) -> str:
    return " x ".join(map(str, shape))
