"""What a picture's pixels tell of how it was made: how far its detail goes, whether it was enlarged or hard compressed.

Arithmetic on arrays of brightness from 0 to 255, `(height, width)`. Each answer is a guess: a soft drawing and a blurred
photograph differ only in what was meant. Knows neither files nor what is too little.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Values = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

TILE = 128
"""Side of the parts in which detail is looked for, in pixels: a sharp subject before a blurred background is sharp."""

ROWS = 4
"""Of a tile's lines every fourth is looked at."""

ANCHOR = 4
"""The frequency that others are compared with, in 64ths of the highest one: waves of 32 pixels."""

STEEPEST = 9.0
"""Decibels per octave by which power falls at most where nothing is blurred: at edges it is 6, in photographs 6 to 9."""

SPARE = 1.5
"""Decibels that do not count."""

FLAT = 15.0
"""A tile with less power than this, in decibels, at the anchor holds nothing that could be sharp."""

SHARP_SHARE = 80
"""So many percent of the tiles may be softer than what is told of the picture."""

MOST_LOOKED_AT = 1024
"""Longest side, in pixels, of the middle part in which traces are looked for."""

LEAST_LOOKED_AT = 96

CLEAR = 10.0
"""A trace is one if it stands out so many times from what is usual at other frequencies."""

VISIBLE = 0.5
"""Differences of less than this, of 255, are not seen, whatever share of the others they are."""

BEYOND_BLOCKS = {1 / 2: 2.3, 1 / 4: 1.2}
"""At frequencies where JPEG's blocks leave a trace too, it must be so many times as strong as at those where only they do."""


def sharpness(grey: Values) -> float:
    """Up to which share of the highest frequency detail goes: 1 where nothing is missing, 1/2 where half the pixels would do.

    Of each tile the power spectrum of its rows and columns is followed until it falls below what edges and photographs have;
    told is the tile that few are sharper than. 1 if there is nothing to tell it by.
    """
    high, wide = grey.shape[0] // TILE, grey.shape[1] // TILE
    if not high or not wide:
        return 1.0
    tiles = grey[: high * TILE, : wide * TILE].reshape(high, TILE, wide, TILE)
    power = _power(tiles.transpose(0, 2, 1, 3)) + _power(tiles.transpose(0, 2, 3, 1))
    level = 10 * np.log10(power + 1e-3)
    anchor = level[:, ANCHOR - 1 : ANCHOR + 2].mean(axis=1)
    level = level[anchor > FLAT]
    if not len(level):
        return 1.0
    shares = np.arange(ANCHOR, level.shape[1])
    wanted = anchor[anchor > FLAT, None] - STEEPEST * np.log2(shares / ANCHOR) - SPARE
    there = level[:, ANCHOR:] >= wanted
    reach = np.where(there.all(axis=1), shares[-1], shares[np.argmin(there, axis=1)]) / shares[-1]
    return float(np.percentile(reach, SHARP_SHARE))


def _power(tiles: Values) -> Values:
    """The mean power spectrum of the lines of each tile, (tiles, frequencies)."""
    lines = np.ascontiguousarray(tiles.reshape(-1, TILE, TILE)[:, ::ROWS])
    window = np.hanning(TILE).astype(np.float32)
    spectrum = np.fft.rfft((lines - lines.mean(axis=2, keepdims=True)) * window, axis=2)
    power: Values = (np.abs(spectrum) ** 2).mean(axis=1) / np.float32(2 * TILE * np.mean(window**2))
    return power


class Traces(NamedTuple):
    """What repeats itself in a picture at even distances, and should not."""

    blocks: float
    """How much the differences between neighbours vary with JPEG's blocks of 8 pixels, as a share of their mean."""
    enlarged: float
    """By how much the sides were probably multiplied; 1 if nothing tells that they were."""


NO_TRACES = Traces(0.0, 1.0)


