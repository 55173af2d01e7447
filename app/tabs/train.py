"""The tab *Train*: one button starts a process of its own; after that the tab only reads the run's folder.

Knows nothing of what a step is. A page that is loaded again shows the same run, because nothing is remembered here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import gradio as gr

from app import render
from app.chart import chart
from app.desk import Desk
from app.form import Form
from app.jobs import ask
from app.notice import told
from app.tabs.bases import BasesPanel, base_choice, chosen, typed
from trainer import presets
from trainer.bases.source import family_of
from trainer.errors import ImpastoError, RunError
from trainer.home import free_name, safe_name
from trainer.settings import GROUPS
from trainer.training.run import Run, Wish

WITH_THE_DATASET = ("trigger",)
"""Settings that are edited where the pictures are."""

WISHES: dict[Wish, tuple[str, str, str]] = {
    "pause": ("Pause", "Pausing…", "secondary"),
    "sample": ("Sample now", "Sampling…", "secondary"),
    "stop": ("Stop and keep what it has learnt", "Stopping…", "secondary"),
    "cancel": ("Cancel", "Cancelling…", "stop"),
}
"""What a training that is under way can be asked for: the button's text, the one while it is not granted yet, and its look."""

INTO_SIGHT = """() => setTimeout(() => {
  const shown = document.querySelector("%s");
  const { top, bottom } = shown.getBoundingClientRect();
  if (top < 0 || bottom > window.innerHeight) shown.scrollIntoView();
}, 100)"""
"""Scrolls, once the answer is on the page, to what is not wholly in sight."""

NO_RUN = "### Nothing is trained yet\nChoose a dataset and press *Train*. A training goes on when this page is closed."
STARTER_INFO = (
    "Trained on the starter base, the LoRA is **only for the starter base**. Give an SDXL base for one that other programs use."
)

Updates = dict[Any, Any]


