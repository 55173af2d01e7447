"""The style sheet: the base beside the LoRA at weights 0.5 and 1.0, the same seeds, eight prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from trainer.data.captions import with_trigger
from trainer.presets import DEFAULT, load
from trainer.preview.previewer import Previewer
from trainer.recipe import LoraChoice, Request
from trainer.sdxl.prompt import literal
from trainer.settings import Prediction

WEIGHTS = (0.0, 0.5, 1.0)
PROMPTS: dict[str, tuple[str, ...]] = {
    "starter": (
        "a red house on the left, on grass, blue sky",
        "a blue boat in the middle, on water, sunset sky",
        "a yellow flower in the middle, on grass, blue sky",
        "a white rocket on the right, on earth, night sky with a star",
        "an orange fish in the middle, on water, grey sky",
        "a purple car on the right, on sand, blue sky with a cloud",
        "a green tree on the left and a red mushroom on the right, on grass, blue sky",
        "a pink house on the left and a black car on the right, on snow, grey sky",
    ),
    "sdxl": (
        "portrait of a woman with short hair, looking at the viewer",
        "an old fisherman mending a net in a harbour",
        "a fox in a forest clearing",
        "a bowl of fruit on a kitchen table",
        "a narrow street in a small town after rain",
        "a mountain lake at dawn",
        "a city skyline with a river in front",
        "a robot watering plants in a greenhouse",
    ),
}
_PAPER, _INK, _MARGIN = (250, 248, 244), (40, 38, 36), 8


@dataclass(frozen=True)
class Sheet:
    """A sheet under way: `done` of `total` steps of all its pictures; `picture` is there at the end."""

    done: int
    total: int
    picture: Image.Image | None = None


def draw_sheet(
    previewer: Previewer, path: Path, seed: int = 1, prediction: Literal["auto", Prediction] = "auto"
) -> Iterator[Sheet]:
    """Draw the sheet of a LoRA file; columns are prompts, rows are weights. Raises `LoraFileError`.

    The base's row is drawn without the trigger word, which the base does not know: it shows what the LoRA started from.
    """
    lora, base = previewer.read(path), previewer.base
    side = base.resolution
    starting = load(DEFAULT).settings(base.family)
    prompts = PROMPTS["starter" if base.family == "starter" else "sdxl"]
    total = len(WEIGHTS) * len(prompts) * starting.sample_steps
    cells: list[list[Image.Image]] = []
    for weight in WEIGHTS:
        row: list[Image.Image] = []
        cells.append(row)
        for number, prompt in enumerate(prompts):
            asked = with_trigger(prompt, literal(lora.trigger)) if weight else prompt
            request = Request(
                prompt=asked, seed=seed + number, steps=starting.sample_steps, cfg=starting.sample_cfg,
                width=side, height=side, loras=(LoraChoice(path, weight, weight),), prediction=prediction,
            )  # fmt: skip
            begun, picture = sum(map(len, cells)) * request.steps, None
            for drawn in previewer.draw(request):
                yield Sheet(begun + drawn.step, total)
                picture = drawn.picture
            assert picture is not None
            row.append(picture)
    title = [lora.name, *([f"trigger word {lora.trigger}"] if lora.trigger else [])]
    title += ["only for the starter base"] if base.family == "starter" else []
    finished = _composed(cells, ["  ·  ".join(title), *prompts])
    yield Sheet(total, total, finished)


def _composed(cells: list[list[Image.Image]], texts: list[str]) -> Image.Image:
    """The cells in a grid with the weights at the left, the title above and the prompts below."""
    side = max(cells[0][0].width, 128)
    font, head, left, line = ImageFont.load_default(max(11, side // 12)), side // 4, side // 2 + 16, max(15, side // 9)
    width = left + len(cells[0]) * (side + _MARGIN)
    lines = [_wrapped(text, font, side) for text in texts[1:]]
    height = head + len(cells) * (side + _MARGIN) + max(map(len, lines)) * line + _MARGIN
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, head // 3), texts[0], _INK, font)
    for row, (weight, pictures) in enumerate(zip(WEIGHTS, cells, strict=True)):
        top = head + row * (side + _MARGIN)
        pen.text((_MARGIN, top + side // 2 - line // 2), "base" if weight == 0 else f"at {weight:g}", _INK, font)
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (left + column * (side + _MARGIN), top))
    for column, wrapped in enumerate(lines):
        for number, text in enumerate(wrapped):
            place = (left + column * (side + _MARGIN), head + len(cells) * (side + _MARGIN) + number * line)
            pen.text(place, text, _INK, font)
    return sheet


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """`text` in lines no wider than `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
