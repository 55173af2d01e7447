"""The ways in which LoRA files are made from others: how they are merged, how much is kept, the forms of export. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from trainer.errors import UsageError

Method = Literal["exact", "svd", "ties", "dare"]
METHODS: tuple[Method, ...] = get_args(Method)

Form = Literal["diffusers", "kohya"]
FORMS: tuple[Form, ...] = get_args(Form)

Only = Literal["unet", "text"]
"""The U-Net's layers, or those of the text encoders."""
ONLY: tuple[Only, ...] = get_args(Only)


@dataclass(frozen=True)
class Keep:
    """How much of a change is kept: at most a rank, or the least rank with a share of the squared Frobenius norm.

    Neither is all. Raises `UsageError`.
    """

    rank: int | None = None
    energy: float | None = None

    def __post_init__(self) -> None:
        """One of them, and within its bounds."""
        if self.rank is not None and self.energy is not None:
            raise UsageError("Name either a rank or a share of energy to keep, not both.")
        if self.rank is not None and not 1 <= self.rank <= 4096:
            raise UsageError(f"The rank must be a whole number from 1 to 4096, not {self.rank}.")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise UsageError(f"The energy to keep must be above 0 and at most 1, not {self.energy:g}.")


ALL = Keep()


@dataclass(frozen=True)
class Merging:
    """How LoRAs are made one: see `merge.py`. Raises `UsageError` for what does not go together."""

    method: Method = "exact"
    keep: Keep = ALL
    density: float | None = None
    """The share of each change's numbers that TIES and DARE keep, half of them unless it is said."""
    seed: int | None = None
    """Of DARE's draws, 0 unless it is said."""
    equal_strength: bool = False
    """Whether weights are multiplied so that at equal ones all LoRAs change the U-Net equally much."""

    def __post_init__(self) -> None:
        """Say what is wrong before anything is read."""
        elects = self.method in ("ties", "dare")
        if self.method == "exact" and self.keep != ALL:
            raise UsageError("The exact method keeps everything: leave out the rank and the energy, or choose --method svd.")
        if self.method != "exact" and self.keep == ALL:
            raise UsageError("How much is to be kept? Give --rank, such as 32, or --energy, such as 0.98.")
        if self.density is not None and not elects:
            raise UsageError(f"A density is for ties and dare: {self.method} keeps every number.")
        if self.seed is not None and self.method != "dare":
            raise UsageError(f"A seed is for dare, which alone draws: leave it out for {self.method}.")
        if not 0 < self.share <= 1:
            raise UsageError(f"The density must be above 0 and at most 1, not {self.share:g}.")

    @property
    def share(self) -> float:
        """The density that counts."""
        return 0.5 if self.density is None else self.density
