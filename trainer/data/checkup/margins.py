"""What is at a picture's edges: a frame of one colour, and what may be a watermark or a signature in a corner.

Arithmetic on arrays of numbers from 0 to 255. Knows no files.
"""

from __future__ import annotations

import numpy as np

from trainer.data.checkup.looks import Values

Border = tuple[int, int, int, int]
"""Pixels of frame at the left, top, right and bottom."""

SAME = 10
"""Colours that differ by no more than this, of 255, are one: JPEG leaves as much."""

NEARLY_ALL = 0.985
"""Share of a line that must be of one colour for it to belong to a frame."""

STRAIGHT = 0.4
"""Share of the line behind a frame that must be of other colours: a plain background ends with a subject's tip instead."""

RINGING = 12
"""Lines before a frame's inner edge that JPEG may have disturbed."""

THINNEST = 3
"""Pixels; a thinner frame may be an accident of scaling."""

DEEPEST = 0.4
"""Share of a side that is searched for a frame."""

COPY = 512
"""Longest side of the copy in which letters are looked for, in pixels."""

CELL = 8
"""Side of its parts, each of which is full of strokes or not."""

STROKE = 3
"""So many pixels to either side of a stroke are of another brightness."""

STRONG = 22.0
"""By how much, of 255, they differ at least."""

FINER = 1.5
"""A stroke stands out so many times from the 98th percentile of the whole picture, which may be full of fine texture."""

FULL = 0.12
"""Share of a part's pixels that are strokes, in letters."""

FEWEST = 5
"""So many full parts are letters at least."""

CORNER = (0.2, 0.45)
"""How far a corner reaches, as shares of height and width."""


def border(colours: Values) -> Border:
    """How many pixels of frame each side has: lines of one colour, which end at a straight edge. 0 where there is none."""
    turned = colours.transpose(1, 0, 2)
    left, right = _depth(turned), _depth(turned[::-1])
    top, bottom = _depth(colours), _depth(colours[::-1])
    return left, top, right, bottom


def _depth(lines: Values) -> int:
    """How many of the first lines are frame."""
    colour = np.median(lines[0], axis=0)
    end = -RINGING - 1
    for count in range(min(round(len(lines) * DEEPEST), len(lines) - 1)):
        other = float((np.abs(lines[count] - colour).max(axis=1) > SAME).mean())
        if other >= STRAIGHT:
            return count if count >= THINNEST else 0
        if other <= 1 - NEARLY_ALL:
            end = count
        elif count > end + RINGING:
            return 0
    return 0


def corner(grey: Values) -> float:
    """Which share of all that looks like small letters is in one short row in a corner, from 0 to 1; 0 where too little does.

    A rough guess, from a copy no larger than `COPY`.
    """
    high, wide = grey.shape[0] // CELL, grey.shape[1] // CELL
    if min(high, wide) < 16:
        return 0.0
    strokes = _strokes(grey)
    strong = strokes > max(STRONG, FINER * float(np.percentile(strokes[::2, ::2], 98)))
    full = strong[: high * CELL, : wide * CELL].reshape(high, CELL, wide, CELL).mean(axis=(1, 3)) > FULL
    deep, broad = round(high * CORNER[0]), round(wide * CORNER[1])
    corners = (part for rows in (full[:deep], full[-deep:]) for part in (rows[:, :broad], rows[:, -broad:]))
    most = max(int(part[row : row + 3].sum()) for part in corners for row in range(deep - 2))
    return most / float(full.sum()) if most >= FEWEST else 0.0


def _strokes(grey: Values) -> Values:
    """By how much each pixel is brighter, or darker, than those at both its sides: what is thin is, and an edge is not."""
    found: Values = np.zeros(grey.shape, np.float32)
    for values, strokes in ((grey, found), (grey.T, found.T)):
        middle = values[:, STROKE:-STROKE]
        before, behind = middle - values[:, : -2 * STROKE], middle - values[:, 2 * STROKE :]
        thin = np.maximum(np.minimum(before, behind), np.minimum(-before, -behind))
        strokes[:, STROKE:-STROKE] = np.maximum(strokes[:, STROKE:-STROKE], thin)
    return found
