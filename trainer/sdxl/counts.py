"""How much SDXL's models take of any machine: bytes, operations, launches. Counted once and kept on the disk.

Knows no torch: what is not kept yet is counted by `counting.py`, which is loaded only then. Knows nothing of cards.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainer.bases.layout import FOLDERS
from trainer.bases.names import Part
from trainer.bases.source import CONFIGS as SDXL_CONFIGS
from trainer.bases.source import Facts
from trainer.home import write_atomically
from trainer.lora.keys import Component
from trainer.lora.shape import Shape
from trainer.settings import Packing, Precision, Recompute

_PACKAGE = Path(__file__).resolve().parents[1]
_COUNTED_CODE = (
    "sdxl/counting.py", "sdxl/recompute.py", "sdxl/quantise.py",
    "lora/adapter.py", "lora/keys.py", "lora/layer.py", "lora/shape.py",
)  # fmt: skip


@dataclass(frozen=True)
class Count:
    """What a computation takes."""

    saved: int
    """Bytes that the forward pass keeps for the backward pass, without weights."""
    peak: int
    """Most bytes alive at any time, `saved` among them, without weights."""
    flops: int
    """Floating-point operations; a multiplication and an addition are two."""
    traffic: int
    """Bytes read and written by all operations, each on its own."""
    launches: int
    """Operations that do something."""

    def times(self, factor: float) -> Count:
        """For pictures of `factor` times the area together, whose operations are as many."""
        saved, peak, flops, traffic = (round(value * factor) for value in (self.saved, self.peak, self.flops, self.traffic))
        return Count(saved, peak, flops, traffic, self.launches)

    def then(self, other: Count, times: int = 1) -> Count:
        """This computation and `times` the other, one after the other."""
        return Count(
            self.saved,
            max(self.peak, other.peak),
            self.flops + times * other.flops,
            self.traffic + times * other.traffic,
            self.launches + times * other.launches,
        )


@dataclass(frozen=True)
class Matrices:
    """Trained matrices of one shape."""

    shape: tuple[int, ...]
    number: int
    zero: bool
    """Whether they begin as zeros."""

    @property
    def size(self) -> int:
        """Numbers in each of them."""
        return math.prod(self.shape)


def configs_of(facts: Facts) -> Path:
    """The folder with the configs of a base's models: its own, or SDXL's, whose shapes all its descendants have."""
    return facts.place if facts.place and facts.place.is_dir() else SDXL_CONFIGS


@dataclass(frozen=True)
class Subject:
    """What is counted: a base, an adapter, a size of pictures."""

    configs: Path
    """A folder with the configs of a base's models."""
    trained: tuple[Component, ...]
    shape: Shape
    """Of the LoRA; its scale is never counted."""
    side: int
    """Of a square picture in pixels, a multiple of 32."""
    half: bool
    """Whether it is computed in 16 bits, or in 32."""
    fused: bool = True
    """Whether attention is computed without keeping the score of every pair."""

    @property
    def reads(self) -> bool:
        """Whether a text encoder is trained, so that reading captions is a part of a step."""
        return self.trained != ("unet",)

    @property
    def name(self) -> str:
        """A name for everything that the figures depend on."""
        digest = hashlib.sha256(repr((self.trained, self.shape, self.side, self.half, self.fused)).encode())
        for package in ("torch", "diffusers", "transformers"):
            digest.update(version(package).encode())
        for module in _COUNTED_CODE:
            digest.update(_PACKAGE.joinpath(module).read_bytes())
        for folder in FOLDERS.values():
            path = self.configs / folder / "config.json"
            digest.update(path.read_bytes() if path.is_file() else b"")
        return digest.hexdigest()[:32]


class Counts:
    """The figures of a subject, each counted when it is first asked for."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        """They are kept in `folder`, which may be deleted at any time."""
        self.subject = subject
        self._path = folder / f"{subject.name}.json"
        self._kept = self._read()

    def _read(self) -> dict[str, Any]:
        try:
            kept: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return kept

    def step(self, how: Recompute) -> Count:
        """A training step on one square picture; its captions are read in it only where a text encoder is trained."""
        return self._count(f"step {how}", lambda: _counting().count_step(self.subject, how))

    def reading(self) -> Count:
        """Both text encoders on one caption, where neither is trained."""
        return self._count("reading", lambda: _counting().count_reading(self.subject))

    def guided(self) -> Count:
        """The U-Net once with and once without the prompt, as every step of drawing takes it."""
        return self._count("guided", lambda: _counting().count_unet(self.subject, batch=2))

    def decode(self, side: int) -> Count:
        """The VAE from latents to a square picture."""
        return self._count(f"decode {side}", lambda: _counting().count_decode(self.subject, side))

    def encode(self, side: int) -> Count:
        """The VAE from a square picture to latents."""
        return self._count(f"encode {side}", lambda: _counting().count_encode(self.subject, side))

    def unpacking(self, packing: Packing) -> Count:
        """Every packed layer of the base once made whole."""
        return self._count(f"unpacking {packing}", lambda: _counting().count_unpacking(self.subject, packing))

    def weights(self, precision: Precision) -> dict[Part, int]:
        """Bytes of each model's weights; the VAE's are always float32."""
        return self._figures(f"weights {precision}", lambda: _counting().count_weights(self.subject, precision))

    def parameters(self) -> int:
        """Weights of the U-Net and the text encoders."""
        return sum(size for part, size in self.weights("fp32").items() if part != "vae") // 4

    def matrices(self) -> dict[Component, list[Matrices]]:
        """The matrices of each part that is trained."""
        kept = self._figures("matrices", lambda: _counting().count_matrices(self.subject))
        return {part: [Matrices(tuple(shape), *others) for shape, *others in found] for part, found in kept.items()}

    def lora(self) -> dict[Component, int]:
        """Trainable parameters of each part that is trained."""
        return {part: sum(each.number * each.size for each in found) for part, found in self.matrices().items()}

    def mixable(self) -> int:
        """Bytes of the layers that LoRAs may change when they are mixed in."""
        mixable: int = self._figures("mixable", lambda: {"all": _counting().count_mixable(self.subject)})["all"]
        return mixable

    def _count(self, name: str, count: Callable[[], Count]) -> Count:
        return Count(**self._figures(name, lambda: dataclasses.asdict(count())))

    def _figures(self, name: str, count: Callable[[], dict[Any, Any]]) -> dict[Any, Any]:
        if name not in self._kept:
            counted = count()
            self._kept = {**self._read(), name: counted}  # another process may count the same
            with suppress(OSError):  # what cannot be kept is counted again
                write_atomically(self._path, json.dumps(self._kept).encode())
        figures: dict[Any, Any] = self._kept[name]
        return figures


def _counting() -> Any:
    """The module that counts, which needs torch and seconds to load."""
    from trainer.sdxl import counting

    return counting
