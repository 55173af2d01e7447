"""Inputs for settings, made from the schema: its groups, names and help. An empty input means what the preset says.

Knows neither tabs nor runs, and no setting by name but those that have a better label than their name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

import gradio as gr

from trainer import presets
from trainer.bases.source import family_of
from trainer.settings import Group, Settings

Field = Any  # a Textbox, or a Dropdown: Gradio has no types

LABELS = {
    "passes": "Passes per picture",
    "unet_lr": "U-Net learning rate",
    "te1_lr": "Text encoder 1 learning rate",
    "te2_lr": "Text encoder 2 learning rate",
    "rslora": "rsLoRA",
    "lora_plus": "LoRA+",
    "conv_rank": "Rank of convolutions",
    "lr_schedule": "Learning rate schedule",
    "lr_cycles": "Restarts of the schedule",
    "max_grad_norm": "Longest gradient",
    "ema": "Running average (EMA)",
    "unet_stop": "U-Net stops",
    "te1_stop": "Text encoder 1 stops",
    "te2_stop": "Text encoder 2 stops",
    "huber_c": "Huber c",
    "min_snr_gamma": "Min-SNR gamma",
    "multires_noise": "Multi-resolution noise",
    "multires_discount": "Multi-resolution discount",
    "ip_noise_gamma": "Input perturbation (IP noise)",
    "timestep_min": "Lowest time step",
    "timestep_max": "Highest time step",
    "checkpoint_every": "Checkpoint every … steps",
    "keep_checkpoints": "Checkpoints that are kept",
    "sample_every": "Sample every … steps",
    "sample_cfg": "Sample CFG scale",
    "sample_untriggered": "Samples without trigger word",
    "validate_every": "Validate every … steps",
    "tensorboard": "TensorBoard",
}

ON_CHANGE = """(...values) => {
  const changed = values.filter((value) => value !== null && String(value).trim() !== "").length;
  return { label: changed ? `%s · ${changed} changed` : "%s", __type__: "update" };
}"""
"""Counts, in the browser, the inputs that are filled in."""


def label(name: str) -> str:
    """What a setting is called in the page."""
    return LABELS.get(name, name.replace("_", " ").capitalize())


def in_page_words(sentence: str) -> str:
    """A sentence that begins with a setting's name, as the page calls it: `U-Net learning rate (unet_lr) must be …`."""
    name = (re.match(r"(\w+)(?= must |, [^,]+, must )", sentence) or [""])[0]
    if name not in Settings.model_fields:
        return sentence
    shown = label(name) if label(name) == name.capitalize() else f"{label(name)} ({name})"
    return shown + sentence.removeprefix(name)


def title(group: type[Group]) -> str:
    """What a group is called in the page."""
    return str(group.__doc__).partition("\n")[0].rstrip(".")


def choices(name: str) -> tuple[tuple[str, str], ...]:
    """The values of a setting that has only a few, each with what it is called; else none."""
    kind = Settings.model_fields[name].annotation
    if kind is bool:
        return ("yes", "true"), ("no", "false")
    return tuple((value, value) for value in get_args(kind)) if get_origin(kind) is Literal else ()


def field(name: str) -> Field:
    """An input for a setting."""
    setting = Settings.model_fields[name]
    about: dict[str, Any] = {"label": label(name), "info": setting.description, "min_width": 150, "elem_id": f"set-{name}"}
    if choices(name):
        return gr.Dropdown(_offered(name, Settings()), value="", **about)
    return gr.Textbox(max_lines=1, elem_classes="impasto-long" if isinstance(setting.default, str | tuple) else "", **about)


def _offered(name: str, settings: Settings) -> list[tuple[str, str]]:
    """The choices of a setting, what the preset says first."""
    return [(f"{shown(name, settings)} (preset)", ""), *choices(name)]


class Form:
    """One input per setting; the preset's value shows through where it is empty. The first group is in sight, others fold."""

    def __init__(self, groups: Sequence[type[Group]], without: Sequence[str] = ()) -> None:
        """Build the inputs where the page is being built, but for the settings that are edited elsewhere."""
        self.fields: dict[str, Field] = {}
        self.folds: list[tuple[gr.Accordion, list[Field]]] = []
        """The panel of each folded group, and its inputs."""
        first, *further = groups
        self._build(first, without)
        for group in further:
            with gr.Accordion(title(group), open=False, elem_classes="impasto-fold") as panel:
                self.folds.append((panel, self._build(group, without)))

    def _build(self, group: type[Group], without: Sequence[str]) -> list[Field]:
        names = [name for name in group.model_fields if name not in without]
        with gr.Row(elem_classes="impasto-settings"):
            built = {name: field(name) for name in names}
        self.fields |= built
        return list(built.values())

    def connect(self, around: gr.Accordion) -> None:
        """Let each folded group tell how many of its settings are changed, and the panel `around` the form how many in all."""
        for panel, fields in (*self.folds, (around, self.components)):
            gr.on([field.change for field in fields], None, fields, panel, js=ON_CHANGE.replace("%s", panel.label))

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
        return [
            gr.update(choices=_offered(name, settings)) if choices(name) else gr.update(placeholder=shown(name, settings))
            for name in self.fields
        ]


def shown(name: str, settings: Settings) -> str:
    """A setting's value as text."""
    value = getattr(settings, name)
    if name == "steps" and not value:
        return f"{settings.passes:g} passes per picture"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "|".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"
