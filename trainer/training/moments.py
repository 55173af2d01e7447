"""How many bytes each optimizer remembers of the matrices that it trains, in float32 unless said. Knows no torch.

Scalars, such as a matrix's count of steps, are left out: they are nothing beside the reserve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from trainer.sdxl.counts import Matrices
from trainer.settings import OptimizerName

NUMBER = 4
"""Bytes of a number in float32."""

BLOCK = 256
"""Numbers that share a scale in the 8-bit AdamW of bitsandbytes."""

LEAST_IN_8_BITS = 4096
"""Smaller matrices it keeps in float32."""


def remembered(optimizer: OptimizerName, trained: Iterable[Matrices]) -> int:
    """Bytes of the optimizer's state for these matrices, from the first step on."""
    return sum(each.number * _BYTES[optimizer](each) for each in trained)


def _one(matrix: Matrices) -> int:
    """Lion: a mean of the gradients (arXiv 2302.06675)."""
    return NUMBER * matrix.size


def _two(matrix: Matrices) -> int:
    """AdamW: means of the gradients and of their squares; schedule-free AdamW: z and the latter (arXiv 2405.15682)."""
    return 2 * NUMBER * matrix.size


def _rounded(matrix: Matrices) -> int:
    """AdamW in 8 bits: both means, each with a scale for every block (arXiv 2110.02861)."""
    if matrix.size < LEAST_IN_8_BITS:
        return _two(matrix)
    return 2 * (matrix.size + NUMBER * -(-matrix.size // BLOCK))


def _factored(matrix: Matrices) -> int:
    """Adafactor without momentum: means of the squares along both of the last axes (arXiv 1804.04235)."""
    *_, rows, columns = matrix.shape
    return NUMBER * (matrix.size // rows + matrix.size // columns)


def _prodigy(matrix: Matrices) -> int:
    """Prodigy: AdamW's two, s, and where the matrix began, which is not kept of zeros (arXiv 2306.06101)."""
    return (3 if matrix.zero else 4) * NUMBER * matrix.size


def _free_prodigy(matrix: Matrices) -> int:
    """prodigyplus: schedule-free AdamW's two; s and the beginning in bfloat16, of every eleventh number."""
    return _two(matrix) + (1 if matrix.zero else 2) * 2 * -(-matrix.size // 11)


_BYTES: dict[OptimizerName, Callable[[Matrices], int]] = {
    "adamw": _two,
    "adamw8bit": _rounded,
    "adafactor": _factored,
    "lion": _one,
    "prodigy": _prodigy,
    "schedulefree_adamw": _two,
    "schedulefree_prodigy": _free_prodigy,
}
