"""The folded panel *Write captions automatically*: a child writes them, and the gallery shows them as they come.

Knows what models there are by name; loads none. A page that is loaded again shows the same captioning: while it is under way
whatever dataset is shown, afterwards only with the one that it was for.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from app import render
from app.captioning import Told
from app.desk import Desk
from app.notice import literal, told
from trainer.captioning.models import LENGTHS, MODELS, Kind, Model, chosen
from trainer.errors import RunError

PULSE = 1.0
"""Seconds between two looks at a captioning that is under way."""

SENTENCES = {"short": "one short sentence", "long": "some sentences", "longest": "a paragraph"}

Updates = dict[Any, Any]


class CaptionsPanel:
    """The panel's components and what they do."""

    def __init__(self, desk: Desk) -> None:
        """Build the panel where the page is being built."""
        self.desk = desk
        with gr.Accordion("Write captions automatically", open=False, elem_id="auto-captions"):
            self.model = gr.Radio(
                [(_label(model), model.name) for model in MODELS],
                value=MODELS[0].name, label="Who writes them", elem_id="caption-model", elem_classes="impasto-list",
            )  # fmt: skip
            with gr.Row():
                self.template = gr.Textbox(
                    value="{name}", label="Template", max_lines=1, elem_id="caption-template",
                    info="{name} becomes what the file's name says: 03_red-house.jpg becomes “red house”.",
                )  # fmt: skip
                self.length = gr.Dropdown(
                    [(SENTENCES[length], length) for length in LENGTHS], value="long", label="How much it says", visible=False,
                    elem_id="caption-length",
                )  # fmt: skip
                self.words = gr.Textbox(
                    label="More words to leave out", max_lines=1, placeholder="such as the artist's name", visible=False,
                    elem_id="style-words", info="With commas between them.",
                )  # fmt: skip
            self.without = gr.Checkbox(
                label="Leave style words out", elem_id="without-style",
                info="“A watercolour of a boat” becomes “A boat”. What is not named is what the trigger word learns.",
            )  # fmt: skip
            self.overwrite = gr.Checkbox(
                label="Replace captions that are there", elem_id="overwrite",
                info="Otherwise only pictures without a caption get one.",
            )  # fmt: skip
            with gr.Row(elem_classes="impasto-wishes"):
                self.start_button = gr.Button("Write captions", size="sm", variant="primary", elem_id="write-captions")
                self.cancel = gr.Button("Cancel", size="sm", variant="stop", visible=False, elem_id="cancel-captions")
            self.status = gr.Markdown(latex_delimiters=[], visible=False, elem_id="captions-status")
            self.bar = gr.HTML(visible=False, elem_id="captions-bar", padding=False)
        self.timer = gr.Timer(PULSE, active=False)

    @property
    def outputs(self) -> list[Any]:
        """What shows how far it is."""
        return [self.status, self.bar, self.start_button, self.cancel, self.timer]

    def connect(self, dataset: gr.Textbox) -> None:
        """Wire the events; `dataset` names the one that is shown."""
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        self.model.change(self.show_choices, self.model, [self.template, self.length], **quiet)
        self.without.change(lambda on: gr.update(visible=on), self.without, self.words, **quiet)
        given = {dataset, self.model, self.template, self.length, self.without, self.words, self.overwrite}
        self.dataset = dataset
        self.start_button.click(told(self.start), given, self.outputs, **quiet)
        self.cancel.click(self.stop, dataset, self.outputs, **quiet)
        self.timer.tick(self.show, dataset, self.outputs, queue=False, **quiet)

    def show_choices(self, model: str) -> list[Any]:
        """Only what matters to the chosen model."""
        kind = _kind(model)
        return [gr.update(visible=kind == "names"), gr.update(visible=kind == "florence")]

    def start(self, given: Updates) -> Updates:
        """Start the child. Raises `ImpastoError`."""
        dataset, model = self.desk.dataset(given[self.dataset]).for_training(), given[self.model]
        kind, options = _kind(model), ["--model", model]
        if kind == "names":
            options += [f"--template={given[self.template] or '{name}'}"]
        if kind == "florence":
            options += ["--length", given[self.length]]
        if given[self.without]:
            options += [f"--without-style-words={given[self.words] or ''}"]
        if given[self.overwrite]:
            options += ["--overwrite"]
        if kind != "names":
            busy = self.desk.trainings.living()
            if busy is not None:
                raise RunError(f"{busy.name} is being trained: wait until it is over, or choose {MODELS[0].name}.")
            self.desk.previewer.rest()  # one process holds the card
        self.desk.captioning.start(dataset.folder.name, options)
        return self.show(dataset.folder.name)

    def stop(self, dataset: str | None) -> Updates:
        """End the child."""
        self.desk.captioning.stop()
        return self.show(dataset)

    def show(self, dataset: str | None) -> Updates:
        """How far it is, beside a dataset; while it is under way, the page asks again."""
        now = self.desk.captioning.told
        busy = now is not None and now.state == "running"
        concerned = now if now and (busy or now.dataset == dataset) else None
        return {
            self.status: gr.update(value=status(concerned) if concerned else "", visible=concerned is not None),
            self.bar: gr.update(value=render.plain_bar(_share(concerned)) if concerned else "", visible=busy),
            self.start_button: gr.update(interactive=not busy),
            self.cancel: gr.update(visible=busy),
            self.timer: gr.Timer(active=busy),
        }


def status(now: Told) -> str:
    """How far a captioning is, in Markdown."""
    got, all_of_it = now.fetched
    match now.state:
        case "failed":
            said = f"{literal(now.message)} {_written(now) if now.written else ''}"
        case "cancelled":
            said = f"cancelled. {_written(now)}"
        case "done":
            said = _written(now) if now.total else "every picture has a caption already."
        case "running" if now.total:
            said = f"{now.done} of {now.total}. {literal(now.name)}: “{literal(now.text)}”"
        case "running" if got < all_of_it:
            said = f"downloading the model, {got / 2**20:.0f} of {all_of_it / 2**20:.0f} MiB."
        case "running":
            said = "loading the model."
    return "\n".join([f"“{literal(now.dataset)}”: {said}", *(f"\n{literal(remark)}" for remark in now.remarks)])


def _written(now: Told) -> str:
    return f"{now.written} caption{' is' if now.written == 1 else 's are'} written."


def _share(now: Told) -> float:
    """How much of what is under way is done, 0 to 1."""
    done, total = (now.done, now.total) if now.total else now.fetched
    return done / total if total else 0.0


def _kind(name: str) -> Kind | None:
    """What kind of model that is. Raises `UsageError` if it is none."""
    return chosen(name).kind


def _label(model: Model) -> str:
    """What a model is good for, and what it costs to get."""
    return f"{model.name}: {model.about} Downloads {model.gigabytes:.1f} GB once." if model.source else model.about
