"""A warm base that draws requests: lays the mix on, reads the prompt, samples, decodes.

Prompts are encoded once per mix of the text encoders; LoRA files are read once per change on disk. A LoRA that counts in a
share of the steps alone is laid on the U-Net, and taken off, between two steps. On a card without room for the whole base only
the U-Net stays there: text encoders and VAE come when they are needed and go again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
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
from trainer.lora.keys import component_of
from trainer.lora.mix import Canvas
from trainer.lora.weights import Weighted, equalising
from trainer.preview.kept import Kept
from trainer.recipe import LoraChoice, Request
from trainer.sdxl.base import Base, load_base
from trainer.sdxl.device import best_device, drawing_dtype, free_bytes, out_of_memory
from trainer.sdxl.glimpse import fit, glimpse
from trainer.sdxl.memory import DrawingNeeds, DrawingSizes, way_to_draw
from trainer.sdxl.sampler import Sampling, steps, to_picture
from trainer.sdxl.text import TextFeatures, aligned, encode_prompt, unconditional
from trainer.settings import Prediction

CPU = torch.device("cpu")
ROOM = 2**30
"""Bytes that drawing takes beside the weights: the U-Net at 1024 px with guidance, or the VAE on a tile of 512 px."""
ROOMY = 9 * 2**30
"""With so much free a card holds all of SDXL in float16 (6.6 GiB), `ROOM` and the reserve."""
FILES = 4 * 2**30
"""Bytes of LoRA files that are kept in memory, unless the mix itself has more."""

FileKey = tuple[Path, int, int]
"""A version of a file: its path, when it was written, and its size."""


@dataclass(frozen=True)
class Drawn:
    """One step of a drawing; `picture` is there after the last one, `glimpse` an eighth of its size if the drawing is live."""

    step: int
    steps: int
    picture: Image.Image | None = None
    glimpse: Image.Image | None = None


def way_for(base: Base, device: torch.device) -> DrawingNeeds:
    """How to draw with `base` on `device`, by what is free there; what of the base is there already counts as free."""

    def bytes_of(*models: nn.Module) -> int:
        return sum(weight.nbytes for model in models for weight in model.parameters())

    here = sum(part.nbytes for model in base.models.values() for part in model.parameters() if part.device.type == device.type)
    layers = (layer for part in base.parts.values() for layer in part.modules() if isinstance(layer, nn.Linear | nn.Conv2d))
    sizes = DrawingSizes(
        unet=bytes_of(base.unet),
        text=bytes_of(base.te1, base.te2),
        vae=bytes_of(base.vae),
        mixable=sum(layer.weight.nbytes for layer in layers),
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
        self._files = Kept[FileKey, LoraFile](most=FILES, size=lambda key: key[2])
        self._sizes = Kept[FileKey, float](most=256)
        self._texts = Kept[tuple[str, tuple[tuple[FileKey, float], ...]], TextFeatures](most=256)

    @classmethod
    def load(cls, source: str | Facts) -> Previewer:
        """A previewer on the best device. Raises `BaseModelError`."""
        device = best_device()
        tight = device.type == "cuda" and free_bytes(device) < ROOMY  # then only what is needed goes to the card
        return cls(load_base(source, CPU if tight else device, drawing_dtype(device)), device)

    def read(self, path: Path, beside: Sequence[Path] = ()) -> LoraFile:
        """The LoRA file, from memory unless it has changed; it takes no room from those `beside`. Raises `LoraFileError`."""
        if not path.is_file():
            return LoraFile.read(path)  # which says that it is not there
        needed = [_key(other) for other in beside if other.is_file()]
        return self._files.get(_key(path), partial(LoraFile.read, path), needed)

    def _read(self, loras: Sequence[LoraChoice]) -> list[LoraFile]:
        """The files of a mix. Raises `LoraFileError`."""
        paths = [choice.path for choice in loras]
        return [self.read(path, beside=paths) for path in paths]

    def lay(self, loras: Sequence[LoraChoice], equal_strength: bool = False) -> None:
        """Make the base's weights those of this mix, as in steps that have all of it. Raises `LoraFileError`, `UsageError`."""
        self._canvas.lay(self._mix(loras, equal_strength))

    def _mix(self, loras: Sequence[LoraChoice], equal_strength: bool) -> list[Weighted]:
        """The files with their weights. Raises `LoraFileError`."""
        files = self._read(loras)
        factors = [1.0] * len(files)
        if equal_strength:
            sized = zip(loras, files, strict=True)
            factors = equalising([self._size(one, file) if one.unet else 0.0 for one, file in sized])
        return [
            Weighted(file, choice.unet * factor, choice.text, dict(choice.blocks))
            for choice, file, factor in zip(loras, files, factors, strict=True)
        ]

    def _size(self, choice: LoraChoice, file: LoraFile) -> float:
        """How much a file changes the U-Net at weight 1, reckoned once. Raises `LoraFileError`."""
        return self._sizes.get(_key(choice.path), partial(self._canvas.size, file))

    def remarks(self, loras: Sequence[LoraChoice], prediction: Literal["auto", Prediction], cache: Path) -> list[Remark]:
        """What to say of these LoRAs on this base, which may be read once for it. Raises `LoraFileError`."""
        facts = self.base.facts.overruled("auto", prediction)
        heard = self._read([choice for choice in loras if choice.heard])
        partly = (Remark("note", _left_aside(file)) for file in heard if file.ignored or file.unknown)
        return [*remarks(facts, [(file.name, file.metadata) for file in heard], cache), *partly]

    def draw(self, request: Request, live: bool = False) -> Iterator[Drawn]:
        """Yield after every step; the last one carries the picture. Closed, it draws no further.

        Raises `LoraFileError`, `DrawingError`.
        """
        try:
            yield from self._draw(request, live)
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

    def _draw(self, request: Request, live: bool) -> Iterator[Drawn]:
        mix, here = self._mix(request.loras, request.equal_strength), _heard_in(0, request)
        self._canvas.lay(_within(mix, here))
        prompt, negative = self._conditions(request)
        how = Sampling(request.width, request.height, request.steps, request.cfg, (request.seed,), request.sampler)
        drawing = steps(self.base.predicting(request.prediction), prompt, negative, how)
        for step in range(request.steps):
            if here != _heard_in(step, request):
                here = _heard_in(step, request)
                self._canvas.lay(_within(mix, here))
            made, picture = next(drawing), None
            if step + 1 == request.steps:
                with self._visit(self.base.vae):
                    picture = to_picture(self.base.decode(made.latents)[0])
            yield Drawn(step + 1, request.steps, picture, glimpse(self._colours, made.clean[0]) if live else None)

    @cached_property
    def _colours(self) -> torch.Tensor:
        """What latents look like, for live pictures."""
        with self._visit(self.base.vae):
            return fit(self.base.vae)

    def _conditions(self, request: Request) -> tuple[TextFeatures, TextFeatures]:
        """What the prompt says and what the negative prompt says, of one length; each is encoded once per mix."""
        files = zip(request.loras, self._read(request.loras), strict=True)
        mix = tuple((_key(choice.path), choice.text) for choice, file in files if choice.text and _speaks(file))
        asked = [request.prompt, *([request.negative] if request.negative else [])]
        fresh = any((prompt, mix) not in self._texts for prompt in asked)
        with torch.no_grad(), self._visit(*((self.base.te1, self.base.te2) if fresh else ())):
            said = [self._texts.get((prompt, mix), partial(encode_prompt, self.base, [prompt])) for prompt in asked]
        prompt, *negative = aligned(said)
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


def _key(path: Path) -> FileKey:
    """The version of a file that lies there now."""
    status = path.stat()
    return path.resolve(), status.st_mtime_ns, status.st_size


def _left_aside(lora: LoraFile) -> str:
    """What of the file is not drawn with, and why."""
    reasons = Counter(lora.ignored.values())
    told = [f"{count} ({reason})" for reason, count in reasons.items()]
    if lora.unknown:
        told.append(f"{len(lora.unknown)} (unknown, such as {lora.unknown[0]})")
    return f"{lora.name} is drawn without {len(lora.ignored) + len(lora.unknown)} of its tensors: {', '.join(told)}."


def _speaks(lora: LoraFile) -> bool:
    """Whether it changes the text encoders."""
    return any(component_of(name) != "unet" for name in lora.layers)


def _heard_in(step: int, request: Request) -> list[bool]:
    """Which of the LoRAs the U-Net has in a step."""
    return [choice.in_step(step, request.steps) for choice in request.loras]


def _within(mix: Sequence[Weighted], here: Sequence[bool]) -> list[Weighted]:
    """The mix in a step: what is not there has no weight in the U-Net; the prompt was read before."""
    return [part if there else replace(part, unet=0.0) for part, there in zip(mix, here, strict=True)]
