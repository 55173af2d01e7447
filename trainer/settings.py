"""Every setting of a training: its type, bounds, default and help text, once.

The command line (`--set`), the presets, the page's form with its help, and the run folder's `settings.toml` all read this
schema. The defaults are for SDXL; the starter base gets its own values from the presets' `[starter]` tables, never from here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainer.errors import SettingsError

Family = Literal["starter", "sdxl", "pony", "illustrious", "noobai"]
"""Whose descendant a base is. All but the starter share SDXL's shapes; their LoRAs load on one another, and look different."""

Prediction = Literal["epsilon", "v_prediction"]
"""What a base's U-Net answers with."""

Precision = Literal["fp32", "bf16", "fp16", "int8", "nf4"]
"""How the frozen base is kept: int8 and nf4 hold the linear layers so, and the rest in bf16, or in fp16 where that is all."""

Packing = Literal["int8", "nf4"]
"""The precisions that round the base."""

Recompute = Literal["none", "selective", "full"]
"""What the backward pass computes a second time, so that it need not be kept: nothing, what is cheap, or every block."""

Loss = Literal["mse", "huber"]
"""How far an answer is from what was wanted: squared error, or one that outliers pull less."""

HuberSchedule = Literal["constant", "snr"]
"""How the width of the Huber loss depends on the time step."""

TimestepSampling = Literal["uniform", "logit_normal"]
"""How time steps are drawn."""

LrSchedule = Literal["cosine", "constant", "linear", "cosine_restarts"]
"""What the learning rate does after its warm-up."""

OptimizerName = Literal["adamw", "adamw8bit", "adafactor", "lion", "prodigy", "schedulefree_adamw"]
"""The optimizers. adamw8bit, prodigy and schedulefree_adamw come with the extra `optimizers`."""


