"""What a picture is drawn from, and that recipe inside the picture: the `parameters` text that A1111 and its kin write.

Knows no torch; the page, the command line and the previewer's process pass these around. A picture often leaves the computer
that it was drawn on, so its recipe names files, never folders.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PureWindowsPath
from typing import Any, Literal, get_args

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from trainer.errors import UsageError, storing
from trainer.home import write_atomically
from trainer.settings import STYLE_BLOCK, Prediction

Sampler = Literal[
    "Euler", "Euler a", "Heun", "DPM++ 2M", "DPM++ 2M Karras", "DPM++ SDE", "DPM++ SDE Karras", "DPM++ 2M SDE",
    "DPM++ 2M SDE Karras", "UniPC", "DDIM", "LCM",
]  # fmt: skip
"""The ways from noise to a picture, by the names that people know."""
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)


def sampler_named(name: str) -> str:
    """A sampler by its name in whatever case; the name itself if there is none such."""
    return next((known for known in SAMPLERS if known.casefold() == name.casefold()), name)


_STYLE = (("unet", 0.0), (STYLE_BLOCK, 1.0))
_NUMBER = r"[0-9.]+(?:e-?[0-9]+)?"


@dataclass(frozen=True)
class LoraChoice:
    """A LoRA file with its weight in the U-Net and in the text encoders.

    `blocks` multiply the U-Net's weight in parts of it, by the beginnings of module paths; `unet` is all that is not named.
    `begin` and `end` are shares of the steps between which the U-Net has the LoRA; the prompt is read once, with its text
    encoders' weight.
    """

    path: Path
    unet: float = 1.0
    text: float = 1.0
    blocks: tuple[tuple[str, float], ...] = ()
    begin: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what makes no sense on any base. Raises `UsageError`."""
        if not all(-10 <= number <= 10 for number in (self.unet, self.text, *dict(self.blocks).values())):
            raise UsageError(f"The weights of {self.path.name} must be numbers from -10 to 10.")
        if not 0 <= self.begin < self.end <= 1:
            raise UsageError(
                f"The steps of {self.path.name} must be shares from 0 to 1, the smaller first, such as @steps=0.2-0.8."
            )

    @classmethod
    def parse(cls, given: str) -> LoraChoice:
        """`FILE`, `FILE:W` or `FILE:W:W_TE`, split from the right so that `C:\\style.safetensors:0.8` works; behind it parts.

        Parts are `@style`, `@BLOCK=FACTOR` and `@steps=FROM-TO`, with commas for further `@` if one likes (PowerShell takes
        a comma for its own). A piece with a slash, a colon or `.safetensors` in it belongs to the file's name.
        """
        found = re.fullmatch(r"(.*?)((?:@(?![^@]*\.safetensors)[^@/\\:]*)*)", given, re.DOTALL)
        assert found
        path, numbers = found[1], list[float]()
        while len(numbers) < 2:
            head, _, tail = path.rpartition(":")
            try:
                numbers.insert(0, float(tail))
            except ValueError:
                break
            path = head
        if not path:
            raise UsageError(f"{given} names no LoRA file.")
        if over := re.search(r"\.safetensors:([^/\\]*)$", path, re.IGNORECASE):
            name, wrong = path[: over.start(1) - 1], found[1][over.start(1) :]
            raise UsageError(f'"{wrong}" is no weight: write {name}:0.8 or {name}:0.8:0.5, with a point.')
        unet = numbers[0] if numbers else 1.0
        return cls(Path(path), unet, numbers[1] if len(numbers) > 1 else unet).with_parts(found[2])

    def with_parts(self, parts: str) -> LoraChoice:
        """The same with `parts`, such as `@style@steps=0.2-0.8`. Raises `UsageError`."""
        blocks, begin, end = dict[str, float](), 0.0, 1.0
        for part in re.split("[@,]", parts)[1:]:
            name, _, number = part.partition("=")
            if not part:
                raise UsageError("Behind an @ there must be a part of the LoRA, such as @style: add one, or take the @ away.")
            steps = re.fullmatch(f"steps=({_NUMBER})-({_NUMBER})", part)
            if steps:
                begin, end = _float(steps[1]), _float(steps[2])
            elif part == "style":
                blocks |= dict(_STYLE)
            elif name and name != "steps" and not math.isnan(_float(number)):
                blocks[name] = _float(number)
            else:
                raise UsageError(
                    f"{part!r} is no part of a LoRA: use @style, or @BLOCK=FACTOR such as @down_blocks=0.3, "
                    "or @steps=FROM-TO such as @steps=0.2-0.8."
                )
        return replace(self, blocks=tuple(blocks.items()), begin=begin, end=end)

    @property
    def parts(self) -> str:
        """What `with_parts` reads; empty for all of the LoRA in all steps."""
        said = ["style"] if self.blocks == _STYLE else [f"{block}={_short(factor)}" for block, factor in self.blocks]
        if (self.begin, self.end) != (0, 1):
            said.append(f"steps={_short(self.begin)}-{_short(self.end)}")
        return "".join(f"@{part}" for part in said)

    @property
    def heard(self) -> bool:
        """Whether it has any weight."""
        return bool(self.unet or self.text)

    def in_step(self, step: int, steps: int) -> bool:
        """Whether the U-Net has the LoRA in a step, counted from 0; ends fall on the nearest step, and one it has at least."""
        first = min(round(self.begin * steps), steps - 1)
        return first <= step < max(round(self.end * steps), first + 1)

    def to_json(self) -> list[Any]:
        """Plain values: path, weights, and parts if there are any."""
        return [str(self.path), self.unet, self.text, *([self.parts] if self.parts else [])]

    @classmethod
    def from_json(cls, values: Sequence[Any]) -> LoraChoice:
        """The inverse of `to_json`. Raises `UsageError`."""
        path, unet, text, *parts = values
        return cls(Path(path), float(unet), float(text)).with_parts("".join(parts))


