"""A LoRA file: read, written, and its header.

Written is safetensors in kohya's form: per layer `NAME.lora_down.weight` (rank, in), `NAME.lora_up.weight` (out, rank)
and `NAME.alpha` (), with text in the header's metadata. A convolution's are (rank, in, height, width) and (out, rank, 1, 1).
Read is every form of `trainer.lora.forms` and every kind of `trainer.lora.delta`. Knows nothing of models: which names fit a
base is said elsewhere.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch

from trainer.errors import LoraFileError, storing
from trainer.home import write_blocks
from trainer.lora.assembly import Misfit, layer_of
from trainer.lora.contents import Contents, contents_of
from trainer.lora.delta import Factors as Factors
from trainer.lora.delta import Layer
from trainer.lora.keys import COMPONENTS, component_of
from trainer.lora.serial import pieces
from trainer.tensorfile import TensorInfo

_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
"""Types of numbers by their name in a header."""


@dataclass(frozen=True)
class LoraFile:
    """A LoRA: its layers by their name in kohya's form, whatever form the file has, and the header's metadata."""

    name: str
    layers: Mapping[str, Layer]
    metadata: Mapping[str, str]
    ignored: Mapping[str, str] = field(default_factory=dict)
    """What is left aside: the key in the file, and the reason."""
    unknown: tuple[str, ...] = ()
    """Keys of the file that are none of a LoRA for SDXL, and are left aside as well."""

    @property
    def trigger(self) -> str:
        """The word that calls the style; empty if the file names none."""
        return self.metadata.get("modelspec.trigger_phrase", "")

    @property
    def base_version(self) -> str:
        """`sdxl_base_v1-0`, `impasto_starter`, …; empty if the file does not say."""
        return self.metadata.get("ss_base_model_version", "")

    @property
    def factors(self) -> dict[str, Factors]:
        """The plain layers alone: all that Impasto itself writes."""
        return {name: layer for name, layer in self.layers.items() if isinstance(layer, Factors)}

    @classmethod
    def read(cls, path: Path) -> LoraFile:
        """Read and check a file of any of the forms that are known. Raises `LoraFileError`."""
        contents = contents_of(path)
        tensors = _tensors(path, contents)
        layers = {}
        for name, parts in sorted(contents.parts.items()):
            try:
                layers[name] = layer_of(name, {part: tensors[key] for part, key in parts.items()}, contents.alphas.get(name))
            except Misfit as misfit:
                raise LoraFileError(f"{path.name} cannot be used: {misfit}.") from None
        return cls(path.stem, layers, contents.header.metadata, contents.ignored, contents.unknown)


def _tensors(path: Path, contents: Contents) -> dict[str, torch.Tensor]:
    """The tensors that are used, read in the order in which they lie in the file. All are checked before any is kept."""
    listed = contents.header.tensors
    keys = [key for parts in contents.parts.values() for key in parts.values()]
    keys.sort(key=lambda key: listed[key].begin)
    try:
        with path.open("rb") as file:
            for key in keys:
                if not _finite(_numbers(file, contents.header.size, listed[key])):
                    raise LoraFileError(f"{path.name} holds values that are not numbers (NaN) in {key}: its training failed.")
            return {key: _numbers(file, contents.header.size, listed[key]).view(listed[key].shape) for key in keys}
    except (OSError, ValueError) as error:
        raise LoraFileError(f"{path.name} is damaged ({error}): download or copy it again.") from None


def _numbers(file: BufferedReader, start: int, info: TensorInfo) -> torch.Tensor:
    """A tensor's numbers in a row; the first tensor of the file begins at `start`. Raises `OSError`, `ValueError`."""
    file.seek(start + info.begin)
    content = bytearray(info.end - info.begin)
    if file.readinto(content) != len(content):
        raise ValueError("it has become shorter since its header was read")
    return torch.frombuffer(content, dtype=_TYPES[info.dtype]) if content else torch.empty(0)


def _finite(numbers: torch.Tensor) -> bool:
    """Whether all are: NaN is the least and the most of all that has one, and that is found in a twentieth of the time."""
    if not numbers.numel():
        return True
    least, most = (numbers.float() if numbers.itemsize == 1 else numbers).aminmax()
    return math.isfinite(least) and math.isfinite(most)


def lossless(tensors: Iterable[torch.Tensor]) -> torch.dtype:
    """float16 if it loses at most a millionth of each matrix, else float32."""
    fits = all((one - one.half().float()).norm() <= 1e-6 * one.norm() for one in tensors)
    return torch.float16 if fits else torch.float32


def serialise(layers: Mapping[str, Factors], metadata: Mapping[str, str], dtype: torch.dtype = torch.float16) -> bytes:
    """The file's bytes: matrices of that type, float32 alphas, the metadata, and the hashes that other tools look for."""
    return b"".join(pieces(_kohya(layers, dtype), metadata))


def write(path: Path, layers: Mapping[str, Factors], metadata: Mapping[str, str], dtype: torch.dtype = torch.float16) -> None:
    """Write a LoRA file whole or not at all. Raises `StorageError`."""
    with storing(path):
        write_blocks(path, pieces(_kohya(layers, dtype), metadata))


def _kohya(layers: Mapping[str, Factors], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The tensors of kohya's form."""
    tensors = {}
    for name, factors in layers.items():
        tensors[f"{name}.lora_down.weight"] = factors.down.detach().to("cpu", dtype)
        tensors[f"{name}.lora_up.weight"] = factors.up.detach().to("cpu", dtype)
        tensors[f"{name}.alpha"] = torch.tensor(float(factors.alpha), dtype=torch.float32)
    return tensors


def summary(lora: LoraFile) -> dict[str, Any]:
    """What `impasto inspect` tells beside the anatomy, ready for JSON."""
    modules = Counter(component_of(name) for name in lora.layers)
    layers = lora.layers.values()
    kinds = Counter(layer.kind for layer in layers)
    ranks = Counter(layer.rank for layer in layers)
    alphas = Counter(float(f"{layer.scale * layer.rank:g}") for layer in layers if layer.rank)
    return {
        "name": lora.name,
        "base": lora.base_version,
        "title": lora.metadata.get("modelspec.title", ""),
        "trigger": lora.trigger,
        "modules": {part: modules.get(part, 0) for part in COMPONENTS},
        "kinds": dict(sorted(kinds.items())),
        "ranks": {str(rank): count for rank, count in sorted(ranks.items())},
        "alphas": {f"{alpha:g}": count for alpha, count in sorted(alphas.items())},
        "ignored": dict(sorted(Counter(lora.ignored.values()).items())),
        "unknown": list(lora.unknown),
        "metadata": {key: text for key, text in sorted(lora.metadata.items()) if len(text) <= 2000},
    }
