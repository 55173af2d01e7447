"""The samplers by the names that people know: which scheduler each is, of diffusers or of `sde.py`, and how it is set.

The numbers are diffusers' own. A sampler takes from the base only what describes its noise (betas, what is predicted, spacing
of the time steps); all else is said here, so that a name means the same on every base. Knows nothing of U-Nets and prompts.

Where a base has zero terminal SNR, Heun takes a dozen steps before it draws well, and Karras' spacing spends most of its steps
on what is still noise alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)

from trainer.recipe import Sampler
from trainer.sdxl.sde import SdeScheduler

_NOISE = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type",
    "rescale_betas_zero_snr", "timestep_spacing", "steps_offset",
)  # fmt: skip
"""What a base's config says of its noise."""


@dataclass(frozen=True)
class _Kind:
    """A scheduler's class and what is set besides the base's noise; `random` draws new noise in every step."""

    scheduler: type[Any]
    config: Mapping[str, Any]
    random: bool = False


_DPM, _SDE, _KARRAS = DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}, {"use_karras_sigmas": True}
_KINDS: dict[Sampler, _Kind] = {
    "Euler": _Kind(EulerDiscreteScheduler, {}),
    "Euler a": _Kind(EulerAncestralDiscreteScheduler, {}, random=True),
    "Heun": _Kind(HeunDiscreteScheduler, {}),
    "DPM++ 2M": _Kind(_DPM, {}),
    "DPM++ 2M Karras": _Kind(_DPM, _KARRAS),
    "DPM++ SDE": _Kind(SdeScheduler, {}, random=True),
    "DPM++ SDE Karras": _Kind(SdeScheduler, _KARRAS, random=True),
    "DPM++ 2M SDE": _Kind(_DPM, _SDE, random=True),
    "DPM++ 2M SDE Karras": _Kind(_DPM, {**_SDE, **_KARRAS}, random=True),
    "UniPC": _Kind(UniPCMultistepScheduler, {}),
    # latents are no pixels to be clipped, and the last step ends at the first beta: so says SDXL's own config
    "DDIM": _Kind(DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
    "LCM": _Kind(LCMScheduler, {}, random=True),
}


def scheduler_for(sampler: Sampler, base: Mapping[str, Any], steps: int, device: torch.device) -> Any:
    """The scheduler for `steps` steps on a base with the scheduler config `base`."""
    kind = _KINDS[sampler]
    noise = base if sampler == "Euler" else {name: base[name] for name in _NOISE if name in base}
    scheduler = kind.scheduler.from_config({**noise, **kind.config, **_for_lcm(sampler, steps)})
    if kind.scheduler is HeunDiscreteScheduler:  # which does not know zero terminal SNR
        scheduler.alphas_cumprod = EulerDiscreteScheduler.from_config(dict(base)).alphas_cumprod
    scheduler.set_timesteps(steps, device=device)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # else it looks for its first time, and where that comes twice, skips a step
    return scheduler


def step_noise(sampler: Sampler, seeds: Sequence[int], step: int) -> dict[str, list[torch.Generator]]:
    """What a scheduler's step takes its noise from: for each picture a generator that depends on its seed and `step` alone."""
    if not _KINDS[sampler].random:
        return {}
    return {"generator": [torch.Generator().manual_seed(_seed_of(seed, step)) for seed in seeds]}


def clean(scheduler: Any, stepped: Any) -> torch.Tensor:
    """The latents without noise, as the step that was just taken saw them coming."""
    for name in ("pred_original_sample", "denoised"):
        if hasattr(stepped, name):
            return torch.as_tensor(getattr(stepped, name))
    return torch.as_tensor(scheduler.model_outputs[-1])  # DPM++ and UniPC keep what they converted


def _for_lcm(sampler: Sampler, steps: int) -> dict[str, int]:
    """LCM takes its steps from among those that it was distilled with, 50 as a rule; more have to be said."""
    return {"original_inference_steps": max(50, steps)} if sampler == "LCM" else {}


def _seed_of(seed: int, step: int) -> int:
    digest = hashlib.sha256(f"{seed}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
