"""What a LoRA file holds, from its header alone: which tensor is what of which layer, and what is left aside and why.

Knows neither torch nor the tensors' numbers.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import LoraFileError
from trainer.lora.forms import Ignored, Key, Part, Refused, other_base, read_key, what_it_is
from trainer.lora.keys import Component
from trainer.tensorfile import Header, TensorInfo, read_header

TYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4}
"""Bytes of a number by its type. Whole numbers are what diffusers' converter writes alphas in."""

_ALONE = "of a layer that has no matrices"
_VECTOR = "a norm's weight: only linear layers and convolutions are mixed"


@dataclass(frozen=True)
class Told:
    """A layer's alpha as a file tells it elsewhere than in its tensors."""

    alpha: float
    rank: int
    """As told; of a layer, its own tensors say it."""
    rslora: bool

    @property
    def scale(self) -> float:
        """What the change is multiplied by."""
        return self.of(self.rank) / self.rank

    def of(self, rank: int) -> float:
        """The alpha that gives this scale as alpha / rank: rsLoRA divides by the root of the rank (arXiv 2312.03732)."""
        return self.alpha * math.sqrt(rank) if self.rslora else self.alpha


@dataclass(frozen=True)
class Contents:
    """A LoRA file's tensors, sorted. `parts` are the keys in the file by layer, in our name, and by what they are of it."""

    header: Header
    parts: Mapping[str, Mapping[Part, str]]
    alphas: Mapping[str, Told]
    """By layer; only where the file tells them."""
    ignored: Mapping[str, str]
    """Known and left aside: the key in the file and the reason."""
    unknown: tuple[str, ...]


def contents_of(path: Path) -> Contents:
    """Sort what a file lists. Whatever holds nothing that can be used is refused by its names, unread.

    Raises `LoraFileError`.
    """
    header = read_header(path, LoraFileError)
    if not header.tensors:
        raise LoraFileError(f"{path.name} holds no LoRA layers.")
    if what := other_base(header.tensors):
        raise LoraFileError(f"{path.name} cannot be used: {what}.")
    parts: dict[str, dict[Part, str]] = {}
    paths: dict[str, Key] = {}
    ignored: dict[str, str] = {}
    unknown = []
    for key, tensor in header.tensors.items():
        match read_key(key):
            case Key(part="diff") if len(tensor.shape) == 1:  # ComfyUI names norms as it names layers
                ignored[key] = _VECTOR
            case Key() as found:
                if found.part in parts.setdefault(found.name, {}):
                    raise LoraFileError(f"{path.name} cannot be used: it holds {found.name} twice, by two names.")
                _check(path, key, tensor)
                parts[found.name][found.part] = key
                paths[found.name] = found
            case Ignored(reason):
                ignored[key] = reason
            case Refused(kind):
                raise LoraFileError(
                    f"{path.name} cannot be used: it is of the kind {kind}, and read are LoRA, LoCon, DoRA, LoHa, LoKr "
                    "and whole differences."
                )
            case None:
                unknown.append(key)
    for name in [name for name, held in parts.items() if held.keys() <= {"alpha", "dora_scale", "magnitude"}]:
        ignored |= dict.fromkeys(parts.pop(name).values(), _ALONE)
    if not parts:
        what = what_it_is(header.tensors)
        raise LoraFileError(f"{path.name} cannot be used: {what or _foreign(ignored, unknown)}.")
    return Contents(header, parts, _told(path, header, {name: paths[name] for name in parts}), ignored, tuple(unknown))


def _foreign(ignored: Mapping[str, str], unknown: list[str]) -> str:
    """What to say of a file whose names tell nothing."""
    if unknown:
        return f"its layers have a form that is not read here, such as {unknown[0]}"
    key, reason = next(iter(ignored.items()))
    return f"nothing in it can be mixed, such as {key}, which is {reason}"


def _check(path: Path, key: str, tensor: TensorInfo) -> None:
    """Whether a tensor's bytes are as many as its shape and its type need."""
    if (size := TYPES.get(tensor.dtype)) is None:
        raise LoraFileError(f"{path.name} cannot be used: {key} has numbers of a type that is not read ({tensor.dtype}).")
    if math.prod(tensor.shape) * size != tensor.end - tensor.begin:
        raise LoraFileError(f"{path.name} is damaged ({key} is not as large as its shape): download or copy it again.")


def _told(path: Path, header: Header, layers: Mapping[str, Key]) -> dict[str, Told]:
    """The alphas that diffusers writes into the header's text, and PEFT into the file beside."""
    told: dict[str, Told] = {}
    configs = _configs(path, header) if "lora_adapter_metadata" in header.metadata or path.name == _PEFT else {}
    for name, key in layers.items() if configs else ():
        config = configs.get(key.component, {})
        own = config.get("alpha_pattern")
        given = next((own[end] for end in own if _meant(path, end, key)), None) if isinstance(own, dict) else None
        alpha = config.get("lora_alpha", config.get("alpha")) if given is None else given
        rank = config.get("r", 1)
        if isinstance(alpha, int | float) and math.isfinite(alpha) and isinstance(rank, int) and rank > 0:
            told[name] = Told(float(alpha), rank, config.get("use_rslora") is True)
    return told


def _meant(path: Path, pattern: str, key: Key) -> bool:
    """Whether PEFT gives a layer the alpha of a pattern: the end of a module's path, or behind ^ the whole of it."""
    end = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    if not re.fullmatch(r"[\w.]+", end):
        raise LoraFileError(f"{path.name} cannot be used: it tells alphas by a pattern that is not read here ({pattern}).")
    return key.path == end if pattern.startswith("^") else f".{key.path}".endswith(f".{end}")


_PEFT = "adapter_model.safetensors"
"""What PEFT calls its files, beside an `adapter_config.json`."""
_PREFIXES: Mapping[Component, str] = {"unet": "unet.", "te1": "text_encoder.", "te2": "text_encoder_2."}


def _configs(path: Path, header: Header) -> dict[Component, dict[str, Any]]:
    """PEFT's settings of each part of the base, as far as they are told and whole."""
    try:
        if text := header.metadata.get("lora_adapter_metadata"):
            entries = dict(json.loads(text))
            return {
                part: {key.removeprefix(start): entries[key] for key in entries if key.startswith(start)}
                for part, start in _PREFIXES.items()
            }
        config = dict(json.loads(path.with_name("adapter_config.json").read_text(encoding="utf-8")))
        return dict.fromkeys(_PREFIXES, config)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, RecursionError):
        raise LoraFileError(
            f"The settings that tell the scales in {path.name} are damaged: download or copy it again."
        ) from None
