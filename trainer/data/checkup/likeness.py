"""Which pictures are the same, and which are nearly: groups, in each of which the best comes first.

Knows measures only. Pictures are nearly the same if few bits of their perceptual hashes (ImageHash) differ, and their colours
little.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from trainer.data.checkup.measures import Measure

BITS = 8
"""Of the 64 bits of a hash so many may differ: what is saved, scaled or made brighter changes up to 4, a small crop up to 8."""

COLOURS = 24
"""By so much, of 255, the colours of the quarters may differ on average."""

_HASH = 16
"""Digits of the hash; the colours come after it."""

Groups = list[tuple[str, ...]]


def same(measures: Mapping[str, Measure]) -> Groups:
    """Files of the same content."""
    by_content: dict[str, list[str]] = {}
    for name, measure in measures.items():
        by_content.setdefault(measure.digest, []).append(name)
    return [_ordered(names, measures) for names in by_content.values() if len(names) > 1]


def alike(measures: Mapping[str, Measure]) -> Groups:
    """Pictures that look nearly the same; of files of the same content only one is looked at."""
    names = list({measure.digest: name for name, measure in reversed(list(measures.items()))}.values())
    if len(names) < 2:
        return []
    hashes = np.array([int(measures[name].hash[:_HASH], 16) for name in names], dtype=np.uint64)
    colours = np.array([list(bytes.fromhex(measures[name].hash[_HASH:])) for name in names], dtype=np.int16)
    parents = list(range(len(names)))
    for index in range(1, len(names)):
        close = np.flatnonzero(np.bitwise_count(hashes[:index] ^ hashes[index]) <= BITS)
        near = close[np.abs(colours[close] - colours[index]).mean(axis=1) <= COLOURS]
        for other in near:
            parents[_root(parents, index)] = _root(parents, int(other))
    groups: dict[int, list[str]] = {}
    for index, name in enumerate(names):
        groups.setdefault(_root(parents, index), []).append(name)
    return [_ordered(group, measures) for group in groups.values() if len(group) > 1]


def _root(parents: list[int], index: int) -> int:
    """Whom the group of a picture is known by; the way there is made shorter."""
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = parents[index]
    return index


def _ordered(names: Iterable[str], measures: Mapping[str, Measure]) -> tuple[str, ...]:
    """The best first: that with most true pixels, then the sharper, the less compressed, the one that comes first by name."""

    def worth(name: str) -> tuple[float, float, float, int, str]:
        measure = measures[name]
        width, height = measure.detailed
        return -width * height, -measure.sharpness, measure.blocks, len(name), name

    return tuple(sorted(names, key=worth))
