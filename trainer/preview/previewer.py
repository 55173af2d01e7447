"""A warm base that draws requests: lays the mix on, reads the prompt, samples, decodes.

Prompts are encoded once per mix of the text encoders; LoRA files are read once per change on disk. On a card without room
for the whole base only the U-Net stays there: text encoders and VAE come when they are needed and go again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import nn

from trainer.bases.fingerprint import remarks
from trainer.bases.origin import Remark
from trainer.bases.source import Facts
from trainer.errors import DrawingError
from trainer.lora.file import LoraFile
from trainer.lora.mix import Canvas, Weighted
from trainer.recipe import LoraChoice, Request
from trainer.sdxl.base import Base, load_base
from trainer.sdxl.device import best_device, drawing_dtype, free_bytes, out_of_memory
from trainer.sdxl.memory import DrawingNeeds, DrawingSizes, way_to_draw
from trainer.sdxl.sampler import Sampling, sample, to_picture
from trainer.sdxl.text import TextFeatures, aligned, encode_prompt, unconditional
from trainer.settings import Prediction

CPU = torch.device("cpu")
ROOM = 2**30
"""Bytes that drawing takes beside the weights: the U-Net at 1024 px with guidance, or the VAE on a tile of 512 px."""
ROOMY = 9 * 2**30
"""With so much free a card holds all of SDXL in float16 (6.6 GiB), `ROOM` and the reserve."""


@dataclass(frozen=True)
class Drawn:
    """One step of a drawing; `picture` is there after the last one."""

    step: int
    steps: int
    picture: Image.Image | None = None


def way_for(base: Base, device: torch.device) -> DrawingNeeds:
    """How to draw with `base` on `device`, by what is free there; what of the base is there already counts as free."""

    def bytes_of(*models: nn.Module) -> int:
        return sum(weight.nbytes for model in models for weight in model.parameters())

    here = sum(part.nbytes for model in base.models.values() for part in model.parameters() if part.device.type == device.type)
    linears = [layer for part in base.parts.values() for layer in part.modules() if isinstance(layer, nn.Linear)]
    sizes = DrawingSizes(
        unet=bytes_of(base.unet),
        text=bytes_of(base.te1, base.te2),
        vae=bytes_of(base.vae),
        mixable=sum(layer.weight.nbytes for layer in linears),
        guided=ROOM,
        whole=ROOM,  # the VAE itself sees to tiles
        tile=ROOM,
    )
    way, _ = way_to_draw(sizes, free_bytes(device) + here, card=device.type == "cuda")
    return way


class Previewer:
    """Draws with one base, kept loaded."""

    def __init__(self, base: Base, device: torch.device | None = None) -> None:
        """Draw on `device`, else where the base is; the base may still be on the CPU."""
        self.base = base
        self._device = device or base.device
        way = way_for(base, self._device)
        self._canvas = Canvas(base.parts, base.version, CPU if way.copies_away else None)
        self._home = CPU if way.visiting else self._device
        for visitor in (base.te1, base.te2, base.vae):
            visitor.to(self._home)
        base.unet.to(self._device)
        self._files: dict[tuple[Path, int, int], LoraFile] = {}
        self._texts: dict[tuple[str, tuple[tuple[Path, float], ...]], TextFeatures] = {}

    @classmethod
    def load(cls, source: str | Facts) -> Previewer:
        """A previewer on the best device. Raises `BaseModelError`."""
        device = best_device()
        tight = device.type == "cuda" and free_bytes(device) < ROOMY  # then only what is needed goes to the card
        return cls(load_base(source, CPU if tight else device, drawing_dtype(device)), device)

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

    def remarks(self, loras: Sequence[LoraChoice], prediction: Literal["auto", Prediction], cache: Path) -> list[Remark]:
        """What to say of these LoRAs on this base, which may be read once for it. Raises `LoraFileError`."""
        facts = self.base.facts.overruled("auto", prediction)
        heard = [choice.path for choice in loras if choice.unet or choice.text]
        return remarks(facts, [(path.stem, self.read(path).metadata) for path in heard], cache)

    def draw(self, request: Request) -> Iterator[Drawn]:
        """Yield after every step; the last one carries the picture. Raises `LoraFileError`, `DrawingError`."""
        try:
            yield from self._draw(request)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            raise DrawingError(
                f"Memory ran out while a picture of {request.width}x{request.height} was drawn. "
                "Close other programs that use the card, or choose a smaller size."
            ) from None

    def picture(self, request: Request) -> Image.Image:
        """The finished picture."""
        *_, last = self.draw(request)
        assert last.picture is not None
        return last.picture

    def _draw(self, request: Request) -> Iterator[Drawn]:
        self.lay(request.loras)
        prompt, negative = self._conditions(request)
        how = Sampling(request.width, request.height, request.steps, request.cfg, (request.seed,))
        base = self.base.predicting(request.prediction)
        for step, latents in enumerate(sample(base, prompt, negative, how), start=1):
            picture = None
            if step == request.steps:
                with self._visit(self.base.vae):
                    picture = to_picture(self.base.decode(latents)[0])
            yield Drawn(step, request.steps, picture)

    def _conditions(self, request: Request) -> tuple[TextFeatures, TextFeatures]:
        """What the prompt says and what the negative prompt says, of one length; each is encoded once."""
        mix = tuple((lora.path.resolve(), lora.text) for lora in request.loras if lora.text)
        asked = [request.prompt, *([request.negative] if request.negative else [])]
        fresh = [prompt for prompt in asked if (prompt, mix) not in self._texts]
        if fresh:
            if len(self._texts) >= 256:
                self._texts.clear()
                fresh = asked
            with torch.no_grad(), self._visit(self.base.te1, self.base.te2):
                self._texts.update({(prompt, mix): encode_prompt(self.base, [prompt]) for prompt in fresh})
        prompt, *negative = aligned([self._texts[prompt, mix] for prompt in asked])
        return prompt, negative[0] if negative else unconditional(prompt)

    @contextmanager
    def _visit(self, *models: nn.Module) -> Iterator[None]:
        """Models on the drawing device, and afterwards back where they live."""
        try:
            for model in models:
                model.to(self._device)
            yield
        finally:
            for model in models:
                model.to(self._home)
