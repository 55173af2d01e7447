"""A LoRA file: read, written, and its header.

On disk it is safetensors in kohya's form: per layer `NAME.lora_down.weight` (rank, in), `NAME.lora_up.weight` (out, rank)
and `NAME.alpha` (), with text in the header's metadata. A convolution's are (rank, in, height, width) and (out, rank, 1, 1).
Knows nothing of models: which names fit a base is said elsewhere.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from trainer.errors import LoraFileError, storing
from trainer.home import write_atomically
from trainer.lora.keys import COMPONENTS, component_of
from trainer.lora.layer import product, square
from trainer.tensorfile import Header, read_header

_PARTS = ("lora_down.weight", "lora_up.weight", "alpha")
_FLUX = ("lora_unet_double_blocks_", "lora_unet_single_blocks_")
"""Names that begin like SDXL's and are not."""


@dataclass(frozen=True)
class Factors:
    """The change of one layer: `alpha / rank * up @ down`. `down` is (rank, in), `up` is (out, rank).

    Of a convolution, `down` is (rank, in, height, width) and `up` is (out, rank, 1, 1).
    """

    down: torch.Tensor
    up: torch.Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """Rows of `down`."""
        return self.down.shape[0]

    def on(self, device: torch.device) -> Factors:
        """The same on another device."""
        return Factors(self.down.to(device), self.up.to(device), self.alpha)

    def change(self) -> torch.Tensor:
        """What is added to the weight at weight 1, in the weight's shape, float32."""
        return product(self.up, self.down) * (self.alpha / self.rank)

    @property
    def shape(self) -> torch.Size:
        """The shape of the weight that it is made for."""
        return torch.Size((self.up.shape[0], *self.down.shape[1:]))

    def size(self) -> float:
        """Frobenius norm of the change."""
        return abs(self.alpha / self.rank) * math.sqrt(max(0.0, float(square(self.up.double(), self.down.double()))))


@dataclass(frozen=True)
class LoraFile:
    """A LoRA: its layers by their name in the file, and the header's metadata."""

    name: str
    layers: Mapping[str, Factors]
    metadata: Mapping[str, str]

    @property
    def trigger(self) -> str:
        """The word that calls the style; empty if the file names none."""
        return self.metadata.get("modelspec.trigger_phrase", "")

    @property
    def base_version(self) -> str:
        """`sdxl_base_v1-0`, `impasto_starter`, …; empty if the file does not say."""
        return self.metadata.get("ss_base_model_version", "")

    @classmethod
    def read(cls, path: Path) -> LoraFile:
        """Read and check a file. Raises `LoraFileError`."""
        header = header_of(path)
        try:
            tensors = load(path.read_bytes())
        except (SafetensorError, OSError) as error:
            raise LoraFileError(f"{path.name} is damaged ({error}): download or copy it again.") from None
        grouped: dict[str, dict[str, torch.Tensor]] = {}
        for key, tensor in tensors.items():
            name, _, part = key.partition(".")
            if not torch.isfinite(tensor).all():
                raise LoraFileError(f"{path.name} holds values that are not numbers (NaN) in {key}: its training failed.")
            grouped.setdefault(name, {})[part] = tensor
        if not grouped:
            raise LoraFileError(f"{path.name} holds no LoRA layers.")
        layers = {name: _factors(path, name, parts) for name, parts in sorted(grouped.items())}
        return cls(path.stem, layers, header.metadata)


def header_of(path: Path) -> Header:
    """The header of a LoRA file: whatever else a file is, is refused by its names, unread. Raises `LoraFileError`."""
    header = read_header(path, LoraFileError)
    for key in header.tensors:
        name, _, part = key.partition(".")
        if component_of(name) is None or part not in _PARTS or name.startswith(_FLUX):
            raise LoraFileError(f"{path.name} cannot be used: {_what_it_is(header.tensors)}.")
    return header