class TrainTab:
    """The tab's components and what they do."""

    def __init__(self, desk: Desk) -> None:
        """Build the tab where the page is being built."""
        self.desk = desk
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                self._build_choices()
            with gr.Column(scale=3, min_width=320, elem_classes="impasto-beside"):
                self._build_progress()

    def _build_choices(self) -> None:
        self.dataset = gr.Dropdown([], label="Dataset", elem_id="train-dataset")
        found = [presets.load(name) for name in presets.names()]
        self.preset = gr.Radio(
            [(f"{preset.title}: {_uncapitalised(preset.description)}", preset.name) for preset in found],
            value=presets.DEFAULT, label="Preset", elem_id="preset", elem_classes="impasto-list",
        )  # fmt: skip
        self.name = gr.Textbox(label="Name of the LoRA", placeholder="the dataset's name", max_lines=1, elem_id="lora-name")
        self.base = base_choice("train-base")
        self.only_starter = gr.Markdown(STARTER_INFO, elem_classes="impasto-hint")
        self.bases = BasesPanel(self.desk)
        with gr.Accordion("Settings", open=False, elem_id="settings") as self.settings:
            self.form = Form(GROUPS, WITH_THE_DATASET)
        with gr.Row(elem_classes="impasto-reach"):
            self.train = gr.Button("Train", variant="primary", size="lg", elem_id="train", scale=2)
            self.ask_fit = gr.Button("Will it fit?", size="lg", elem_id="ask-fit", min_width=130)
        self.fit = gr.Markdown(elem_id="fit", latex_delimiters=[], visible=False)

    def _build_progress(self) -> None:
        self.seen = gr.Textbox(visible=False)
        self.run = gr.Dropdown([], label="Run", visible=False, elem_id="run")
        self.status = gr.Markdown(NO_RUN, latex_delimiters=[], elem_id="status")
        self.bar = gr.HTML(visible=False, elem_id="bar", padding=False)
        about: dict[str, Any] = {"visible": False, "size": "sm", "min_width": 60}
        with gr.Row(elem_classes="impasto-wishes"):
            self.resume = gr.Button("Resume", elem_id="resume", **about)
            self.go_on = gr.Button("Go on", elem_id="go-on", **about)
            self.wishes: dict[Wish, Any] = {
                wish: gr.Button(text, variant=look, elem_id=f"{wish}-run", **about) for wish, (text, _, look) in WISHES.items()
            }
        with gr.Column(visible=False, elem_id="sure", elem_classes="impasto-notes") as self.sure:
            self.doubt = gr.Markdown(latex_delimiters=[], elem_id="doubt")
            with gr.Row(elem_classes="impasto-wishes"):
                self.keep_training = gr.Button("Keep training", size="sm", min_width=60, elem_id="keep-training")
                self.really = gr.Button("Really cancel", variant="stop", size="sm", min_width=60, elem_id="really-cancel")
        self.chart = gr.HTML(elem_id="chart", padding=False)
        self.warnings = gr.Markdown(elem_classes="impasto-notes", latex_delimiters=[], visible=False)
        self.samples = gr.Gallery(
            columns=4, height="auto", allow_preview=True, interactive=False, object_fit="cover", visible=False, buttons=[],
            label="Samples", show_label=False, elem_id="samples",
        )  # fmt: skip
        self.timer = gr.Timer(1.0)

    @property
    def inputs(self) -> set[Any]:
        """What a new run is made from."""
        return {self.dataset, self.preset, self.name, self.base, *self.form.components}

    @property
    def outputs(self) -> list[Any]:
        """What shows a run."""
        return [
            self.run, self.seen, self.status, self.bar, self.chart, self.warnings, self.samples, self.resume, self.go_on,
            *self.wishes.values(), self.sure, self.doubt,
        ]  # fmt: skip

    def connect(self) -> None:
        """Wire the events."""
        gr.on(
            [self.preset.input, self.base.change], self.show_preset, [self.preset, self.base],
            [*self.form.components, self.only_starter], show_progress="hidden",
        )  # fmt: skip
        for event, answer in (
            (self.train.click(told(self.start), self.inputs, self.outputs), "#status"),
            (self.ask_fit.click(told(self.show_fit), self.inputs, self.fit), "#fit"),
            (self.wishes["cancel"].click(told(self.ask_again), self.run, [self.sure, self.doubt]), "#sure"),
        ):
            event.success(None, None, None, js=INTO_SIGHT.replace("%s", answer))
        for wish, button in {**self.wishes, "cancel": self.really}.items():
            button.click(told(self.asker(wish)), self.run, self.outputs, show_progress="hidden")
        self.keep_training.click(lambda: gr.update(visible=False), None, self.sure, show_progress="hidden")
        self.go_on.click(told(self.end_pause), self.run, self.outputs, show_progress="hidden")
        self.resume.click(told(self.resume_run), self.run, self.outputs)
        self.form.connect(self.settings)
        self.run.input(told(self.show), self.run, self.outputs, show_progress="hidden")
        self.timer.tick(told(self.look), [self.run, self.seen], self.outputs, show_progress="hidden", queue=False)

    def show_preset(self, preset: str, base: str) -> list[Any]:
        """The preset's values in the empty settings, and whom the LoRA will be for."""
        family = family_of(typed(base))
        return [*self.form.placeholders(preset, typed(base)), gr.update(visible=family == "starter")]

    def planned(self, given: dict[Any, Any]) -> str:
        """The settings that a training would have now, as JSON; the preset's alone while others are not valid."""
        preset, family = presets.load(given[self.preset]), family_of(typed(given[self.base]))
        try:
            settings = preset.settings(family, self._changed(given))
        except ImpastoError:
            settings = preset.settings(family)
        return settings.model_dump_json()

    def choose_dataset(self, name: str | None) -> Any:
        """Offer the datasets there are, `name` chosen."""
        names = self.desk.dataset_names()
        return gr.update(choices=names, value=name if name in names else (names[0] if names else None))

    def show_fit(self, given: dict[Any, Any]) -> Any:
        """What memory and time this training would take, before anything is loaded. Raises `ImpastoError`."""
        dataset, base = self.desk.dataset(given[self.dataset]).for_training(), chosen(given[self.base])
        self._refuse_while_training()
        self.desk.previewer.rest()
        changed = [f"{name}={value}" for name, value in self._changed(given).items()]
        settings = [part for setting in changed for part in ("--set", setting)]
        asked = ["plan", str(dataset.folder), "--base", base, "--preset", given[self.preset], *settings]
        return gr.update(value=render.outlook(ask(self.desk.home, asked)), visible=True)

    def start(self, given: dict[Any, Any]) -> Updates:
        """Make a run and start its process. Raises `ImpastoError`."""
        dataset = self.desk.dataset(given[self.dataset]).for_training()
        base = chosen(given[self.base])
        overrides = {"trigger": dataset.trigger, **self._changed(given)}
        settings = presets.load(given[self.preset]).settings(family_of(base), overrides)
        self._refuse_while_training()
        folder = free_name(self.desk.home.runs, safe_name(given[self.name] or dataset.folder.name, "style"))
        return self._started(Run.create(folder, dataset.folder, base, given[self.preset], settings))

    def resume_run(self, name: str) -> Updates:
        """Resume a run that was stopped or interrupted. Raises `RunError`."""
        return self._started(self.desk.trainings.open(name))

    def asker(self, wish: Wish) -> Callable[[str], Updates]:
        """The handler that leaves word for the process that works on a run."""

        def leave_word(name: str) -> Updates:
            self.desk.trainings.open(name).ask(wish)
            return self.show(name)

        return leave_word

    def ask_again(self, name: str) -> Updates:
        """Say what would be lost if the run were cancelled, before it is. Raises `RunError`."""
        run = self.desk.trainings.open(name)
        return {self.sure: gr.update(visible=True), self.doubt: render.doubt(run, self.desk.watch.progress(run))}

    def end_pause(self, name: str) -> Updates:
        """Let a run that pauses go on. Raises `RunError`, `StorageError`."""
        self.desk.trainings.open(name).granted("pause")
        return self.show(name)

    def show_latest(self) -> Updates:
        """The run that is being trained, else the newest one."""
        living, names = self.desk.trainings.living(), self.desk.trainings.names()
        return self.show(living.folder.name if living else (names[0] if names else None))

    def show(self, name: str | None) -> Updates:
        """A run as it is now, and the choice of runs. Raises `RunError`."""
        names = self.desk.trainings.names()
        choice = {
            self.run: gr.update(choices=names, value=name, visible=len(names) > 1),
            self.sure: gr.update(visible=False),
        }
        return {**choice, **self.look(name, "")} if name else choice

    def look(self, name: str | None, seen: str) -> Updates:
        """What is new since the page has `seen` the run. Raises `RunError`."""
        if not name:
            return {self.seen: gr.skip()}
        run = self.desk.trainings.open(name)
        progress = self.desk.watch.progress(run)
        trainings = self.desk.trainings
        wishes = [wish for wish in WISHES if run.wishes(wish)]
        now = render.situation(progress, trainings.alive(run), trainings.starting(run), wishes)
        can = render.possible(now, run.alive(), wishes)
        pictures = f"{name} {len(progress.samples)}"
        counts = progress.step, progress.fetched, progress.encoded, len(progress.validated), len(progress.warnings)
        seeing = f"{now} {sorted(can)} {wishes} {counts}\n{pictures}"
        if seeing == seen:
            return {self.seen: gr.skip()}
        updates: Updates = {
            self.seen: seeing,
            self.status: render.status(run, progress, now),
            self.bar: gr.update(value=render.bar(progress, now), visible=True),
            self.chart: chart(progress.losses, progress.validated),
            self.warnings: gr.update(value=render.warnings(progress), visible=bool(progress.warnings)),
            self.doubt: render.doubt(run, progress),
            **self._buttons(now, can, wishes),
        }
        if not seen.endswith(f"\n{pictures}"):
            updates[self.samples] = gr.update(value=self._samples(run), visible=bool(progress.samples))
        return updates

    def _buttons(self, now: render.Situation, can: Collection[str], wishes: Collection[Wish]) -> Updates:
        """The buttons about a run. None takes another's place while it is under way, but for *Pause* and *Go on*."""
        shown = dict.fromkeys(WISHES, now in render.UNDER_WAY)
        shown["pause"] &= "go_on" not in can
        updates: Updates = {
            self.wishes[wish]: gr.update(
                visible=shown[wish], interactive=wish in can, value=pending if wish in wishes else text
            )
            for wish, (text, pending, _) in WISHES.items()
        }
        if "cancel" not in can:
            updates[self.sure] = gr.update(visible=False)
        return {self.resume: gr.update(visible="resume" in can), self.go_on: gr.update(visible="go_on" in can), **updates}

    def _changed(self, given: dict[Any, Any]) -> dict[str, str]:
        """The settings that are filled in; a dataset of the page may be called by its name alone."""
        changed = self.form.overrides(given)
        if (prior := changed.get("prior_dataset")) in self.desk.dataset_names():
            changed["prior_dataset"] = str(self.desk.home.datasets / prior)
        return changed

    def _refuse_while_training(self) -> None:
        busy = self.desk.trainings.living()
        if busy is not None:
            raise RunError(f"{busy.name} is being trained: wait until it is over, or stop it first.")

    def _started(self, run: Run) -> Updates:
        self.desk.previewer.unload()  # one process holds the card
        self.desk.trainings.start(run)
        return self.show(run.folder.name)

    def _samples(self, run: Run) -> list[tuple[Path, str]]:
        found = render.samples(run, self.desk.watch.progress(run))
        return [(self.desk.thumbnails.of(path, 768), caption) for path, caption in found]


def _uncapitalised(text: str) -> str:
    return text[:1].lower() + text[1:]
