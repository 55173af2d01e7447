"""The style sheet: the base beside the LoRA, the same seeds in each column."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.preview.test_previewer import save_lora
from trainer.lora.file import LoraFile, write
from trainer.preview import sheet as module
from trainer.preview.previewer import Drawn, Previewer
from trainer.preview.sheet import draw_sheet
from trainer.recipe import Request
from trainer.sdxl.base import load_base


class Brush(Previewer):
    """A previewer that paints in plain colours: which, depends on the seed and the weight alone."""

    def __init__(self, folder: Path) -> None:
        super().__init__(load_base(str(folder), torch.device("cpu"), torch.float32))
        self.asked: list[Request] = []

    def draw(self, request: Request, live: bool = False) -> Iterator[Drawn]:
        self.asked.append(request)
        yield from (Drawn(step, request.steps) for step in range(1, request.steps))
        colour = (10 * request.seed, int(200 * request.loras[0].unet), 99)
        yield Drawn(request.steps, request.steps, Image.new("RGB", (request.width, request.height), colour))


@pytest.fixture
def brush(toy_base: Path) -> Brush:
    return Brush(toy_base)


@pytest.fixture
def lora(toy_base: Path, tmp_path: Path) -> Path:
    return save_lora(toy_base, tmp_path / "style.safetensors")


def test_there_are_eight_prompts_at_three_weights(brush: Brush, lora: Path) -> None:
    told = list(draw_sheet(brush, lora, seed=3))
    steps = 24 * brush.asked[0].steps
    assert len(brush.asked) == 24
    assert [sheet.done for sheet in told] == [*range(1, steps + 1), steps]
    assert {sheet.total for sheet in told} == {steps}
    assert [sheet.picture is not None for sheet in told] == [False] * steps + [True]
    assert {asked.loras[0].unet for asked in brush.asked} == {0.0, 0.5, 1.0}


def test_a_column_has_one_seed_and_one_prompt(brush: Brush, lora: Path) -> None:
    list(draw_sheet(brush, lora, seed=3))
    columns = [{(asked.seed, asked.prompt) for asked in brush.asked[column::8]} for column in range(8)]
    assert all(len(column) == 1 for column in columns)
    assert [seed for column in columns for seed, _ in column] == list(range(3, 11))


def test_the_trigger_word_is_kept_from_the_base(brush: Brush, lora: Path) -> None:
    plain = LoraFile.read(lora)
    write(lora, plain.factors, {**plain.metadata, "modelspec.trigger_phrase": "vellorn"})
    list(draw_sheet(brush, lora))
    prompts = module.PROMPTS["sdxl"]
    assert tuple(asked.prompt for asked in brush.asked[:8]) == prompts
    assert [asked.prompt for asked in brush.asked[8:]] == 2 * [f"vellorn, {prompt}" for prompt in prompts]


def test_brackets_in_a_trigger_word_are_meant(brush: Brush, lora: Path) -> None:
    plain = LoraFile.read(lora)
    write(lora, plain.factors, {**plain.metadata, "modelspec.trigger_phrase": "artist_(style)"})
    list(draw_sheet(brush, lora))
    assert {asked.prompt.partition(", ")[0] for asked in brush.asked[8:]} == {r"artist_\(style\)"}


def test_every_cell_is_where_it_belongs(brush: Brush, lora: Path) -> None:
    *_, last = draw_sheet(brush, lora, seed=1)
    assert last.picture is not None
    colours = {colour for _, colour in last.picture.getcolors(1 << 24) or []}
    for weight in (0.0, 0.5, 1.0):
        for seed in range(1, 9):
            assert (10 * seed, int(200 * weight), 99) in colours


def test_sdxl_is_not_drawn_with_the_starters_prompts(brush: Brush, lora: Path) -> None:
    list(draw_sheet(brush, lora))
    assert tuple(asked.prompt for asked in brush.asked[:8]) == module.PROMPTS["sdxl"]
