"""The page: three tabs in one frame, and its look. What a tab does is said in `tabs/`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr

from app.desk import Desk
from app.notice import told
from app.tabs.dataset import DatasetTab
from app.tabs.preview import PreviewTab
from app.tabs.train import TrainTab
from trainer import __version__
from trainer.home import Home, shipped

PULSE = 3.0
"""Seconds between two signs of life of the page, see `_keep_listening`."""

CACHE_AGE = (3600, 86400)
"""Seconds between clearings of the page's own copies, and the age at which they go."""

_FONTS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

VIRIDIAN = gr.themes.Color(
    "#eef6f3", "#d5eae3", "#abd5c8", "#7dbba9", "#4f9c88", "#2f7f6c", "#22685a", "#1d5449", "#19433b", "#143630", "#0a1f1b"
)
CANVAS = gr.themes.Color(
    "#faf8f4", "#f3f0e9", "#e5e0d5", "#cfc8b9", "#a69e8e", "#7d766a", "#5d574e", "#45403a", "#2c2925", "#1f1d1a", "#161412"
)


def served(home: Home) -> list[Path]:
    """The folders whose pictures the page may show: small copies, and what was drawn here."""
    return [home.cache / "thumbnails", home.pictures]


def build(home: Home) -> tuple[Desk, gr.Blocks]:
    """The desk, and the page that works with it."""
    desk = Desk.of(home)
    gr.set_static_paths(served(home))  # shown from where they are, not copied
    with gr.Blocks(title="Impasto", analytics_enabled=False, delete_cache=CACHE_AGE, fill_width=True) as demo:
        gr.HTML(_header(), elem_id="impasto-header", padding=False)
        with gr.Tabs():
            with gr.Tab("Dataset", id="dataset") as dataset_tab:
                dataset = DatasetTab(desk)
            with gr.Tab("Train", id="train") as train_tab:
                train = TrainTab(desk)
            with gr.Tab("Preview", id="preview") as preview_tab:
                preview = PreviewTab(desk)
        for tab in (dataset, train, preview):
            tab.connect()
        bases = [train.base, preview.base]
        train.bases.connect(bases)
        _keep_listening()
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        dataset.loaded(demo)
        dataset.planned(gr.on([demo.load, dataset_tab.select], train.planned, train.inputs, dataset.plan, **quiet))
        demo.load(train.choose_dataset, dataset.name, train.dataset, **quiet)
        demo.load(train.show_latest, None, train.outputs, **quiet)
        demo.load(train.show_preset, [train.preset, train.base], [*train.form.components, train.only_starter], **quiet)
        demo.load(told(train.bases.show), None, [train.bases.list, *bases], **quiet)
        demo.load(preview.refresh, preview.choices, preview.choices, **quiet)
        demo.load(preview.show_defaults, preview.base, [preview.steps, preview.cfg], **quiet)
        train_tab.select(train.choose_dataset, dataset.name, train.dataset, **quiet)
        preview_tab.select(preview.refresh, preview.choices, preview.choices, **quiet)
    demo.queue(default_concurrency_limit=4, api_open=False)
    return desk, demo


def _keep_listening() -> None:
    """Keep the stream of answers open for as long as the page is.

    Gradio ends the stream whenever nothing is under way. A click in that very moment is carried out unseen, or not at all. So
    one event is always under way; where the connection broke, the timer begins another.
    """
    gr.Timer(PULSE).tick(_listen, None, None, show_progress="hidden", trigger_mode="once", concurrency_limit=None)


async def _listen() -> AsyncIterator[None]:
    """An event that never ends; Gradio closes it when the page has gone."""
    while True:
        yield None
        await asyncio.sleep(PULSE)


def theme() -> gr.themes.Base:
    """Canvas and viridian; only fonts that the computer has."""
    fonts = [gr.themes.Font(name) for name in _FONTS]
    mono = [gr.themes.Font(name) for name in _MONO]
    return gr.themes.Base(
        primary_hue=VIRIDIAN, secondary_hue=VIRIDIAN, neutral_hue=CANVAS, font=fonts, font_mono=mono, radius_size="sm"
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_800",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        background_fill_primary="white",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="*neutral_950",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_800",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_400",
        block_title_text_weight="600",
        block_shadow="none",
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_950",
        input_border_color="*neutral_200",
        input_border_color_dark="*neutral_700",
        input_border_color_focus="*primary_500",
        input_border_color_focus_dark="*primary_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_500",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        slider_color="*primary_500",
        slider_color_dark="*primary_400",
    )


def _header() -> str:
    mark = shipped("assets", "page", "icon.svg").read_text(encoding="utf-8")
    return (
        f'<header class="impasto-head">{mark}<h1>Impasto</h1>'
        f"<p>Pictures of a style in, a LoRA for SDXL out. Styles mixed with sliders.</p><small>{__version__}</small></header>"
    )