def traces(grey: Values, sharp: float) -> Traces:
    """What JPEG and an enlargement left behind in a picture whose `sharpness` is known.

    An interpolated pixel differs from its neighbour the less, the nearer both are to the same original one, so differences
    repeat themselves with the period of the enlargement (Gallagher, Detection of Linear and Cubic Interpolation in JPEG
    Compressed Images, 2005); those of JPEG do so every 8 pixels.
    """
    if min(grey.shape) < LEAST_LOOKED_AT:
        return NO_TRACES
    top, left = (max(0, (side - MOST_LOOKED_AT) // 2) for side in grey.shape)
    middle = grey[top : top + MOST_LOOKED_AT, left : left + MOST_LOOKED_AT]
    across, down = _Waves.of(middle), _Waves.of(middle.T)
    found = across.period, down.period
    enlarged = 1.0
    if all(found) and abs(found[0] - found[1]) < 0.02:
        frequency = sum(found) / 2
        often = sharp < 0.5  # the waves of an enlargement by 3 are those of one by 1.5
        enlarged = 1 / frequency if often or frequency > 0.45 else 1 / (1 - frequency)
    return Traces(min(across.blocks, down.blocks), enlarged)


class _Waves(NamedTuple):
    """How the mean difference between neighbouring columns varies: from column to column, and at each frequency."""

    ripple: Values
    """By how much each column's mean is above what is usual around it, as a share of that."""
    strength: Values
    """From frequency 0 to one wave in two pixels."""

    @classmethod
    def of(cls, grey: Values) -> _Waves:
        """Of the columns of a picture; single strong edges count as weak ones."""
        differences = np.abs(np.diff(grey, axis=1))
        weak = 3 * float(np.median(differences[::8, ::4])) + 3
        columns = np.minimum(differences, weak).mean(axis=0)
        columns = columns[: len(columns) // 24 * 24]  # so that waves of 2, 3, 4 and 8 pixels are whole frequencies
        near = np.convolve(np.pad(columns, 16, mode="reflect"), np.full(33, 1 / 33, np.float32), "valid")
        ripple = columns / (near + VISIBLE) - 1
        strength = np.abs(np.fft.rfft(ripple * np.hanning(len(ripple)))) * 4 / len(ripple)
        return cls(ripple.astype(np.float32), strength.astype(np.float32))

    def at(self, frequency: float) -> float:
        """The strength at a frequency, in waves a pixel."""
        place = round(frequency * 2 * (len(self.strength) - 1))
        return float(self.strength[place - 1 : place + 2].max())

    @property
    def blocks(self) -> float:
        """How far the columns at the edges of blocks are above those in the blocks' middles, wherever the blocks begin.

        What repeats itself every 2 or 4 pixels is the same at both. Of a place in the blocks the middle half of its columns
        counts: in a flat drawing a few columns hold all its edges.
        """
        columns = np.sort(self.ripple.reshape(-1, 8), axis=0)
        quarter = len(columns) // 4
        phases = columns[quarter : len(columns) - quarter].mean(axis=0)
        return float((phases - np.roll(phases, 4)).max())

    @property
    def period(self) -> float:
        """The frequency of what an enlargement left; 0 if nothing is clear."""
        frequencies = np.arange(len(self.strength)) / (2 * (len(self.strength) - 1))
        fine = frequencies > 0.2
        found, strongest = 0.0, CLEAR * float(np.median(self.strength[fine]))
        blocks = max(self.at(1 / 8), self.at(3 / 8))
        for frequency, times in BEYOND_BLOCKS.items():
            if self.at(frequency) > max(strongest, times * blocks):
                found, strongest = frequency, self.at(frequency)
        of_blocks = np.abs(frequencies * 8 - np.round(frequencies * 8)) < 0.05
        other = int(np.argmax(np.where(fine & ~of_blocks, self.strength, 0)))
        return float(frequencies[other]) if self.strength[other] > strongest else found
