"""Captions by BLIP (Li et al. 2022)."""

from __future__ import annotations

import re
from pathlib import Path

from transformers import BlipForConditionalGeneration, BlipProcessor

from trainer.captioning.captioner import Look
from trainer.captioning.vision import Vision

BEAMS = 3
"""As in the paper's evaluation."""

MOST_TOKENS = 50

_SLIP = re.compile(r"\barafed?\w*\b ?", re.IGNORECASE)
"""A word that there is not; the large model often begins with it, in the place of an article."""


class Blip:
    """See `Captioner`."""

    def __init__(self, folder: Path) -> None:
        """Raises `CaptionerError`."""
        self._vision = Vision(folder, BlipForConditionalGeneration, BlipProcessor)
        self.remarks = self._vision.remarks

    def caption(self, name: str, look: Look) -> str:
        """See `Captioner`."""
        inputs = self._vision.processor(images=look(), return_tensors="pt")
        return without_slips(self._vision.text(inputs, num_beams=BEAMS, max_new_tokens=MOST_TOKENS))


def without_slips(text: str) -> str:
    """The text without BLIP's "arafed": "arafed woman" -> "a woman", "two arafed dogs" -> "two dogs"."""
    first = _SLIP.match(text)
    rest = _SLIP.sub("", text)
    if not first or not rest:
        return rest
    return f"{'an' if rest[0].lower() in 'aeiou' else 'a'} {rest}"