def _float(text: str) -> float:
    """The number in a text; NaN, which no bounds hold, if there is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _short(number: float) -> str:
    """The shortest text that reads back as the same number."""
    return repr(float(number)).removesuffix(".0")


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
    sampler: Sampler = "Euler"
    equal_strength: bool = False
    """Whether the LoRAs are scaled so that at equal weights all change the U-Net equally much."""

    def __post_init__(self) -> None:
        """Refuse what no base can draw. Raises `UsageError`."""
        limits = {"steps": (1, 200), "cfg": (1, 30), "width": (64, 4096), "height": (64, 4096), "seed": (0, 2**63 - 1)}
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                raise UsageError(f"{name} must be from {least} to {most}, not {getattr(self, name)}.")
        if self.sampler not in SAMPLERS:
            raise UsageError(f"There is no sampler {self.sampler}. Choose one of: {', '.join(SAMPLERS)}.")
        if self.prediction not in ("auto", *get_args(Prediction)):
            raise UsageError(f"A base predicts {' or '.join(get_args(Prediction))}, or auto for what its file tells.")
        if self.width % 32 or self.height % 32:
            raise UsageError(f"Width and height must be multiples of 32, not {self.width}x{self.height}.")

    def to_json(self) -> dict[str, Any]:
        """Plain values, as they go between processes."""
        return {**asdict(self), "loras": [lora.to_json() for lora in self.loras]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Request:
        """The inverse of `to_json`. Raises `UsageError`; `TypeError`, `KeyError` for values of another kind."""
        for name, value in values.items():
            if type(value) is not type(_DEFAULTS[name]) and (name, type(value)) != ("cfg", int):
                raise TypeError(f"{name} is {value!r}")
        loras = tuple(LoraChoice.from_json(lora) for lora in values["loras"])
        return cls(**{**values, "loras": loras})


_DEFAULTS = Request("").to_json()


def infotext(request: Request, base: str) -> str:
    """The recipe in A1111's words, LoRAs as `<lora:name:weight>` tags; what those words lose stands behind them as JSON."""
    loras = [replace(lora, path=Path(lora.path.name)) for lora in request.loras if lora.heard]
    base = _without_folder(base)
    named = {**replace(request, loras=tuple(loras)).to_json(), "base": base}
    lines = [request.prompt + "".join(map(_tag, loras))]
    if request.negative:
        lines.append(f"Negative prompt: {request.negative}")
    lines.append(
        f"Steps: {request.steps}, Sampler: {request.sampler}, CFG scale: {_short(request.cfg)}, Seed: {request.seed}, "
        f"Size: {request.width}x{request.height}, Model: {_quoted(Path(base).name.removesuffix('.safetensors'))}"
    )
    text = "\n".join(lines)
    kept = _in_words(text)
    lost = {name: value for name, value in named.items() if value != kept.get(name, _DEFAULTS.get(name))}
    return f"{text}, Impasto: {_quoted(json.dumps(lost))}" if lost else text


def read_infotext(text: str, said: Mapping[str, Any] | None = None) -> tuple[Request, str]:
    """The recipe and the base in a picture's `parameters`, ours or A1111's; LoRAs by their file names.

    What is `said` of the request goes over it, so that a sampler or a size that is not known here can be replaced.
    Raises `UsageError`.
    """
    try:
        values = _in_words(text)
        ours = _divided(text)[1].get("Impasto")
        values = {**values, **(json.loads(ours) if ours else {}), **(said or {})}
        base = _without_folder(str(values.pop("base", "")))
        return Request.from_json(values), base
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError(f"The picture's recipe is damaged, or of a program that is not known here ({error}).") from None