class Settings(BaseModel):
    """What a training does, apart from its pictures and its base. Frozen; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    trigger: str = Field("", max_length=80, description="Word that calls the style; put before every caption.")
    passes: float = Field(60, gt=0, le=10_000, description="How often each picture is seen, where steps is 0.")
    steps: int = Field(0, ge=0, le=1_000_000, description="Training steps; 0 derives them from the passes per picture.")
    batch: int = Field(1, ge=1, le=64, description="Pictures per step.")
    resolution: int = Field(1024, ge=64, le=2048, multiple_of=32, description="Side in pixels of a square training picture.")
    rank: int = Field(16, ge=1, le=512, description="Size of the LoRA: more holds more detail and makes a larger file.")
    alpha: float = Field(16.0, gt=0, le=1024, description="The LoRA is scaled by alpha / rank.")
    unet_lr: float = Field(1e-4, ge=0, le=1, description="Learning rate of the U-Net.")
    te1_lr: float = Field(1e-5, ge=0, le=1, description="Learning rate of text encoder 1 (CLIP-L); 0 leaves it alone.")
    te2_lr: float = Field(1e-5, ge=0, le=1, description="Learning rate of text encoder 2 (OpenCLIP bigG); 0 leaves it alone.")
    warmup: float = Field(0.05, ge=0, le=1, description="Share of the steps over which the learning rate rises.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW's weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Longer gradients are cut to this length.")
    min_snr_gamma: float = Field(5.0, ge=0, le=100, description="Min-SNR gamma: evens the noise levels out; 0 turns it off.")
    noise_offset: float = Field(
        0.0, ge=0, le=1, description="Noise shared by a whole channel, so that overall colour is learnt."
    )
    caption_dropout: float = Field(0.05, ge=0, le=1, description="Share of the pictures shown without their caption.")
    seed: int = Field(1, ge=0, lt=2**32, description="The same seed and pictures give the same LoRA.")
    precision: Literal["auto", Precision] = Field("auto", description="How the base is kept; auto takes the fastest that fits.")
    recompute: Literal["auto", Recompute] = Field(
        "auto", description="Gradient checkpointing: saves memory, costs up to a third of the speed; auto if it must be."
    )
    family: Literal["auto", Family] = Field("auto", description="Whose descendant the base is, where its file does not tell.")
    prediction: Literal["auto", Prediction] = Field(
        "auto", description="What the base's U-Net answers with, where its file does not tell."
    )
    checkpoint_every: int = Field(100, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(3, ge=1, le=1000, description="So many of the last checkpoints are kept.")
    sample_every: int = Field(100, ge=0, description="Steps between sample pictures; 0 draws none.")
    sample_prompts: tuple[str, ...] = Field((), description="What the samples show; empty takes captions of the dataset.")
    sample_steps: int = Field(25, ge=1, le=200, description="Sampler steps of a sample picture.")
    sample_cfg: float = Field(6.0, ge=1, le=30, description="CFG scale of a sample picture.")
    loss: Loss = Field("mse", description="mse, or huber: pictures unlike the others pull less.")
    huber_c: float = Field(0.1, gt=0, le=1, description="Errors above this count less in the Huber loss.")
    huber_schedule: HuberSchedule = Field("snr", description="constant, or snr: only noisy steps are judged with huber_c.")
    debiased: bool = Field(False, description="Weigh the noise levels by 1 / sqrt(SNR), in place of min-SNR.")
    multires_noise: int = Field(
        0, ge=0, le=10, description="Levels of coarser noise, for darker and brighter pictures; 0: none."
    )
    multires_discount: float = Field(0.3, gt=0, lt=1, description="Strength of each level of coarser noise over the last.")
    ip_noise_gamma: float = Field(0.0, ge=0, le=1, description="Noise that the U-Net is shown beyond what it should find.")
    timestep_sampling: TimestepSampling = Field("uniform", description="uniform, or logit_normal: middle steps more often.")
    timestep_mean: float = Field(0.0, ge=-5, le=5, description="Centre of logit_normal: above 0 more noise is practised.")
    timestep_std: float = Field(1.0, gt=0, le=5, description="Width of logit_normal.")
    timestep_min: int = Field(0, ge=0, le=999, description="Lowest time step practised: 0 is almost no noise.")
    timestep_max: int = Field(999, ge=0, le=999, description="Highest time step practised: 999 is almost only noise.")
    optimizer: OptimizerName = Field("adamw", description="What takes the steps; prodigy finds its own rates from rates of 1.")
    lr_schedule: LrSchedule = Field(
        "cosine", description="The learning rate after warm-up; schedulefree_adamw always keeps it constant."
    )
    lr_cycles: int = Field(1, ge=1, le=100, description="How often cosine_restarts starts again from the full rate.")
    unet_stop: float = Field(1.0, gt=0, le=1_000_000, description="When the U-Net stops learning: share up to 1, else a step.")
    te1_stop: float = Field(1.0, gt=0, le=1_000_000, description="When text encoder 1 stops: a share up to 1, else a step.")
    te2_stop: float = Field(1.0, gt=0, le=1_000_000, description="When text encoder 2 stops: a share up to 1, else a step.")

    shuffle_tags: bool = Field(False, description="Whether the tags of a caption, which commas part, change places each time.")
    keep_tags: int = Field(0, ge=0, le=100, description="So many tags, after the trigger word, are neither moved nor left out.")
    tag_dropout: float = Field(0.0, ge=0, le=1, description="Share of the tags that are left out of a caption, anew each time.")
    wildcards: bool = Field(
        False, description="Whether {red|blue} in a caption stands for one of its alternatives, another one each time."
    )
    max_upscale: float = Field(
        2.0, ge=1, le=64, description="Smaller pictures are not enlarged by more: they are trained at a lower resolution."
    )
    resolutions: tuple[Annotated[int, Field(ge=64, le=2048, multiple_of=32)], ...] = Field(
        (), description="Further resolutions: every picture is trained at each, in turn."
    )
    flip: bool = Field(False, description="Whether every picture is also trained mirrored, left for right.")

    @model_validator(mode="after")
    def _range_of_times(self) -> Self:
        if self.timestep_max < self.timestep_min:
            raise ValueError(f"timestep_max, {self.timestep_max}, must not be below timestep_min, {self.timestep_min}.")
        return self


def validated(values: Mapping[str, Any]) -> Settings:
    """`Settings` from names and values, which may come as text: numbers, and texts with `|` between them.

    Raises `SettingsError` that names the setting, what it takes, and the value.
    """
    try:
        return Settings.model_validate({name: _parted(name, value) for name, value in dict(values).items()})
    except ValidationError as error:
        first = error.errors()[0]
    if not first["loc"]:
        raise SettingsError(first["msg"].removeprefix("Value error, "))
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name.lower().replace("-", "_"), Settings.model_fields, n=1)
        hint = f"the nearest is {near[0]}" if near else f"the settings are: {', '.join(sorted(Settings.model_fields))}"
        raise SettingsError(f"There is no setting named {name}; {hint}.")
    raise SettingsError(f"{name} must be {wanted(name)}, not {_quoted(values[name])}.")


def wanted(name: str) -> str:
    """What a setting takes, in words: "a whole number from 1 to 512"."""
    return _words(_schema()[name])


@cache
def _schema() -> dict[str, dict[str, Any]]:
    """The settings as JSON Schema, which tells of types and bounds in one way for all."""
    properties: dict[str, dict[str, Any]] = Settings.model_json_schema()["properties"]
    return properties


def _words(schema: Mapping[str, Any]) -> str:
    """A JSON Schema of one value in words."""
    if "anyOf" in schema:
        return " or ".join(_words(one) for one in schema["anyOf"])
    if "enum" in schema:
        *others, last = map(str, schema["enum"])
        return f"{', '.join(others)} or {last}"
    kind = schema["type"]
    if kind == "array":
        each = _words(schema["items"])
        return "any number of texts with | between them" if each == "a text" else f"{each}; or several with | between them"
    if kind in ("integer", "number"):
        return " ".join(filter(None, ["a whole number" if kind == "integer" else "a number", _bounds(schema)]))
    if "maxLength" in schema:
        return f"a text of at most {schema['maxLength']} characters"
    return {"boolean": "true or false", "string": "a text", "null": "nothing"}[kind]


def _bounds(schema: Mapping[str, Any]) -> str:
    """The bounds of a number in words; a whole number below 8 is one of at most 7."""
    least, above, most = schema.get("minimum"), schema.get("exclusiveMinimum"), schema.get("maximum")
    below = schema.get("exclusiveMaximum")
    if below is not None and schema["type"] == "integer":
        most, below = below - 1, None
    step = f"and a multiple of {schema['multipleOf']}" if "multipleOf" in schema else ""
    if least is not None and most is not None:
        return f"from {least} to {most} {step}".rstrip()
    ends = (("of at least", least), ("above", above), ("at most", most), ("below", below))
    return " and ".join(f"{word} {end}" for word, end in ends if end is not None)


def _parted(name: str, value: Any) -> Any:
    """`a house|a boat` as the two texts that it means, where a setting takes several."""
    if isinstance(value, str) and _schema().get(name, {}).get("type") == "array":
        return [part.strip() for part in value.split("|") if part.strip()]
    return value


def _quoted(value: Any) -> str:
    """A value as a part of a sentence: on one line, and not long."""
    text = " ".join(str(value).split()) or "empty"
    return text if len(text) <= 60 else f"{text[:40]}… ({len(text)} characters)"
