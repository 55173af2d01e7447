"""The base that a LoRA was made on, as its file tells of it, and what to say when it meets another. Knows no torch.

A LoRA loads on every base of SDXL's shapes; whether it then draws what it drew is told by the bases' weights, what they
predict, and whose descendants they are. Files of other programs tell less, and what they do not tell is not guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from trainer.bases.source import Facts, family_named
from trainer.settings import Family, Prediction

STARTER_VERSION, SDXL_VERSION = "impasto_starter", "sdxl_base_v1-0"
"""`ss_base_model_version` of files made on the starter, and on everything else."""

FAMILIES: dict[Family, str] = {
    "starter": "the starter", "sdxl": "SDXL", "pony": "Pony", "illustrious": "Illustrious", "noobai": "NoobAI",
}  # fmt: skip
"""The families by their own names."""

_PREDICTIONS: dict[Prediction, str] = {"epsilon": "epsilon", "v_prediction": "v"}
"""What the U-Net answers with, in modelspec's words."""

_SDXL_ITSELF = re.compile(r"sd[-_]?xl[-_]?(v1[-_]?)?base|stable-diffusion-xl-base", re.IGNORECASE)
_LONG, _SHORT = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{8}")
_EMPTY = "e3b0c442"
"""The short hash of every file below 1 MiB."""


def version_of(family: Family | None) -> str:
    """`ss_base_model_version` of files made on a base of this family."""
    return STARTER_VERSION if family == "starter" else SDXL_VERSION


@dataclass(frozen=True)
class Identity:
    """What a base's weights are known by; empty where they were never read for it."""

    fingerprint: str = ""
    """Of the weights in float16: equal for a folder and a single file, for float32 and float16."""
    sha256: str = ""
    """`ss_new_sd_model_hash`: of the whole file; `IsADirectory` for a folder."""
    short: str = ""
    """`ss_sd_model_hash`: 8 digits of the SHA-256 of 64 KiB at 1 MiB; `IsADirectory` for a folder."""

    def same_weights(self, other: Identity) -> bool | None:
        """Whether two bases have the same weights; None where too little is known of one of them.

        Different files may hold the same weights, so different hashes prove nothing; different fingerprints do. The short
        hash counts last: it sees so little of a file that some models share it.
        """
        if self.fingerprint and other.fingerprint:
            return self.fingerprint == other.fingerprint
        if _LONG.fullmatch(self.sha256) and _LONG.fullmatch(other.sha256):
            return self.sha256 == other.sha256 or None
        return (self.short == other.short != _EMPTY and _SHORT.fullmatch(self.short) is not None) or None


UNREAD = Identity()


@dataclass(frozen=True)
class Origin:
    """A base, as far as it is known: one that is loaded, or the one that a LoRA was made on."""

    name: str = ""
    family: Family | None = None
    prediction: Prediction | None = None
    zero_terminal_snr: bool = False
    identity: Identity = UNREAD

    @classmethod
    def of(cls, facts: Facts, identity: Identity | None = None) -> Origin:
        """A base that is here."""
        return cls(facts.name, facts.family, facts.prediction, facts.zero_terminal_snr, identity or UNREAD)

    @classmethod
    def told_by(cls, metadata: Mapping[str, str]) -> Origin:
        """The base that a LoRA's header tells of, in our words or in the field's."""
        name = metadata.get("ss_sd_model_name", "").removesuffix(".safetensors")
        stated = metadata.get("modelspec.prediction_type", "")
        prediction: Prediction | None = "v_prediction" if stated.startswith("v") else "epsilon" if stated else None
        return cls(
            name=name,
            family=_family_told_by(metadata, name),
            prediction=prediction,
            zero_terminal_snr=metadata.get("ss_zero_terminal_snr") == "True",
            identity=Identity(
                fingerprint=metadata.get("impasto.base_fingerprint", ""),
                sha256=metadata.get("ss_new_sd_model_hash", ""),
                short=metadata.get("ss_sd_model_hash", ""),
            ),
        )

    def to_metadata(self) -> dict[str, str]:
        """What a LoRA's header tells of the base that it is made on; the inverse of `told_by`."""
        told = {
            "ss_base_model_version": version_of(self.family),
            "ss_v2": "False",
            "ss_sd_model_name": self.name,
            "ss_sd_model_hash": self.identity.short,
            "ss_new_sd_model_hash": self.identity.sha256,
            "ss_zero_terminal_snr": str(self.zero_terminal_snr),
            "modelspec.prediction_type": _PREDICTIONS[self.prediction] if self.prediction else "",
            "impasto.base_family": self.family or "",
            "impasto.base_fingerprint": self.identity.fingerprint,
        }
        return {key: text for key, text in told.items() if text}


def _family_told_by(metadata: Mapping[str, str], name: str) -> Family | None:
    """The family that the header states, else the one that the base's name speaks of."""
    stated = metadata.get("impasto.base_family")
    families: tuple[Family, ...] = get_args(Family)
    if stated in families:
        return families[families.index(stated)]
    if metadata.get("ss_base_model_version") == STARTER_VERSION:
        return "starter"
    return family_named(name) or ("sdxl" if _SDXL_ITSELF.search(name) else None)


@dataclass(frozen=True)
class Remark:
    """One sentence about a LoRA on a base: worth knowing, or likely to spoil the picture."""

    level: Literal["note", "warning"]
    sentence: str


def compare(lora: str, made_on: Origin, drawn_on: Origin) -> Remark | None:
    """What to say about the LoRA called `lora` on the base `drawn_on`; None if nothing is wrong or nothing is known."""
    there = f"{lora} was trained on {made_on.name or 'another base'}"
    here = f"is drawn on {drawn_on.name}"
    if made_on.prediction and drawn_on.prediction and made_on.prediction != drawn_on.prediction:
        theirs, ours = _PREDICTIONS[made_on.prediction], _PREDICTIONS[drawn_on.prediction]
        return Remark(
            "warning",
            f"{there}, which predicts {theirs}, and {here}, which predicts {ours}: its colours and contrast will be wrong. "
            f"Choose a base that predicts {theirs}.",
        )
    same = made_on.identity.same_weights(drawn_on.identity)
    if same or made_on.family is None or drawn_on.family is None:
        return None
    if made_on.family != drawn_on.family:
        theirs, ours = FAMILIES[made_on.family], FAMILIES[drawn_on.family]
        return Remark(
            "warning",
            f"{there} ({theirs}) and {here} ({ours}): another family, so its style will be weak or off. "
            f"Choose a base of {theirs}'s family.",
        )
    if same is None and (not made_on.name or made_on.name == drawn_on.name):
        return None
    return Remark("note", f"{there} and {here}: the same family, so expect small differences.")