def recipe_of(picture: Path, folders: Sequence[Path], said: Mapping[str, Any] | None = None) -> tuple[Request, str]:
    """The recipe in a PNG, its LoRAs where they are found in `folders`, and its base; `said` as for `read_infotext`.

    Raises `UsageError`.
    """
    request, base = read_infotext(_words_in(picture), said)
    loras = (replace(lora, path=_found(lora.path, folders)) for lora in request.loras)
    return replace(request, loras=tuple(loras)), base


def is_own(picture: Path) -> bool:
    """Whether a file is a picture with a recipe as this program writes it: others use the same words, and more of them."""
    try:
        text = _words_in(picture)
        return infotext(*read_infotext(text)) == text
    except UsageError:
        return False


def _words_in(picture: Path) -> str:
    """A picture's `parameters`. Raises `UsageError`."""
    try:
        with Image.open(picture) as opened:
            text = opened.info.get("parameters")
    except FileNotFoundError:
        raise UsageError(f"There is no file {picture}.") from None
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
        raise UsageError(f"{picture} is no picture that can be read.") from None
    if not isinstance(text, str):
        raise UsageError(f"{picture.name} carries no recipe: draw with Impasto or A1111, and send the file as it is.")
    return text


def _found(path: Path, folders: Sequence[Path]) -> Path:
    """Where a file lies; only its name if nowhere. A picture of somebody else's must not say where to look."""
    return next((folder / path.name for folder in folders if (folder / path.name).is_file()), Path(path.name))


def _without_folder(base: str) -> str:
    """A base as a recipe may name it: a path from the root is of one computer alone, and a stranger's is not to be tried."""
    path = PureWindowsPath(base)  # which knows both kinds of slashes
    return path.name.removesuffix(".safetensors") if path.anchor or base.startswith("~") else base


def _tag(lora: LoraChoice) -> str:
    """A LoRA in A1111's words: `<lora:name:weight>`, or `<lora:name:text encoders:U-Net>`."""
    weights = f"{lora.text:g}:{lora.unet:g}" if lora.text != lora.unet else f"{lora.unet:g}"
    return f" <lora:{lora.path.stem}:{weights}>"


_WEIGHT = r"(?::(-?[0-9]*\.?[0-9]+(?:e-?[0-9]+)?))?"
_TAG = re.compile(rf" ?<lora:([^:>]+){_WEIGHT}{_WEIGHT}>")
_SETTING = re.compile(r'\s*(\w[\w \-/]{1,40}):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
"""As A1111 reads the last line: names and values, which are quoted if they hold a comma."""


def _quoted(text: str) -> str:
    """A value of the last line, as A1111 writes it."""
    return json.dumps(text) if re.search('[,:\n"]', text) else text


def _unquoted(value: str) -> str:
    """The inverse of `_quoted`; what is quoted otherwise stays as it is."""
    with suppress(ValueError):
        return str(json.loads(value)) if value[:1] == '"' else value
    return value


def _divided(text: str) -> tuple[str, dict[str, str]]:
    """What stands above the last line, and the last line's values by their names; the first of a name counts."""
    above, _, last = text.replace("\r\n", "\n").rstrip().rpartition("\n")
    return above, {name: _unquoted(value) for name, value in reversed(_SETTING.findall(last))}


def _in_words(text: str) -> dict[str, Any]:
    """What A1111's words say of a request, as its plain values. Raises `ValueError`, `KeyError`."""
    above, known = _divided(text)
    prompt, _, negative = f"\n{above}".partition("\nNegative prompt: ")
    prompt = prompt[1:]
    loras = [
        [re.split(r"[\\/]", name)[-1] + ".safetensors", float(unet or text or 1), float(text or 1)]
        for name, text, unet in _TAG.findall(prompt)
    ]
    width, _, height = known["Size"].partition("x")
    sampler = " ".join(known[name] for name in ("Sampler", "Schedule type") if known.get(name, "Automatic") != "Automatic")
    return {
        "prompt": _TAG.sub("", prompt), "negative": negative, "seed": int(known["Seed"]), "steps": int(known["Steps"]),
        "cfg": float(known["CFG scale"]), "width": int(width), "height": int(height), "loras": loras, "sampler": sampler,
        "base": known.get("Model", ""),
    }  # fmt: skip


def write_png(path: Path, picture: Image.Image, text: str) -> None:
    """A PNG with its recipe. Raises `StorageError`."""
    info, content = PngInfo(), io.BytesIO()
    info.add_text("parameters", text)
    picture.save(content, "PNG", pnginfo=info)
    with storing(path):
        write_atomically(path, content.getvalue())
