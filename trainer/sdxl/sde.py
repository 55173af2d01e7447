"""DPM++ SDE, as k-diffusion's `sample_dpmpp_sde`: two looks a step, and the noise of one Brownian motion.

A step from level s to level t (of the noise's deviation) first goes half the way, to m = sqrt(s t), by what is seen at s; then
from s to t by what is seen at m. Either way, with q = (t / s)^2,

    x_t = q x_s + (1 - q) clean + t sqrt(1 - q) noise

Both noises are of one motion over the levels: the second is the first, up to m, and what is new beyond. diffusers has the same
as `DPMSolverSDEScheduler`, but only beside another package, and with noise that depends on the device.
"""

from __future__ import annotations

import math

import torch
from diffusers import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteSchedulerOutput
from diffusers.utils.torch_utils import randn_tensor


class SdeScheduler(EulerDiscreteScheduler):  # type: ignore[misc]
    """Levels and times are Euler's, with one more between each two; the last step, to no noise at all, has none."""

    order = 2
    timesteps: torch.Tensor

    def set_timesteps(self, steps: int, device: torch.device) -> None:
        """Begin a drawing of so many steps."""
        super().set_timesteps(steps, device)
        ends = self.sigmas[:-1].double().cpu()
        between = (ends[:-1] * ends[1:]).sqrt()
        all_levels = ((1 - self.alphas_cumprod) / self.alphas_cumprod).sqrt().log().numpy()
        times = torch.from_numpy(self._sigma_to_t(between.numpy(), all_levels)).to(self.timesteps)
        self.timesteps = _between(self.timesteps, times)
        self._levels: list[float] = _between(ends, between).tolist()
        self._looks = 0

    def scale_model_input(self, noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """What the U-Net is shown."""
        return noisy / math.hypot(self._levels[self._looks], 1)

    def step(
        self, made: torch.Tensor, time: torch.Tensor, noisy: torch.Tensor, generator: list[torch.Generator]
    ) -> EulerDiscreteSchedulerOutput:
        """One look: what the U-Net made of `noisy`, and on to where it looks next."""
        look = self._levels[self._looks]
        clean = noisy - look * made
        if self.config.prediction_type == "v_prediction":
            clean = noisy / (look**2 + 1) - look / math.hypot(look, 1) * made
        self._looks += 1
        if self._looks == len(self._levels):
            return EulerDiscreteSchedulerOutput(prev_sample=clean, pred_original_sample=clean)
        to = self._levels[self._looks]
        noise = randn_tensor(noisy.shape, generator=generator, device=noisy.device, dtype=noisy.dtype)
        if self._looks % 2:
            begin, self._begun = look, (look, noisy, noise)
        else:
            begin, noisy, first = self._begun
            known = (begin - look) / (begin - to)
            noise = math.sqrt(known) * first + math.sqrt(1 - known) * noise
        kept = (to / begin) ** 2
        moved = kept * noisy + (1 - kept) * clean + to * math.sqrt(1 - kept) * noise
        return EulerDiscreteSchedulerOutput(prev_sample=moved, pred_original_sample=clean)


def _between(ends: torch.Tensor, halves: torch.Tensor) -> torch.Tensor:
    """`ends` (n) with `halves` (n - 1) between each two of them."""
    both = torch.empty(len(ends) + len(halves), dtype=ends.dtype, device=ends.device)
    both[::2], both[1::2] = ends, halves
    return both
