"""What the header of a LoRA file that was made from others tells: of what, how, and for which base. Knows no numbers of layers.

`impasto.recipe` is JSON: method, rank or energy, and each input by name, hash and weights, so that a merge can be made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainer import __version__
from trainer.errors import LoraFileError
from trainer.lora.delta import Factors
from trainer.lora.file import LoraFile
from trainer.lora.ways import Merging
from trainer.tensorfile import read_header

_SHARED = (
    "ss_v2", "ss_sd_model_name", "ss_sd_model_hash", "ss_new_sd_model_hash", "ss_zero_terminal_snr", "ss_training_comment",
    "modelspec.prediction_type", "modelspec.resolution", "modelspec.license", "modelspec.usage_hint",
    "impasto.base_family", "impasto.base_fingerprint",
)  # fmt: skip
"""What a merged file goes on telling if all its inputs tell the same."""

_STALE = ("ss_network_args", "lora_adapter_metadata")
"""What a LoRA tells of its form, in another's words; diffusers loads no file that has both alphas and the second."""

_BLOCK = 2**22


@dataclass(frozen=True)
class Source:
    """A LoRA that another one is made from, with its weights."""

    lora: LoraFile
    digest: str
    """What `sshs_model_hash` is to be for its tensors."""
    unet: float = 1.0
    text: float = 1.0
    blocks: Mapping[str, float] = field(default_factory=dict)
    """Factors of the U-Net's weight in blocks of it."""

    def to_json(self) -> dict[str, Any]:
        """As the recipe holds it."""
        told = {"name": self.lora.name, "hash": self.digest, "unet": self.unet, "text": self.text}
        return {**told, "blocks": dict(self.blocks)} if self.blocks else told


def model_hash(path: Path) -> str:
    """SHA-256 of a file's tensors, as kohya's `sshs_model_hash` is made: known even where the header does not tell it.

    Raises `LoraFileError`.
    """
    digest, begin = hashlib.sha256(), read_header(path, LoraFileError).size
    try:
        with path.open("rb") as file:
            file.seek(begin)
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise LoraFileError(f"{path} cannot be read ({error.strerror or error}).") from None
    return digest.hexdigest()


def recipe(sources: Sequence[Source], method: str, **how: float) -> str:
    """The recipe in the header: the way, its numbers, and what it was made from."""
    return json.dumps({"method": method, **how, "inputs": [source.to_json() for source in sources]}, ensure_ascii=False)


def _recipe(sources: Sequence[Source], how: Merging) -> str:
    numbers: dict[str, float | None] = {"rank": how.keep.rank, "energy": how.keep.energy}
    if how.method in ("ties", "dare"):
        numbers["density"] = how.share
    if how.method == "dare":
        numbers["seed"] = how.seed or 0
    if how.equal_strength:
        numbers["equal_strength"] = True
    return recipe(sources, how.method, **{name: number for name, number in numbers.items() if number is not None})


def of_merge(sources: Sequence[Source], how: Merging, name: str, layers: Mapping[str, Factors]) -> dict[str, str]:
    """The metadata of a merged file: of its base what all inputs agree on, of the styles all trigger words."""
    headers = [source.lora.metadata for source in sources]
    versions = {source.lora.base_version for source in sources} - {""}
    weights = " + ".join(f"{source.lora.name} {_weights(source)}" for source in sources)
    told = {
        **{key: _common(headers, key) for key in _SHARED},
        "ss_base_model_version": versions.pop() if len(versions) == 1 else "sdxl_base_v1-0",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": _common(headers, "modelspec.architecture") or "stable-diffusion-xl-v1-base/lora",
        "modelspec.title": name,
        "modelspec.description": f"Merged from {weights} ({how.method}{', at equal strength' * how.equal_strength}).",
        "modelspec.tags": "style",
        "modelspec.trigger_phrase": ", ".join(dict.fromkeys(source.lora.trigger for source in sources if source.lora.trigger)),
        "modelspec.merged_from": ", ".join(source.lora.name for source in sources),
        **_of_this(name, layers),
        "impasto.recipe": _recipe(sources, how),
    }
    return {key: text for key, text in told.items() if text}


def of_resize(source: Source, how: Merging, name: str, layers: Mapping[str, Factors]) -> dict[str, str]:
    """The metadata of a LoRA that was made smaller: its own, and how."""
    kept = {key: text for key, text in source.lora.metadata.items() if key not in _STALE}
    return {**kept, **_of_this(name, layers), "impasto.recipe": _recipe([source], how)}


def _of_this(name: str, layers: Mapping[str, Factors]) -> dict[str, str]:
    """What every file that is made here tells of its form; kohya's word for what differs from layer to layer is `Dynamic`."""
    ranks, alphas = {layer.rank for layer in layers.values()}, {layer.alpha for layer in layers.values()}
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(ranks.pop()) if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": f"{alphas.pop():g}" if len(alphas) == 1 else "Dynamic",
        "ss_output_name": name,
        "modelspec.implementation": f"impasto/{__version__}",
        "modelspec.date": datetime.now(UTC).replace(microsecond=0).isoformat(),
    }


def _common(headers: Sequence[Mapping[str, str]], key: str) -> str:
    """What all headers tell under a key; empty if they differ."""
    told = {header.get(key, "") for header in headers}
    return told.pop() if len(told) == 1 else ""


def _weights(source: Source) -> str:
    """0.8, or 0.8/0.4 where the text encoders have another."""
    return f"{source.unet:g}" if source.unet == source.text else f"{source.unet:g}/{source.text:g}"
