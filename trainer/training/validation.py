"""How a training does on pictures that it never sees: always the same noise and times, so that the curve means something."""

from __future__ import annotations

import itertools

import torch

from trainer.training import diffusion
from trainer.training.batch import fixed
from trainer.training.events import Validated
from trainer.training.plan import MEASURED_TIMES
from trainer.training.state import Training
from trainer.training.step import predicted

PATIENCE = 3
"""So many measurements in succession above the best one tell of overfitting."""

MARGIN = 0.01
"""By so much of itself the best loss must be missed: less is chance."""


@torch.no_grad()
def measured(training: Training) -> Validated:
    """The mean squared error on the pictures held out, and what it means beside the earlier ones."""
    times, losses = len(training.abar), []
    with training.learnt():
        for index in range(len(training.held_out)):
            for part in range(MEASURED_TIMES):
                batch = fixed(training, index, (2 * part + 1) * times // (2 * MEASURED_TIMES))
                answer, wanted = predicted(training, batch)
                losses.append(diffusion.loss(answer, wanted, torch.ones(1, device=answer.device)).item())
    loss = sum(losses) / len(losses)
    training.validated.append((training.step, loss))
    best = min(training.validated, key=lambda measured: measured[1])[0]
    return Validated(step=training.step, loss=loss, best=best, message=meaning(training.validated))


def meaning(validated: list[tuple[int, float]]) -> str:
    """A sentence at the moment at which overfitting shows; else nothing."""
    step, lowest = min(validated, key=lambda measured: measured[1])
    worse = list(itertools.takewhile(lambda measured: measured[1] > lowest * (1 + MARGIN), reversed(validated)))
    if len(worse) != PATIENCE:
        return ""
    return (
        f"The training begins to learn its pictures by heart: on pictures that it does not see it was best at step {step}. "
        "A checkpoint from about there may draw better than the last one."
    )
