"""What a base's name means, and the facts about a base that its files tell without being loaded. Knows no torch.

A source is `starter`, a diffusers folder, a single `.safetensors` file, or a Hub id. Of files, headers and configs are read,
never a tensor.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from trainer.bases import hub, layout
from trainer.bases.kinds import SDXL, kind_of
from trainer.errors import BaseModelError
from trainer.home import shipped
from trainer.settings import Family, Prediction
from trainer.tensorfile import read_header

STARTER = "starter"
"""The source that names the embedded base."""

MARK = "impasto.json"
"""A file in a diffusers folder that says which family the base is of, where it is not SDXL."""

CONFIGS = shipped("assets", "sdxl")
"""The configs of SDXL's models and its tokenizer, for single files, which hold tensors alone."""

_FAMILIES: tuple[tuple[Family, re.Pattern[str]], ...] = (
    ("noobai", re.compile(r"noob", re.IGNORECASE)),
    ("illustrious", re.compile(r"illustrious|(?<![a-z])(il|ilxl|illu|illust)(?![a-z])", re.IGNORECASE)),
    ("pony", re.compile(r"pony|pdxl", re.IGNORECASE)),
)
"""Descendants by what their files are called; NoobAI comes from Illustrious and may name both."""

_V_BY_NAME = re.compile(r"v[-_ ]?pred", re.IGNORECASE)


@dataclass(frozen=True)
class Facts:
    """What is known of a base before it is loaded."""

    source: str
    place: Path | None
    """Its folder or file; None for a Hub id that is not looked up yet."""
    name: str
    """What files may call it: without the path that it has on this machine."""
    family: Family
    prediction: Prediction
    zero_terminal_snr: bool
    """Whether its noise schedule ends in noise alone (arXiv 2305.08891)."""
    resolution: int
    """Side in pixels of the pictures that it was made for."""

    def overruled(self, family: Literal["auto", Family], prediction: Literal["auto", Prediction]) -> Facts:
        """These facts, where the person knows better. A v-predicting SDXL has zero terminal SNR: there are no others."""
        facts = self if family == "auto" else replace(self, family=family)
        if prediction == "auto" or prediction == facts.prediction:
            return facts
        return replace(facts, prediction=prediction, zero_terminal_snr=prediction == "v_prediction")


def place_of(source: str) -> Path | None:
    """The folder or file of a source; None for a Hub id."""
    if source == STARTER:
        return shipped("assets", "starter")
    path = os.path.expanduser(source)  # unlike Path's, these take whatever a person can type
    return Path(path) if source.strip() and os.path.exists(path) else None


def family_named(text: str) -> Family | None:
    """The descendant of SDXL that a name speaks of; None if it speaks of none."""
    return next((family for family, pattern in _FAMILIES if pattern.search(text)), None)


def kept_as(source: str) -> str:
    """The source as a run keeps it: whoever reads it works in another folder."""
    place = place_of(source)
    return source if source == STARTER or place is None else str(place.resolve())


def name_of(source: str) -> str:
    """A source as files may name it: without the path that it has on this machine."""
    place = None if source == STARTER else place_of(source)
    if place is None:
        return source
    return place.resolve().name if place.is_dir() else place.stem


def facts_of(source: str) -> Facts:
    """The facts about a base. Raises `BaseModelError` for one that can be seen to be wrong without loading it."""
    place = place_of(source)
    if place is None and _is_no_hub_id(source):
        raise BaseModelError(
            f"There is no base model {source}: give 'starter', a diffusers folder, a .safetensors file, or a Hub id "
            "such as name/model."
        )
    place = place or hub.cached(source)
    return facts_at(source, place) if place else _facts(source, None, {}, 1024)


def _is_no_hub_id(source: str) -> bool:
    """`models/a.safetensors` could be a Hub id, and is a file that is not there."""
    return not hub.is_hub_source(source) or (source.count("/") == 1 and source.lower().endswith((".safetensors", ".ckpt")))


def family_of(source: str) -> Family:
    """Whose descendant a base is; SDXL's own, as long as that cannot be told."""
    try:
        return facts_of(source).family
    except BaseModelError:
        return "sdxl"


def facts_at(source: str, place: Path) -> Facts:
    """The facts about a base whose folder or file is known. Raises `BaseModelError`."""
    return _facts_of_folder(source, place) if place.is_dir() else _facts_of_file(source, place)


def _facts_of_folder(source: str, folder: Path) -> Facts:
    unet = _config(folder, "unet", "config.json")
    if unet is None:
        raise BaseModelError(f"{folder} is not a diffusers folder of SDXL: it has no unet/config.json.")
    refusal = layout.refusal(_config(folder, layout.INDEX) or {}, unet)
    if refusal:
        raise BaseModelError(f"{folder} {refusal}.")
    lacking = layout.missing(layout.names_in(folder))
    if lacking:
        more = f" and lacks {len(lacking) - 1} more files" if len(lacking) > 1 else ""
        raise BaseModelError(f"{folder} is not whole, it has no {lacking[0]}{more}: download or copy it again.")
    scheduler = _config(folder, "scheduler", "scheduler_config.json") or {}
    told = {
        "modelspec.prediction_type": "v" if scheduler.get("prediction_type") == "v_prediction" else "epsilon",
        "ztsnr": scheduler.get("rescale_betas_zero_snr", False),
    }
    side = unet.get("sample_size")  # may be null, or both sides
    facts = _facts(source, folder, told, 8 * side if isinstance(side, int) else 1024)
    mark = _config(folder, MARK)
    return replace(facts, family="starter") if mark and mark.get("family") == "starter" else facts


def _facts_of_file(source: str, file: Path) -> Facts:
    header = read_header(file, BaseModelError)
    kind = kind_of(header.tensors)
    if kind is not SDXL:
        raise BaseModelError(f"{file.name} is {kind.name}, not an SDXL base: {kind.advice}.")
    told: dict[str, Any] = dict(header.metadata)
    if "v_pred" in header.tensors:
        told |= {"modelspec.prediction_type": "v", "ztsnr": "ztsnr" in header.tensors}
    return _facts(source, file, told, 1024)


def _facts(source: str, place: Path | None, told: Mapping[str, Any], resolution: int) -> Facts:
    """What the texts say: first what the file tells of itself, last its name."""
    name = name_of(source)
    texts = f"{told.get('modelspec.title', '')} {told.get('modelspec.architecture', '')} {name}"
    stated = str(told.get("modelspec.prediction_type", ""))
    predicts_v = stated.startswith("v") if stated else bool(_V_BY_NAME.search(name))
    zero = predicts_v and bool(told.get("ztsnr", True))
    family = family_named(texts) or "sdxl"
    return Facts(source, place, name, family, "v_prediction" if predicts_v else "epsilon", zero, resolution)


def _config(folder: Path, *parts: str) -> dict[str, Any] | None:
    """A JSON file of a diffusers folder; None if it is not there. Raises `BaseModelError`."""
    path = folder.joinpath(*parts)
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BaseModelError(f"{path} is damaged ({error}): download the base again.") from None
    if not isinstance(found, dict):
        raise BaseModelError(f"{path} is damaged (it holds no names and values): download the base again.")
    return found
