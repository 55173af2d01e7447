"""DPM++ SDE against diffusers' own pipeline with the same Brownian motion, and that motion against its formula."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DPMSolverSDEScheduler, StableDiffusionXLPipeline
from diffusers.schedulers import scheduling_dpmsolver_sde

from trainer.recipe import Sampler
from trainer.sdxl.base import load_base
from trainer.sdxl.sampler import Sampling, first_noise, sample
from trainer.sdxl.samplers import scheduler_for, step_noise
from trainer.sdxl.text import encode_text, unconditional

CPU = torch.device("cpu")
PROMPT = "a red house on the left, blue sky"


class Motion:
    """A Brownian motion over the levels of a drawing, and how both sides ask for it."""

    def __init__(self, levels: list[float], shape: torch.Size) -> None:
        random = torch.Generator().manual_seed(5)
        self.levels = torch.tensor(levels, dtype=torch.float64)
        self.steps = [torch.randn(shape, generator=random) * (high - low) ** 0.5 for high, low in pairwise(levels)]
        self.fresh = iter(
            [step / math.sqrt(high - low) for step, (high, low) in zip(self.steps, pairwise(levels), strict=True)]
        )

    def ours(self, *_: Any, **__: Any) -> torch.Tensor:
        """What is new from the level of before to the next, of deviation 1."""
        new: torch.Tensor = next(self.fresh)
        return new

    def theirs(self, high: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
        """From one level to another, of deviation 1."""
        begin, end = (int((self.levels - level).abs().argmin()) for level in (high, low))
        return sum(self.steps[begin:end], torch.zeros(())) / (high - low).sqrt()


@pytest.mark.parametrize(
    ("sampler", "prediction", "steps"),
    [("DPM++ SDE", "epsilon", 5), ("DPM++ SDE", "v_prediction", 1), ("DPM++ SDE Karras", "v_prediction", 5)],
)
def test_a_picture_is_that_of_diffusers_pipeline(
    toy_base: Path, monkeypatch: pytest.MonkeyPatch, sampler: Sampler, prediction: str, steps: int
) -> None:
    base = load_base(str(toy_base), CPU, torch.float32)
    base.scheduler["prediction_type"] = prediction
    noise = first_noise((11,), 96, 64)
    motion = Motion(scheduler_for(sampler, base.scheduler, steps, CPU)._levels, noise.shape)
    monkeypatch.setattr("trainer.sdxl.sde.randn_tensor", motion.ours)
    monkeypatch.setattr(scheduling_dpmsolver_sde, "BrownianTreeNoiseSampler", lambda *_: motion.theirs)
    with torch.no_grad():
        text = encode_text(base, [PROMPT])
    *_, latents = sample(base, text, unconditional(text), Sampling(64, 96, steps, 4.0, (11,), sampler))
    pipeline = StableDiffusionXLPipeline.from_pretrained(toy_base, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    more = {"use_karras_sigmas": "Karras" in sampler, "prediction_type": prediction}
    pipeline.scheduler = DPMSolverSDEScheduler.from_config(pipeline.scheduler.config, **more)
    given = {"num_inference_steps": steps, "guidance_scale": 4.0, "width": 64, "height": 96, "output_type": "pt"}
    expected = pipeline(PROMPT, latents=noise, **given).images
    torch.testing.assert_close((base.decode(latents) + 1) / 2, expected, rtol=0, atol=1e-4)


def test_both_noises_of_a_step_are_of_one_motion() -> None:
    """Where the U-Net sees nothing, x / s is a motion whose last value has the first half's noise in it, and as much new."""
    scheduler = scheduler_for("DPM++ SDE", {"timestep_spacing": "trailing", "beta_schedule": "scaled_linear"}, 4, CPU)
    begin, half, end = scheduler._levels[:3]
    zero, at = torch.zeros(1, 4, 256, 256), scheduler.timesteps[0]
    first = scheduler.step(zero, at, zero, **step_noise("DPM++ SDE", (1,), 1)).prev_sample
    second = scheduler.step(first / half, at, first, **step_noise("DPM++ SDE", (1,), 2)).prev_sample
    for moved, to in ((first, half), (second, end)):
        assert float(moved.std()) == pytest.approx(to * (1 - (to / begin) ** 2) ** 0.5, rel=0.01)
    told = float((first * second).mean() / (first.std() * second.std()))
    assert told == pytest.approx(((begin - half) / (begin - end)) ** 0.5, abs=0.01)
