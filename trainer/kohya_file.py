"""A file of kohya's, `.toml` of sd-scripts or `.json` of the kohya_ss GUI, as one flat table, and their defaults.

Knows no setting of ours.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.errors import SettingsError

Config = dict[str, Any]

DEFAULTS: Config = {
    "network_dim": 4, "network_alpha": 1, "train_batch_size": 1, "min_snr_gamma": 0, "noise_offset": 0,
    "caption_dropout_rate": 0, "max_train_steps": 1600, "lr_warmup_steps": 0, "lr_scheduler": "constant",
    "network_module": "networks.lora",
}  # fmt: skip
"""Their defaults, where ours differ."""

OFF_AT_ZERO = ("max_train_steps", "max_train_epochs", "epoch", "save_every_n_steps", "gradient_accumulation_steps")
"""What a zero switches off, where ours has a bound above it or reads it otherwise."""

_NUMBER = re.compile(r"[+-]?(\d{1,30}\.?\d{0,30}|\.\d{1,30})(e[+-]?\d{1,4})?", re.IGNORECASE)


def read_config(path: Path) -> Config:
    """The names that ask for something, and their values; numbers that stand there as text are numbers.

    Raises `SettingsError`.
    """
    return {name: value for name, value in _flat(_read(path)).items() if not _asks_nothing(name, value)}


def defaults_for(config: Config) -> Config:
    """What their trainer takes for names that a config of a training does not have."""
    if not {"network_dim", "network_module", "learning_rate", "unet_lr", "LoRA_type"} & set(config):
        return {}  # only a description of a data set
    instead = {
        "max_train_steps": ("max_train_epochs", "epoch"),
        "lr_warmup_steps": ("lr_warmup",),
        "train_batch_size": ("batch_size",),
        "network_module": ("LoRA_type",),
    }
    there = {name for name in DEFAULTS if set(config) & {name, *instead.get(name, ())}}
    return {name: value for name, value in DEFAULTS.items() if name not in there}


def _read(path: Path) -> Config:
    """The file's outermost table."""
    readers: dict[str, Any] = {".toml": tomllib.loads, ".json": json.loads}
    if path.suffix.lower() not in readers:
        raise SettingsError(f"{path} is neither a .toml of sd-scripts nor a .json of the kohya_ss GUI.")
    try:
        found = readers[path.suffix.lower()](path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = (error.strerror or error) if isinstance(error, OSError) else error
        raise SettingsError(f"{path} cannot be read: {reason}.") from None
    if not isinstance(found, dict):
        raise SettingsError(f"{path} is not a kohya config: it holds no names with values.")
    return found


def _flat(table: Mapping[str, Any]) -> Config:
    """A table without its sections, as their trainer reads it; where data sets differ, a tuple of what they say."""
    flat: Config = {}

    def add(name: str, value: Any) -> None:
        seen = flat.get(name, value)
        flat[name] = seen if seen == value else (*(seen if isinstance(seen, tuple) else (seen,)), value)

    for name, value in table.items():
        if name in ("optimizer_args", "network_args", "lr_scheduler_args"):
            parts = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
            for key, equals, text in (str(part).partition("=") for part in parts):
                add(f"{name}.{key.strip()}", plain(text.strip("\"' ")) if equals else True)
        elif isinstance(value, dict):
            for inner, below in _flat(value).items():
                add(inner, below)
        elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            for inner, below in (pair for one in value for pair in _flat(one).items()):
                add(inner, below)
        else:
            add(name, plain(value))
    return flat


def plain(value: Any) -> Any:
    """A number that stands there as text as the number."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return int(value) if value.strip().lstrip("+-").isdecimal() else float(value)
    return value


def _asks_nothing(name: str, value: Any) -> bool:
    """Whether an entry is empty, or switched off."""
    empty = value is None or value in ("", [], {}) or (isinstance(value, str) and value.lower() == "none")
    return empty or (name in OFF_AT_ZERO and value == 0)
