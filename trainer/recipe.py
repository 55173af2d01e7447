"""What a picture is drawn from, and that recipe inside the picture: the `parameters` text that A1111 and its kin write.

Knows no torch; the page, the command line and the previewer's process pass these around.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from trainer.errors import UsageError, storing
from trainer.home import write_atomically
from trainer.settings import Prediction


@dataclass(frozen=True)
class LoraChoice:
    """A LoRA file with its weight in the U-Net and in the text encoders."""

    path: Path
    unet: float = 1.0
    text: float = 1.0

    @classmethod
    def parse(cls, given: str) -> LoraChoice:
        """`FILE`, `FILE:W` or `FILE:W:W_TE`, split from the right so that `C:\\style.safetensors:0.8` works."""
        path, numbers = given, list[float]()
        while len(numbers) < 2:
            head, _, tail = path.rpartition(":")
            try:
                numbers.insert(0, float(tail))
            except ValueError:
                break
            path = head
        if not path:
            raise UsageError(f"{given} names no LoRA file.")
        if any(not -10 <= number <= 10 for number in numbers):
            raise UsageError(f"The weights in {given} must be numbers from -10 to 10.")
        unet = numbers[0] if numbers else 1.0
        return cls(Path(path), unet, numbers[1] if len(numbers) > 1 else unet)


@dataclass(frozen=True)
class Request:
    """One picture to be drawn. Sizes in pixels."""

    prompt: str
    negative: str = ""
    seed: int = 1
    steps: int = 25
    cfg: float = 6.0
    width: int = 1024
    height: int = 1024
    loras: tuple[LoraChoice, ...] = field(default=())
    prediction: Literal["auto", Prediction] = "auto"
    """What the base's U-Net answers with, where its file does not tell."""

    def __post_init__(self) -> None:
        """Refuse what no base can draw. Raises `UsageError`."""
        limits = {"steps": (1, 200), "cfg": (1, 30), "width": (64, 4096), "height": (64, 4096), "seed": (0, 2**63 - 1)}
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                raise UsageError(f"{name} must be from {least} to {most}, not {getattr(self, name)}.")
        if self.width % 32 or self.height % 32:
            raise UsageError(f"Width and height must be multiples of 32, not {self.width}x{self.height}.")

    def to_json(self) -> dict[str, Any]:
        """Plain values, as they go between processes."""
        return {**asdict(self), "loras": [[str(lora.path), lora.unet, lora.text] for lora in self.loras]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Request:
        """The inverse of `to_json`."""
        loras = tuple(LoraChoice(Path(path), unet, text) for path, unet, text in values["loras"])
        return cls(**{**values, "loras": loras})


def infotext(request: Request, base: str) -> str:
    """The recipe in A1111's words, LoRAs as `<lora:name:weight>` tags."""
    tags = "".join(f" <lora:{lora.path.stem}:{lora.unet:g}>" for lora in request.loras if lora.unet or lora.text)
    lines = [request.prompt + tags]
    if request.negative:
        lines.append(f"Negative prompt: {request.negative}")
    lines.append(
        f"Steps: {request.steps}, Sampler: Euler, CFG scale: {request.cfg:g}, Seed: {request.seed}, "
        f"Size: {request.width}x{request.height}, Model: {Path(base).name.removesuffix('.safetensors')}"
    )
    return "\n".join(lines)


def write_png(path: Path, picture: Image.Image, text: str) -> None:
    """A PNG with its recipe. Raises `StorageError`."""
    info, content = PngInfo(), io.BytesIO()
    info.add_text("parameters", text)
    picture.save(content, "PNG", pnginfo=info)
    with storing(path):
        write_atomically(path, content.getvalue())
