"""Every sampler against diffusers' own pipeline, or against the one answer that there is where the noise has a formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    StableDiffusionXLPipeline,
    UniPCMultistepScheduler,
)

from trainer.recipe import SAMPLERS, Sampler
from trainer.sdxl.base import Base, load_base
from trainer.sdxl.sampler import Sampling, first_noise, sample, steps
from trainer.sdxl.samplers import scheduler_for, step_noise
from trainer.sdxl.text import TextFeatures, encode_text, unconditional

CPU = torch.device("cpu")
RANDOM: tuple[Sampler, ...] = ("Euler a", "DPM++ SDE", "DPM++ SDE Karras", "DPM++ 2M SDE", "DPM++ 2M SDE Karras", "LCM")
PROMPT = "a red house on the left, blue sky"


@pytest.fixture(scope="module")
def base(toy_base: Path) -> Base:
    return load_base(str(toy_base), CPU, torch.float32)


@pytest.fixture(scope="module")
def text(base: Base) -> TextFeatures:
    with torch.no_grad():
        return encode_text(base, [PROMPT])


def drawn(base: Base, text: TextFeatures, sampler: Sampler, count: int = 6, seeds: tuple[int, ...] = (11,)) -> torch.Tensor:
    """The last latents."""
    text = TextFeatures(text.context.repeat(len(seeds), 1, 1), text.pooled.repeat(len(seeds), 1))
    *_, last = sample(base, text, unconditional(text), Sampling(64, 96, count, 4.0, seeds, sampler))
    return last


@pytest.mark.parametrize(
    ("sampler", "scheduler", "config"),
    [
        ("Heun", HeunDiscreteScheduler, {}),
        ("DPM++ 2M", DPMSolverMultistepScheduler, {}),
        ("DPM++ 2M Karras", DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
        ("UniPC", UniPCMultistepScheduler, {}),
        ("DDIM", DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
    ],
)
def test_a_picture_is_that_of_diffusers_pipeline(
    toy_base: Path, base: Base, text: TextFeatures, sampler: Sampler, scheduler: Any, config: dict[str, Any]
) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(toy_base, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **config)
    noise = first_noise((11,), 96, 64)
    given = {"num_inference_steps": 6, "guidance_scale": 4.0, "width": 64, "height": 96, "latents": noise, "output_type": "pt"}
    expected = pipeline(PROMPT, **given).images
    got = (base.decode(drawn(base, text, sampler)) + 1) / 2
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("sampler", "scheduler", "config"),
    [
        ("Euler a", EulerAncestralDiscreteScheduler, {}),
        ("DPM++ 2M SDE", DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
        ("DPM++ 2M SDE Karras", DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
        ("LCM", LCMScheduler, {}),
    ],
)
def test_a_sampler_that_draws_noise_is_diffusers_with_the_same_noise(
    toy_base: Path,
    base: Base,
    text: TextFeatures,
    monkeypatch: pytest.MonkeyPatch,
    sampler: Sampler,
    scheduler: Any,
    config: Any,
) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(toy_base, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **config)
    one = torch.Generator().manual_seed(5)
    monkeypatch.setattr("trainer.sdxl.sampler.step_noise", lambda *_: {"generator": one})
    got = (base.decode(drawn(base, text, sampler)) + 1) / 2
    noise = first_noise((11,), 96, 64)
    given = {"num_inference_steps": 6, "guidance_scale": 4.0, "width": 64, "height": 96, "latents": noise, "output_type": "pt"}
    expected = pipeline(PROMPT, generator=torch.Generator().manual_seed(5), **given).images
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_picture_is_the_same_again_and_beside_others(base: Base, text: TextFeatures, sampler: Sampler) -> None:
    alone = drawn(base, text, sampler)
    assert torch.equal(drawn(base, text, sampler), alone)
    beside = drawn(base, text, sampler, seeds=(4, 11))
    torch.testing.assert_close(beside[1:], alone, rtol=1e-4, atol=1e-3)
    assert (beside[0] - beside[1]).abs().max() > 0.1


def test_the_noise_of_a_step_is_its_own() -> None:
    def first(seed: int, step: int) -> float:
        (generator,) = step_noise("Euler a", (seed,), step)["generator"]
        return torch.randn(1, generator=generator).item()

    assert first(1, 2) == first(1, 2)
    draws = {first(seed, step) for seed in (0, 1, 2**63 - 1) for step in range(1, 30)}
    assert len(draws) == 3 * 29
    assert {sampler for sampler in SAMPLERS if step_noise(sampler, (1,), 1)} == set(RANDOM)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_there_is_one_yield_a_step(base: Base, text: TextFeatures, sampler: Sampler, count: int) -> None:
    seen = list(steps(base, text, unconditional(text), Sampling(64, 64, count, 4.0, (1,), sampler)))
    assert len(seen) == count
    assert all(step.latents.shape == step.clean.shape == (1, 4, 8, 8) for step in seen)
    assert torch.isfinite(seen[-1].latents).all()


def test_lcm_takes_more_steps_than_it_was_distilled_with(base: Base) -> None:
    assert len(scheduler_for("LCM", base.scheduler, 200, CPU).timesteps) == 200


MEAN, DEVIATION = 0.5, 0.8
"""Of the latents that the ideal model below knows: every one of them is normal."""


def ideal(answer: str, abar: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
    """What a U-Net would say that had learnt latents of `MEAN` and `DEVIATION`: the mean of what `noisy` may have been."""
    signal, noise = abar.sqrt(), (1 - abar).sqrt()
    x0 = MEAN + signal * DEVIATION**2 / (abar * DEVIATION**2 + 1 - abar) * (noisy - signal * MEAN)
    epsilon = (noisy - signal * x0) / noise
    return epsilon if answer == "epsilon" else signal * epsilon - noise * x0


@pytest.mark.parametrize("zero", [False, True], ids=["epsilon", "v-prediction with zero terminal SNR"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_noise_becomes_what_an_ideal_model_has_learnt(base: Base, sampler: Sampler, zero: bool) -> None:
    config = base.predicting("v_prediction" if zero else "epsilon").scheduler
    assert config["rescale_betas_zero_snr"] == zero
    scheduler = scheduler_for(sampler, config, 60, CPU)
    abar = DDIMScheduler.from_config(config).alphas_cumprod.double()
    assert float(abar[-1]) == pytest.approx(0.0 if zero else 0.0047, abs=1e-4)
    latents = first_noise((1,), 512, 512) * scheduler.init_noise_sigma
    for number, time in enumerate(scheduler.timesteps, start=1):
        given = scheduler.scale_model_input(latents, time)
        made = ideal(config["prediction_type"], abar[int(time)], given.double()).float()
        latents = scheduler.step(made, time, latents, **step_noise(sampler, (1,), number)).prev_sample
    assert float(latents.mean()) == pytest.approx(MEAN, abs=0.06)
    if sampler != "LCM":  # which goes back to noise after every step: that is right only for a model distilled for it
        assert float(latents.std()) == pytest.approx(DEVIATION, rel=0.12)


def test_heun_begins_where_euler_does_at_zero_terminal_snr(base: Base) -> None:
    config = base.predicting("v_prediction").scheduler
    heun, euler = (scheduler_for(sampler, config, 9, CPU).sigmas for sampler in ("Heun", "Euler"))
    assert float(heun[0]) == pytest.approx(4096, rel=1e-3)
    torch.testing.assert_close(heun.unique(), euler.unique())


def test_the_clean_latents_are_there_long_before_the_end(base: Base) -> None:
    """At the first step the ideal model's guess is its mean, whichever scheduler is asked."""
    from trainer.sdxl.samplers import clean

    abar = DDIMScheduler.from_config(base.scheduler).alphas_cumprod.double()
    for sampler in SAMPLERS:
        scheduler = scheduler_for(sampler, base.scheduler, 20, CPU)
        latents = first_noise((1,), 256, 256) * scheduler.init_noise_sigma
        time = scheduler.timesteps[0]
        made = ideal("epsilon", abar[int(time)], scheduler.scale_model_input(latents, time).double()).float()
        seen = clean(scheduler, scheduler.step(made, time, latents, **step_noise(sampler, (1,), 1)))
        assert float(seen.mean()) == pytest.approx(MEAN, abs=0.06), sampler
        assert float(seen.std()) < 0.12, sampler


def test_a_closed_drawing_asks_the_unet_no_more(base: Base, text: TextFeatures) -> None:
    calls: list[int] = []
    hook = base.unet.register_forward_hook(lambda *_: calls.append(1))
    drawing = steps(base, text, unconditional(text), Sampling(64, 64, 9, 4.0, (1,), "DPM++ 2M"))
    next(drawing)
    next(drawing)
    drawing.close()  # type: ignore[attr-defined]
    assert list(drawing) == []
    hook.remove()
    assert len(calls) == 2


def test_a_name_means_the_same_whatever_scheduler_a_base_brought(base: Base) -> None:
    brought = {**base.scheduler, "use_karras_sigmas": True, "solver_order": 3, "thresholding": True, "clip_sample": True}
    for sampler in SAMPLERS[1:]:
        ours, theirs = (scheduler_for(sampler, config, 8, CPU) for config in (base.scheduler, brought))
        assert ours.config == theirs.config, sampler
