"""The tab *Dataset*: which one, a new one, a sample style; and the panel that writes captions.

Pictures, captions, drop zone, trigger word, findings and masks are the page's own script (`assets/page/studio`): Gradio tells
it which dataset is to be seen, and it presses a hidden button where dropped pictures have begun a new one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from app.desk import Desk
from app.notice import told
from app.tabs.captions import CaptionsPanel
from trainer.data.arrival import adding
from trainer.errors import DatasetError, storing
from trainer.home import safe_name, shipped

HINT = "Drop the pictures of a style, twelve to fifty, to begin a dataset; `.txt` captions may come along."

IN_ORDER: dict[str, Any] = {"concurrency_id": "dataset", "concurrency_limit": 1}
"""One after the other: what shows a dataset must not be overtaken by what was asked for before it."""

STUDIO = '<div id="studio"></div>'
HOST = "<div data-host></div>"
"""Where the page's script puts what is its own."""

OPEN = "(dataset) => { window.impasto.open(dataset); }"

PLAN = "(plan) => { window.impasto.plan(plan); }"

LAST = """() => {
  try { return [localStorage.getItem("impasto-dataset") ?? ""]; } catch { return [""]; }
}"""
"""The dataset that this browser has shown last."""

MADE = "() => [window.impasto.made]"
"""The dataset that dropped pictures have begun."""

Updates = dict[Any, Any]


class DatasetTab:
    """The tab's components and what they do."""

    def __init__(self, desk: Desk) -> None:
        """Build the tab where the page is being built."""
        self.desk = desk
        self.shown = gr.Textbox(visible=False)
        self.plan = gr.Textbox(visible=False)
        self.made = gr.Button(visible="hidden", elem_id="dataset-made")
        plain: dict[str, Any] = {"padding": False, "apply_default_css": False}
        with gr.Row(elem_classes="impasto-line"):
            self.name = gr.Dropdown([], label="Dataset", elem_id="dataset-name", scale=2)
            self.new_name = gr.Textbox(label="New dataset", placeholder="its name, such as watercolour", max_lines=1, scale=2)
            self.create = gr.Button("Create", scale=1, min_width=100)
        with gr.Row():
            with gr.Column(scale=3):
                gr.HTML(HOST, elem_id="drop", **plain)
                self.hint = gr.Markdown(HINT, elem_classes="impasto-hint")
            with gr.Column(scale=2, min_width=300):
                gr.HTML(HOST, elem_id="trigger", **plain)
        with gr.Accordion("Start with a sample style", open=False) as self.samples, gr.Row():
            self.styles = {style.name: gr.Button(_title(style), size="sm") for style in _sample_styles()}
        gr.HTML(HOST, elem_id="findings", **plain)
        gr.HTML(STUDIO, elem_id="pictures", **plain)
        self.captions = CaptionsPanel(desk)
        gr.HTML(HOST, elem_id="mask", **plain)

    @property
    def outputs(self) -> list[Any]:
        """What a change of the dataset changes."""
        return [self.shown, self.name, self.new_name, self.hint, self.samples]

    def connect(self) -> None:
        """Wire the events."""
        quiet: dict[str, Any] = {"show_progress": "hidden", **IN_ORDER}
        self.opened(self.name.input(told(self.show), self.name, self.outputs, **quiet))
        self.opened(self.made.click(told(self.show), self.shown, self.outputs, js=MADE, **quiet))
        naming = [self.create.click, self.new_name.submit]
        self.opened(gr.on(naming, told(self.create_dataset), self.new_name, self.outputs, **IN_ORDER))
        for style, button in self.styles.items():
            self.opened(button.click(told(self.sample_adder(style)), None, self.outputs, **IN_ORDER))
        self.captions.connect(self.shown)

    def opened(self, event: Any) -> None:
        """After an event that may show another dataset, or other pictures, have the page show them."""
        event.then(None, self.shown, None, js=OPEN)
        event.then(self.captions.show, self.shown, self.captions.outputs, queue=False, show_progress="hidden")

    def loaded(self, page: gr.Blocks) -> None:
        """When the page is loaded, show what was shown last."""
        self.opened(page.load(self.show, self.shown, self.outputs, js=LAST, show_progress="hidden", **IN_ORDER))

    def planned(self, event: Any) -> None:
        """After an event that has put the settings of the next training into `plan`, tell the page's script of them."""
        event.then(None, self.plan, None, js=PLAN)

    def show(self, name: str | None) -> Updates:
        """A dataset, or what to do where there is none."""
        names = self.desk.dataset_names()
        if name not in names:
            name = names[0] if names else None
        return {
            self.name: gr.update(choices=names, value=name),
            self.shown: name or "",
            self.hint: gr.update(visible=not names),
            self.samples: gr.update(open=not names),
        }

    def create_dataset(self, name: str | None) -> Updates:
        """A new, empty dataset. Raises `DatasetError`, `StorageError`."""
        if not name or not name.strip():
            raise DatasetError("Give the new dataset a name first.")
        folder = self.desk.home.datasets / safe_name(name)
        if folder.exists():
            raise DatasetError(f"There is a dataset “{folder.name}” already: choose another name.")
        with storing(folder):
            folder.mkdir(parents=True)
        return {**self.show(folder.name), self.new_name: ""}

    def sample_adder(self, style: str) -> Any:
        """The handler that puts a sample style among the datasets."""

        def add_sample() -> Updates:
            source, folder = shipped("assets", "styles", style), self.desk.home.datasets / style
            if not folder.exists():
                for _ in adding.add(folder, [source]):
                    pass
            return self.show(style)

        return add_sample


def _sample_styles() -> list[Path]:
    return sorted(path for path in shipped("assets", "styles").iterdir() if path.is_dir())


def _title(style: Path) -> str:
    return style.name.replace("-", " ").capitalize()
