"""Captions by Florence-2 (Xiao et al. 2023), as transformers' own class reads it."""

from __future__ import annotations

from pathlib import Path

from transformers import Florence2ForConditionalGeneration, Florence2Processor

from trainer.captioning.captioner import Look
from trainer.captioning.models import Length
from trainer.captioning.vision import Vision

TASKS: dict[Length, str] = {"short": "<CAPTION>", "long": "<DETAILED_CAPTION>", "longest": "<MORE_DETAILED_CAPTION>"}

BEAMS = 3
"""As the model's card has it."""

MOST_TOKENS = 256


class Florence:
    """See `Captioner`."""

    def __init__(self, folder: Path, length: Length) -> None:
        """Raises `CaptionerError`."""
        self._vision = Vision(folder, Florence2ForConditionalGeneration, Florence2Processor)
        self._task = TASKS[length]
        self.remarks = self._vision.remarks

    def caption(self, name: str, look: Look) -> str:
        """See `Captioner`."""
        inputs = self._vision.processor(text=self._task, images=look(), return_tensors="pt")
        return self._vision.text(inputs, num_beams=BEAMS, max_new_tokens=MOST_TOKENS)
