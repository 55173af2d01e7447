"""A warm base that draws requests: lays the mix on, reads the prompt, samples, decodes.

Prompts are encoded once per mix of the text encoders; LoRA files are read once per change on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from trainer.lora.file import LoraFile
from trainer.lora.mix import Canvas, Weighted
from trainer.recipe import LoraChoice, Request
from trainer.sdxl.base import Base
from trainer.sdxl.sampler import Sampling, sample, to_picture
from trainer.sdxl.text import TextFeatures, encode_text, unconditional


@dataclass(frozen=True)
class Drawn:
    """One step of a drawing; `picture` is there after the last one."""

    step: int
    steps: int
    picture: Image.Image | None = None


class Previewer:
    """Draws with one base, kept loaded."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self._canvas = Canvas(base.parts, base.version)
        self._files: dict[tuple[Path, int, int], LoraFile] = {}
        self._texts: dict[tuple[str, tuple[tuple[Path, float], ...]], TextFeatures] = {}

    def read(self, path: Path) -> LoraFile:
        """The LoRA file, from memory unless it has changed. Raises `LoraFileError`."""
        if not path.is_file():
            return LoraFile.read(path)  # which says that it is not there
        status = path.stat()
        key = (path.resolve(), status.st_mtime_ns, status.st_size)
        if key not in self._files:
            self._files = {kept: lora for kept, lora in self._files.items() if kept[0] != key[0]}
            self._files[key] = LoraFile.read(path)
            self._texts.clear()
        return self._files[key]

    def lay(self, loras: Sequence[LoraChoice]) -> None:
        """Make the base's weights those of this mix. Raises `LoraFileError`."""
        self._canvas.lay([Weighted(self.read(choice.path), choice.unet, choice.text) for choice in loras])

    def draw(self, request: Request) -> Iterator[Drawn]:
        """Yield after every step; the last one carries the picture. Raises `LoraFileError`."""
        self.lay(request.loras)
        with torch.no_grad():
            prompt = self._text(request.prompt, request.loras)
            negative = self._text(request.negative, request.loras) if request.negative else unconditional(prompt)
            how = Sampling(request.width, request.height, request.steps, request.cfg, (request.seed,))
            for step, latents in enumerate(sample(self.base, prompt, negative, how), start=1):
                last = step == request.steps
                yield Drawn(step, request.steps, to_picture(self.base.decode(latents)[0]) if last else None)

    def picture(self, request: Request) -> Image.Image:
        """The finished picture."""
        *_, last = self.draw(request)
        assert last.picture is not None
        return last.picture

    def _text(self, prompt: str, loras: Sequence[LoraChoice]) -> TextFeatures:
        key = (prompt, tuple((lora.path.resolve(), lora.text) for lora in loras if lora.text))
        if key not in self._texts:
            if len(self._texts) >= 256:
                self._texts.clear()
            self._texts[key] = encode_text(self.base, [prompt])
        return self._texts[key]
