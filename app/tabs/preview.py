"""The tab *Preview*: up to four LoRAs mixed with sliders, drawn by the warm previewer beside what the base draws alone.

Knows the files and their weights; how they are mixed and drawn is the previewer's business.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from app import shelf
from app.desk import Desk
from app.jobs import Advance
from app.notice import literal, told
from app.tabs.bases import base_choice, chosen, typed
from trainer import presets
from trainer.bases.origin import Remark
from trainer.bases.source import facts_of, family_of
from trainer.errors import RunError, UsageError
from trainer.home import free_name
from trainer.recipe import LoraChoice, Request
from trainer.sdxl.prompt import literal as literal_prompt
from trainer.settings import Settings

ROWS = 4
NONE = ("none", "")
SHAPES = {"square": (1.0, 1.0), "portrait": (0.75, 1.25), "landscape": (1.25, 0.75)}
"""Width and height in sides of the base's own size."""

Updates = dict[Any, Any]


@dataclass(frozen=True)
class Slot:
    """One LoRA of the mix: its row, its choice and its two weights."""

    row: gr.Row
    choice: gr.Dropdown
    unet: gr.Slider
    text: gr.Slider


class PreviewTab:
    """The tab's components and what they do."""

    def __init__(self, desk: Desk) -> None:
        """Build the tab where the page is being built."""
        self.desk = desk
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                self._build_request()
            with gr.Column(scale=3, min_width=320):
                self.slider = gr.ImageSlider(
                    show_label=False,
                    interactive=False,
                    elem_id="before-after",
                    buttons=["fullscreen"],
                    type="filepath",
                    max_height=640,
                    slider_position=50,
                )
                self.told = gr.Markdown("Left the base alone, right the mix, from the same seed.", latex_delimiters=[])
        self.sheet = gr.Image(
            show_label=False, interactive=False, visible=False, elem_id="sheet", type="filepath", buttons=["fullscreen"]
        )

    def _build_request(self) -> None:
        self.prompt = gr.Textbox(label="Prompt", lines=2, max_lines=6, elem_id="prompt", placeholder="what the picture shows")
        self.insert = gr.Button("Insert the trigger word", size="sm", visible=False, elem_id="insert-trigger")
        choices, unets, texts = [], [], []
        for number in range(1, ROWS + 1):
            with gr.Row(visible=number == 1, elem_classes="impasto-slot") as row:
                choice = gr.Dropdown([NONE], value="", label=f"LoRA {number}", elem_id=f"lora-{number}", min_width=140, scale=2)
                unet = _weight("Weight", f"weight-{number}", min_width=180, scale=3)
            choices.append((row, choice))
            unets.append(unet)
        with gr.Row():
            self.generate = gr.Button("Generate", variant="primary", size="lg", elem_id="generate", scale=2)
            self.draw_sheet = gr.Button("Style sheet", size="lg", elem_id="style-sheet", min_width=150)
        self.live = gr.Checkbox(True, label="Draw again when a weight changes", elem_id="live", container=False)
        with gr.Accordion("More: seed, steps, base, text encoders", open=False, elem_id="more"):
            self.together = gr.Checkbox(True, label="The text encoders take the same weights", elem_id="together")
            for number in range(1, ROWS + 1):
                texts.append(_weight(f"Weight of LoRA {number} in the text encoders", f"text-weight-{number}", visible=False))
            self._build_sampling()
        self.slots = [Slot(*pair, unet, text) for pair, unet, text in zip(choices, unets, texts, strict=True)]

    def _build_sampling(self) -> None:
        self.negative = gr.Textbox(label="Negative prompt", max_lines=3, elem_id="negative")
        with gr.Row():
            self.seed = gr.Textbox("1", label="Seed", max_lines=1, min_width=100, elem_id="seed")
            self.new_seed = gr.Button("New seed", size="sm", min_width=90)
        with gr.Row():
            self.steps = gr.Textbox(label="Steps", max_lines=1, min_width=90, elem_id="steps")
            self.cfg = gr.Textbox(label="CFG scale", max_lines=1, min_width=90, elem_id="cfg")
        self.shape = gr.Radio(list(SHAPES), value="square", label="Shape")
        self.base = base_choice("preview-base")
        self.prediction = gr.Dropdown(
            [("as its file tells", "auto"), ("epsilon", "epsilon"), ("v", "v_prediction")], value="auto", elem_id="prediction",
            label="The base predicts", info="Grey or burnt pictures from every prompt: the file may not tell.",
        )  # fmt: skip

    @property
    def inputs(self) -> set[Any]:
        """What a picture is drawn from."""
        mix = [part for slot in self.slots for part in (slot.choice, slot.unet, slot.text)]
        sampling = {self.negative, self.seed, self.steps, self.cfg, self.shape, self.base, self.prediction}
        return {self.prompt, self.together, *sampling, *mix}

    @property
    def choices(self) -> list[Any]:
        """The four choices of a LoRA."""
        return [slot.choice for slot in self.slots]

    def connect(self) -> None:
        """Wire the events."""
        drawing: dict[str, Any] = {"concurrency_id": "card", "concurrency_limit": 1}
        shown = [self.slider, self.told]
        self.generate.click(told(self.draw), self.inputs, shown, show_progress_on=self.slider, **drawing)
        self.prompt.submit(told(self.draw), self.inputs, shown, show_progress_on=self.slider, **drawing)
        gr.on(
            [weight.release for slot in self.slots for weight in (slot.unet, slot.text)], told(self.draw_live),
            {*self.inputs, self.live}, shown, show_progress_on=self.slider, trigger_mode="always_last", **drawing,
        )  # fmt: skip
        self.draw_sheet.click(
            told(self.show_sheet),
            [self.base, self.prediction, self.slots[0].choice],
            [self.sheet, self.told],
            show_progress_on=self.sheet,
            **drawing,
        )
        gr.on(
            [slot.choice.input for slot in self.slots], told(self.choose), {*self.choices, self.together},
            [*(slot.row for slot in self.slots), *(slot.text for slot in self.slots), self.insert, self.base],
            show_progress="hidden",
        )  # fmt: skip
        self.together.input(
            self.show_text_weights, {*self.choices, self.together}, [slot.text for slot in self.slots], show_progress="hidden"
        )
        self.insert.click(told(self.with_trigger), [self.prompt, *self.choices], self.prompt, show_progress="hidden")
        self.new_seed.click(lambda: str(random.randrange(2**32)), None, self.seed, show_progress="hidden")
        self.base.change(self.show_defaults, self.base, [self.steps, self.cfg], show_progress="hidden")

    def refresh(self, *chosen: str | None) -> list[Any]:
        """Offer the LoRA files there are now; updates for `choices`. What was chosen and is still there stays."""
        offered = [NONE, *((entry.label, entry.key) for entry in shelf.entries(self.desk.home))]
        keys = {key for _, key in offered}
        return [gr.update(choices=offered, value=key if key in keys else "") for key in chosen]

    def choose(self, given: dict[Any, Any]) -> Updates:
        """Show one row more than is in use, the trigger words, and the base of the first LoRA. Raises `LoraFileError`."""
        keys = [given[slot.choice] for slot in self.slots]
        used = max((number for number, key in enumerate(keys, start=1) if key), default=0)
        found = [shelf.find(self.desk.home, key) for key in keys if key]
        words = dict.fromkeys(entry.trigger for entry in found if entry.trigger)
        base = next((entry.base for entry in found if entry.base), "")
        return {
            **{slot.row: gr.update(visible=number <= used) for number, slot in enumerate(self.slots)},
            **self.show_text_weights(given),
            self.insert: gr.update(value=f"Insert the trigger word: {', '.join(words)}", visible=bool(words)),
            self.base: base or gr.skip(),
        }

    def show_text_weights(self, given: dict[Any, Any]) -> Updates:
        """The sliders of the text encoders, where they count."""
        return {slot.text: gr.update(visible=bool(given[slot.choice]) and not given[self.together]) for slot in self.slots}

    def with_trigger(self, prompt: str, *keys: str) -> str:
        """The prompt, begun with the trigger words of the mix that it lacks. Raises `LoraFileError`."""
        words = dict.fromkeys(literal_prompt(shelf.find(self.desk.home, key).trigger) for key in keys if key)
        lacking = [word for word in words if word and word.lower() not in prompt.lower()]
        return ", ".join([*lacking, prompt] if prompt.strip() else lacking)

    def show_defaults(self, base: str) -> list[Any]:
        """What the empty inputs for steps and CFG scale stand for."""
        usual = _usual(base)
        return [gr.update(placeholder=str(usual.sample_steps)), gr.update(placeholder=f"{usual.sample_cfg:g}")]

    def request(self, given: dict[Any, Any]) -> Request:
        """The picture that the inputs describe. Raises `UsageError`, `LoraFileError`."""
        base = typed(given[self.base])
        usual, side, (wide, high) = _usual(base), facts_of(base).resolution, SHAPES[given[self.shape]]
        mix = []
        for slot in self.slots:
            if given[slot.choice]:
                unet = float(given[slot.unet])
                text = unet if given[self.together] else float(given[slot.text])
                mix.append(LoraChoice(shelf.find(self.desk.home, given[slot.choice]).path, unet, text))
        return Request(
            prompt=given[self.prompt] or "", negative=given[self.negative] or "", loras=tuple(mix),
            seed=_whole("seed", given[self.seed], 1), steps=_whole("steps", given[self.steps], usual.sample_steps),
            cfg=_number("CFG scale", given[self.cfg], usual.sample_cfg), prediction=given[self.prediction],
            width=round(side * wide / 32) * 32, height=round(side * high / 32) * 32,
        )  # fmt: skip

    def draw(self, given: dict[Any, Any], progress: gr.Progress = gr.Progress()) -> Updates:  # noqa: B008 - gradio looks here
        """Draw the mix, and the base alone unless it is known, and keep the picture. Raises `ImpastoError`."""
        base = chosen(given[self.base])
        self._leave_the_card_to_a_training()
        request, began = self.request(given), time.monotonic()
        alone = self._base_alone(base, replace(request, loras=()), progress)
        out = free_name(self.desk.home.pictures, time.strftime("%Y%m%d-%H%M%S") + f"-seed{request.seed}.png")
        remarks = self.desk.previewer.draw(base, request, out, _advance(progress, "Drawing the mix"))
        seconds = time.monotonic() - began
        place = literal(str(out))
        return {
            self.slider: (str(alone), str(out)),
            self.told: f"Left the base alone, right the mix. {seconds:.1f} s. Kept with its recipe as {place}" + _said(remarks),
        }

    def draw_live(self, given: dict[Any, Any], progress: gr.Progress = gr.Progress()) -> Updates:  # noqa: B008
        """Draw after a weight has changed, if that is wanted and a LoRA is chosen. Raises `ImpastoError`."""
        if not given[self.live] or not any(given[slot.choice] for slot in self.slots):
            return {self.told: gr.skip()}
        return self.draw(given, progress)

    def show_sheet(self, base: str, prediction: str, key: str, progress: gr.Progress = gr.Progress()) -> Updates:  # noqa: B008
        """Draw the style sheet of the first LoRA beside its file. Raises `ImpastoError`."""
        if not key:
            raise UsageError("Choose LoRA 1 first: the sheet shows that one.")
        source = chosen(base)
        self._leave_the_card_to_a_training()
        lora = shelf.find(self.desk.home, key)
        out = lora.path.with_name(f"{lora.path.stem}-sheet.png")
        advance = _advance(progress, "Drawing the sheet")
        remarks = self.desk.previewer.sheet(source, prediction, lora.path, out, advance)
        return {
            self.sheet: gr.update(value=str(self.desk.thumbnails.of(out, 2400)), visible=True),
            self.told: f"The style sheet is kept as {literal(str(out))}" + _said(remarks),
        }

    def _base_alone(self, base: str, request: Request, progress: gr.Progress) -> Path:
        """What the base draws from this request, drawn once."""
        known_by = json.dumps([base, self.desk.previewer.session, request.to_json()])
        path = self.desk.thumbnails.folder / f"base-{hashlib.sha256(known_by.encode()).hexdigest()[:32]}.png"
        if not path.is_file():
            self.desk.previewer.draw(base, request, path, _advance(progress, "Drawing the base alone"))
        return path

    def _leave_the_card_to_a_training(self) -> None:
        run = self.desk.trainings.living()
        if run is not None:
            raise RunError(f"{run.name} is being trained and needs the memory: draw when it is over, or stop it in Train.")


def _said(remarks: list[Remark]) -> str:
    """Remarks as paragraphs of their own, below what else is told."""
    return "".join(f"\n\n**{remark.level.capitalize()}:** {literal(remark.sentence)}" for remark in remarks)


def _weight(label: str, elem_id: str, **layout: Any) -> gr.Slider:
    return gr.Slider(-2, 2, 1, step=0.05, label=label, elem_id=elem_id, buttons=[], **layout)


def _advance(progress: gr.Progress, drawing: str) -> Advance:
    progress(0, desc="Loading the base model")

    def advance(done: int, total: int, *, doing: str = "") -> None:
        progress((done, total), desc=doing or drawing, unit="steps")

    return advance


def _usual(base: str) -> Settings:
    return presets.load(presets.DEFAULT).settings(family_of(typed(base)))


def _whole(name: str, given: str | None, usual: int) -> int:
    text = (given or "").strip()
    if text and not text.isdigit():
        raise UsageError(f"{name} must be a whole number, not {text}.")
    return int(text) if text else usual


def _number(name: str, given: str | None, usual: float) -> float:
    try:
        return float(given) if given and given.strip() else usual
    except ValueError:
        raise UsageError(f"{name} must be a number, not {given}.") from None
