"""Inputs for settings, made from the schema: its names, its help. An empty input means what the preset says.

Knows neither tabs nor runs, and no setting by name but those it is asked to show.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

import gradio as gr

from trainer import presets
from trainer.bases.source import family_of
from trainer.settings import Settings

Field = Any  # a Textbox, or a Dropdown: Gradio has no types

LABELS = {
    "unet_lr": "U-Net learning rate",
    "te1_lr": "Text encoder 1 learning rate",
    "te2_lr": "Text encoder 2 learning rate",
    "min_snr_gamma": "Min-SNR gamma",
    "checkpoint_every": "Checkpoint every … steps",
    "sample_every": "Sample every … steps",
}


def label(name: str) -> str:
    """What a setting is called in the page."""
    return LABELS.get(name, name.replace("_", " ").capitalize())


def choices(name: str) -> tuple[str, ...]:
    """The values of a setting that has only a few; else none."""
    kind = Settings.model_fields[name].annotation
    return get_args(kind) if get_origin(kind) is Literal else ()


def field(name: str) -> Field:
    """An input for a setting."""
    about: dict[str, Any] = {"label": label(name), "info": Settings.model_fields[name].description, "min_width": 170}
    if choices(name):
        return gr.Dropdown([("as the preset says", ""), *choices(name)], value="", **about)
    return gr.Textbox(max_lines=1, **about)


class Form:
    """One input per setting; the preset's value shows through where it is empty."""

    def __init__(self, names: Iterable[str]) -> None:
        """Build the inputs where the page is being built."""
        self.fields = {name: field(name) for name in names}

    @property
    def components(self) -> list[Field]:
        """The inputs in their order."""
        return list(self.fields.values())

    def overrides(self, given: Mapping[Any, Any]) -> dict[str, str]:
        """What the person has filled in, by setting, from an event's inputs."""
        filled = {name: str(given[field] or "").strip() for name, field in self.fields.items()}
        return {name: text for name, text in filled.items() if text}

    def placeholders(self, preset: str, base: str) -> list[Any]:
        """Updates that show the preset's values, in the order of `components`. Raises `SettingsError`."""
        settings = presets.load(preset).settings(family_of(base))
        return [gr.update() if choices(name) else gr.update(placeholder=shown(name, settings)) for name in self.fields]


def shown(name: str, settings: Settings) -> str:
    """A setting's value as text."""
    value = getattr(settings, name)
    if name == "steps" and not value:
        return f"{settings.passes:g} passes per picture"
    return f"{value:g}" if isinstance(value, float) else str(value)