def _factors(path: Path, name: str, parts: Mapping[str, torch.Tensor]) -> Factors:
    """One layer from its tensors. A file without alpha means alpha = rank, as everywhere in the field."""
    if "lora_down.weight" not in parts or "lora_up.weight" not in parts:
        raise LoraFileError(f"{path.name} is incomplete: {name} lacks one of its two matrices.")
    down, up = parts["lora_down.weight"], parts["lora_up.weight"]
    if not _fit(up, down):
        raise LoraFileError(f"{path.name} cannot be used: the two matrices of {name} do not fit ({down.shape}, {up.shape}).")
    alpha = parts.get("alpha", torch.tensor(float(down.shape[0])))
    if alpha.numel() != 1:
        raise LoraFileError(f"{path.name} cannot be used: the alpha of {name} is not one number.")
    return Factors(down, up, float(alpha))


def _fit(up: torch.Tensor, down: torch.Tensor) -> bool:
    """Whether two matrices are those of a linear layer, or of a convolution."""
    if up.dim() not in (2, 4) or up.dim() != down.dim() or up.shape[2:].numel() != 1:
        return False
    return up.shape[1] == down.shape[0] > 0


def _what_it_is(tensors: Mapping[str, Any]) -> str:
    """What a file with foreign keys is, as far as the keys tell."""
    known = {
        "lora_te_": "it is a LoRA for Stable Diffusion 1.5 or 2",
        **dict.fromkeys(_FLUX, "it is a LoRA for Flux"),
        "double_blocks.": "it is a LoRA for Flux",
        "transformer.": "it is a LoRA for Flux or Stable Diffusion 3",
        "model.diffusion_model.": "it is a whole checkpoint, not a LoRA",
        "first_stage_model.": "it is a whole checkpoint, not a LoRA",
        "encoder.": "it is a VAE, not a LoRA",
    }
    for start, what in known.items():
        if any(key.startswith(start) for key in tensors):
            return what
    return f"its layers have a form that is not read here, such as {next(iter(tensors))}"


def serialise(layers: Mapping[str, Factors], metadata: Mapping[str, str]) -> bytes:
    """The file's bytes: float16 matrices, float32 alphas, the metadata, and the hashes that other tools look for."""
    tensors = {}
    for name, factors in layers.items():
        tensors[f"{name}.lora_down.weight"] = factors.down.detach().to("cpu", torch.float16).contiguous()
        tensors[f"{name}.lora_up.weight"] = factors.up.detach().to("cpu", torch.float16).contiguous()
        tensors[f"{name}.alpha"] = torch.tensor(float(factors.alpha), dtype=torch.float32)
    return save(tensors, {**metadata, **hashes(tensors, metadata)})


def hashes(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """kohya's two hashes: of the tensor bytes alone, and the older one of 64 KiB at 1 MiB."""
    content = save(dict(tensors), {key: text for key, text in metadata.items() if key.startswith("ss_")})
    body = content[8 + struct.unpack("<Q", content[:8])[0] :]
    legacy = hashlib.sha256(content[0x100000 : 0x100000 + 0x10000]).hexdigest()[:8]
    return {"sshs_model_hash": hashlib.sha256(body).hexdigest(), "sshs_legacy_hash": legacy}


def write(path: Path, layers: Mapping[str, Factors], metadata: Mapping[str, str]) -> None:
    """Write a LoRA file whole or not at all. Raises `StorageError`."""
    with storing(path):
        write_atomically(path, serialise(layers, metadata))


def summary(lora: LoraFile) -> dict[str, Any]:
    """What `impasto inspect` tells, ready for JSON."""
    modules = Counter(component_of(name) for name in lora.layers)
    ranks = Counter(factors.rank for factors in lora.layers.values())
    alphas = Counter(factors.alpha for factors in lora.layers.values())
    norms = {
        part: sum(factors.size() ** 2 for name, factors in lora.layers.items() if component_of(name) == part) ** 0.5
        for part in COMPONENTS
    }
    return {
        "name": lora.name,
        "base": lora.base_version,
        "title": lora.metadata.get("modelspec.title", ""),
        "trigger": lora.trigger,
        "modules": {part: modules.get(part, 0) for part in COMPONENTS},
        "ranks": {str(rank): count for rank, count in sorted(ranks.items())},
        "alphas": {f"{alpha:g}": count for alpha, count in sorted(alphas.items())},
        "change": {part: round(norm, 6) for part, norm in norms.items()},
        "metadata": {key: text for key, text in sorted(lora.metadata.items()) if len(text) <= 2000},
    }
