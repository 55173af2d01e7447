"""The sample pictures of a training: what they show, and how they are drawn with the weights of the moment."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import torch
from PIL import Image

from trainer.data.captions import with_trigger
from trainer.data.dataset import Picture
from trainer.data.variety import without_wildcards
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
from trainer.training.state import Training


def sample_prompts(run: Run, plan: Plan) -> list[tuple[str, int]]:
    """What the samples show, each with its seed: what was asked for, else the captions of the first and the middle picture.

    A caption means its brackets; what was asked for is a prompt, whose brackets weigh. With the trigger word; if that is
    asked for, each without it too, and from the same seed.
    """
    settings = run.settings
    asked = list(settings.sample_prompts)
    if not asked:
        own = [entry.picture for entry in plan.pictures if not entry.prior]
        asked = list(dict.fromkeys(literal(_caption(picture, settings)) for picture in (own[0], own[len(own) // 2])))
    plain = [(prompt, settings.seed + number) for number, prompt in enumerate(asked)]
    called = [(with_trigger(prompt, literal(settings.trigger)), seed) for prompt, seed in plain]
    return [*called, *(sample for sample in plain if settings.sample_untriggered and sample not in called)]


def _caption(picture: Picture, settings: Settings) -> str:
    """A picture's caption; of wildcards always the same alternatives, so that the samples can be compared."""
    return without_wildcards(picture.caption, Random(settings.seed)) if settings.wildcards else picture.caption


def draw_samples(training: Training) -> Iterator[Event]:
    """Draw every sample prompt with what has been learnt. One that cannot be drawn does not end the training."""
    run, settings, step = training.run, training.run.settings, training.step
    side = settings.resolution // 32 * 32
    for number, (prompt, seed) in enumerate(sample_prompts(run, training.plan)):
        asked = Request(prompt=prompt, seed=seed, steps=settings.sample_steps, cfg=settings.sample_cfg, width=side, height=side)
        path, first = (run.samples / f"{when:06d}-{number}.png" for when in (step, 0))
        try:
            with training.learnt(settings.sample_weight):
                picture = _drawn(training.base, asked)
        except DrawingError as error:
            yield Warned(message=f"A sample was left out: {error}")
            continue
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            yield Warned(message="A sample was left out: memory ran out while it was drawn. The training goes on.")
            continue
        write_png(path, picture, infotext(asked, run.base))
        yield Sampled(
            step=step,
            prompt=prompt,
            path=path.relative_to(run.folder).as_posix(),
            base=first.relative_to(run.folder).as_posix() if step and first.is_file() else "",
            weight=settings.sample_weight,
        )


@torch.no_grad()
def _drawn(base: Base, asked: Request) -> Image.Image:
    prompt = encode_prompt(base, [asked.prompt])
    how = Sampling(asked.width, asked.height, asked.steps, asked.cfg, (asked.seed,))
    *_, latents = sample(base, prompt, unconditional(prompt), how)
    return to_picture(base.decode(latents)[0])
