"""The sample pictures of a training: what they show, and how they are drawn with the weights of the moment."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import torch
from PIL import Image

from trainer.data.captions import with_trigger, without_wildcards
from trainer.data.dataset import Picture
from trainer.errors import DrawingError
from trainer.recipe import Request, infotext, write_png
from trainer.sdxl.base import Base
from trainer.sdxl.device import out_of_memory
from trainer.sdxl.prompt import literal
from trainer.sdxl.sampler import Sampling, sample, to_picture
from trainer.sdxl.text import encode_prompt, unconditional
from trainer.settings import Settings
from trainer.training.events import Event, Sampled, Warned
from trainer.training.plan import Plan
from trainer.training.run import Run


def sample_prompts(run: Run, plan: Plan) -> list[str]:
    """What the samples show: what was asked for, else the captions of the first and the middle picture.

    A caption means its brackets; what was asked for is a prompt, whose brackets weigh.
    """
    asked = list(run.settings.sample_prompts)
    if not asked:
        pictures = [plan.pictures[0][0], plan.pictures[len(plan.pictures) // 2][0]]
        asked = list(dict.fromkeys(literal(_caption(picture, run.settings)) for picture in pictures))
    return [with_trigger(prompt, literal(run.settings.trigger)) for prompt in asked]


def _caption(picture: Picture, settings: Settings) -> str:
    """A picture's caption; of wildcards always the same alternatives, so that the samples can be compared."""
    return without_wildcards(picture.caption, Random(settings.seed)) if settings.wildcards else picture.caption


def draw_samples(run: Run, base: Base, plan: Plan, step: int) -> Iterator[Event]:
    """Draw every sample prompt with the weights of this moment. One that cannot be drawn does not end the training."""
    settings = run.settings
    for number, prompt in enumerate(sample_prompts(run, plan)):
        side, seed = settings.resolution // 32 * 32, settings.seed + number
        asked = Request(prompt=prompt, seed=seed, steps=settings.sample_steps, cfg=settings.sample_cfg, width=side, height=side)
        path = run.samples / f"{step:06d}-{number}.png"
        try:
            picture = _drawn(base, asked)
        except DrawingError as error:
            yield Warned(message=f"A sample was left out: {error}")
            continue
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            yield Warned(message="A sample was left out: memory ran out while it was drawn. The training goes on.")
            continue
        write_png(path, picture, infotext(asked, run.base))
        yield Sampled(step=step, prompt=prompt, path=path.relative_to(run.folder).as_posix())


@torch.no_grad()
def _drawn(base: Base, asked: Request) -> Image.Image:
    prompt = encode_prompt(base, [asked.prompt])
    how = Sampling(asked.width, asked.height, asked.steps, asked.cfg, (asked.seed,))
    *_, latents = sample(base, prompt, unconditional(prompt), how)
    return to_picture(base.decode(latents)[0])
