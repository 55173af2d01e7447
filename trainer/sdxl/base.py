"""The frozen base: one `load_base` for the starter, a diffusers folder, a single file and a Hub id.

Everything that follows is written for SDXL's four models and their wiring; which one is loaded matters only for its
family, which says what files made on it are called. Knows nothing of LoRAs or training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import nn

from trainer.bases import folder, hub, single
from trainer.bases.models import Models
from trainer.bases.origin import version_of
from trainer.bases.source import Facts, facts_at, facts_of
from trainer.lora.keys import Component
from trainer.sdxl.quantise import precision_of, quantise
from trainer.sdxl.vae import decode, encode
from trainer.settings import Family, Packing, Precision, Prediction


@dataclass
class Base(Models):
    """SDXL's models on one device. The VAE is always float32: in float16 SDXL's overflows to black pictures."""

    facts: Facts

    @property
    def parts(self) -> dict[Component, nn.Module]:
        """The models that a LoRA may change."""
        return {"unet": self.unet, "te1": self.te1, "te2": self.te2}

    @property
    def source(self) -> str:
        """What the base was asked for by."""
        return self.facts.source

    @property
    def family(self) -> Family:
        """Whose descendant it is."""
        return self.facts.family

    @property
    def version(self) -> str:
        """`ss_base_model_version` of files made on this base."""
        return version_of(self.family)

    @property
    def prediction(self) -> Prediction:
        """What the U-Net answers with."""
        return self.facts.prediction

    def predicting(self, prediction: Literal["auto", Prediction]) -> Base:
        """The same models, for a person who knows better what they predict."""
        facts = self.facts.overruled("auto", prediction)
        return replace(self, facts=facts, scheduler=_scheduler(self.scheduler, facts))

    @property
    def precision(self) -> Precision:
        """How its weights are kept."""
        return precision_of(self.unet)

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return torch.device(next(self.unet.parameters()).device)  # diffusers' own `device` visits every module

    @property
    def resolution(self) -> int:
        """Side in pixels of the pictures that the base was made for."""
        return self.facts.resolution

    @cached_property
    def vae_fingerprint(self) -> str:
        """A hash of the VAE's weights: latents of one VAE mean nothing to another."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.vae.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def text_fingerprint(self) -> str:
        """A hash of both text encoders' weights, as they are kept, and of what their tokenizers read.

        The same weights in another type say something else, if only slightly; so they hash to something else.
        """
        digest = hashlib.sha256()
        for tokenizer in (self.tokenizer1, self.tokenizer2):
            digest.update(repr((tokenizer.pad_token_id, sorted(tokenizer.get_vocab().items()))).encode("utf-8"))
        for encoder in (self.te1, self.te2):
            digest.update(repr(encoder.dtype).encode())
            for name, tensor in sorted(encoder.state_dict().items()):
                digest.update(f"{name} {tensor.dtype}".encode())
                digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def encode(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels (n, 3, h, w) in -1 … 1 -> mean and standard deviation (n, 4, h/8, w/8) of the scaled latents."""
        return encode(self.vae, pixels)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents (n, 4, h/8, w/8) -> pixels (n, 3, h, w) in -1 … 1."""
        return decode(self.vae, latents)


def located(source: str, told: Callable[[int, int], None] | None = None) -> Facts:
    """The facts about a base that is on this disk: a Hub id is fetched, and `told` of its bytes. Raises `BaseModelError`."""
    facts = facts_of(source)
    return facts if facts.place else facts_at(source, hub.fetch(source, told))


def load_base(source: str | Facts, device: torch.device, dtype: torch.dtype, packing: Packing | None = None) -> Base:
    """Load a base: `starter`, a diffusers folder, a single file, or a Hub id. Raises `BaseModelError`.

    With `packing`, its large layers reach the device in 8 or 4 bits, and nothing can be mixed into them.
    """
    facts = located(source) if isinstance(source, str) else source
    assert facts.place is not None, "a base is fetched before it is loaded: see `located`"
    read_to = torch.device("cpu") if packing else device
    found = folder.load(facts.place, dtype) if facts.place.is_dir() else single.load(facts.place, read_to, dtype)
    for part, model in found.models.items():
        if packing and part != "vae":
            quantise(model, packing, device)
        model.to(device).eval().requires_grad_(False)
    return Base(**{**vars(found), "scheduler": _scheduler(found.scheduler, facts)}, facts=facts)


def _scheduler(config: dict[str, Any], facts: Facts) -> dict[str, Any]:
    """The config with what is known better; zero terminal SNR begins where there is noise alone."""
    config = {**config, "prediction_type": facts.prediction, "rescale_betas_zero_snr": facts.zero_terminal_snr}
    return {**config, "timestep_spacing": "trailing"} if facts.zero_terminal_snr else config
