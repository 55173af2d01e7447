"""The prediction against a card: SDXL in its true size, with random weights. Skipped where there is none."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
import torch

from trainer.home import shipped
from trainer.lora.adapter import Adapter
from trainer.lora.keys import Component
from trainer.lora.shape import Shape
from trainer.sdxl import counting
from trainer.sdxl.counting import Skeleton
from trainer.sdxl.counts import Counts, Subject
from trainer.sdxl.memory import Keeping, training_needs
from trainer.sdxl.quantise import quantise
from trainer.sdxl.recompute import recompute
from trainer.settings import Precision, Recompute
from trainer.training.moments import remembered

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")]

ALL: tuple[Component, ...] = ("unet", "te1", "te2")
SUBJECT = Subject(shipped("assets", "sdxl"), ALL, Shape(16, 16.0), side=1024, half=True)
WAYS: tuple[tuple[Precision, Recompute, int], ...] = (
    ("bf16", "none", 1),
    ("bf16", "selective", 2),
    ("bf16", "full", 1),
    ("int8", "none", 1),
    ("nf4", "full", 1),
)


@pytest.mark.parametrize(("precision", "how", "batch"), WAYS)
def test_the_peak_of_three_steps_is_the_predicted_one(
    precision: Precision, how: Recompute, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Counts(SUBJECT, tmp_path)
    keeping = Keeping(remembered("adamw", chain(*counts.matrices().values())))
    needs = training_needs(counts, precision, how, batch, keeping)
    predicted = needs.weights + needs.vae + needs.lora + needs.optimizer + needs.step
    card = torch.device("cuda")
    monkeypatch.setattr(counting, "META", card)  # the skeleton gets flesh
    skeleton = Skeleton(SUBJECT.configs, torch.bfloat16)
    for part in skeleton.parts.values():
        if precision in ("int8", "nf4"):
            quantise(part, precision, card)
    adapter = Adapter.inject(skeleton.parts, SUBJECT.shape, seed=0)
    recompute(skeleton.parts, how)
    matrices = [matrix for part in ALL for matrix in adapter.parameters(part)]
    optimizer = torch.optim.AdamW(matrices)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(card)
    for _ in range(3):
        loss = skeleton.answer(SUBJECT.side, *skeleton.read(batch)).float().pow(2).mean()
        loss.backward()
        optimizer.step()
        for matrix in matrices:
            assert matrix.grad is not None
            matrix.grad.zero_()  # kept, as the plan has it
    assert torch.cuda.max_memory_allocated(card) == pytest.approx(predicted, rel=0.1)
