"""What the page's tests need: a desk in the test's home, with a dataset in it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import gradio as gr
import pytest
from PIL import Image

from app.desk import Desk
from trainer.home import Home

T = TypeVar("T")


def built(build: Callable[[], T]) -> T:
    """What `build` returns, built while an event loop runs: where none does, Gradio begins one and never closes it."""

    async def building() -> T:
        return build()

    return asyncio.run(building())


def in_blocks(build: Callable[[], T]) -> T:
    """A part of a page, built in a page of its own."""

    def page() -> T:
        with gr.Blocks(analytics_enabled=False):
            return build()

    return built(page)


def save_pictures(folder: Path, count: int, caption: str = "") -> list[Path]:
    """Small pictures, each with the same caption if one is given."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:02}.png" for number in range(1, count + 1)]
    for number, path in enumerate(paths):
        Image.new("RGB", (64, 64), (40 * number % 256, 90, 120)).save(path)
        if caption:
            path.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")
    return paths


@pytest.fixture
def desk(home: Home) -> Desk:
    """A desk; the dataset `stripes` holds three pictures, the dataset `empty` none."""
    save_pictures(home.datasets / "stripes", 3, "a picture")
    (home.datasets / "empty").mkdir()
    return Desk.of(home)
