"""The schema of the settings: bounds, refusals, and numbers that come as text."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from trainer.errors import SettingsError
from trainer.settings import Settings, validated


def test_the_defaults_are_valid() -> None:
    assert isinstance(validated({}), Settings)


def test_numbers_may_come_as_text() -> None:
    got = validated({"steps": "120", "unet_lr": "3e-5", "recompute": "full", "trigger": "glassy"})
    assert (got.steps, got.unet_lr, got.recompute, got.trigger) == (120, 3e-5, "full", "glassy")


def test_an_unknown_name_is_told_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match=r"There is no setting named learning_rate\. The settings are: alpha, .*unet_lr"):
        validated({"learning_rate": 1e-4})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rank", 0), ("rank", 513), ("rank", "many"), ("rank", 1.5), ("alpha", 0), ("unet_lr", -1e-4), ("unet_lr", "nan"),
        ("unet_lr", "inf"), ("max_grad_norm", "inf"), ("batch", 0), ("resolution", 32), ("steps", -1), ("warmup", 1.5),
        ("caption_dropout", 2), ("seed", -1), ("seed", 2**63), ("checkpoint_every", 0), ("sample_cfg", 0.5),
        ("trigger", "x" * 81), ("recompute", "perhaps"),
    ],
)  # fmt: skip
def test_a_value_out_of_bounds_is_told_with_its_name(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=f"The setting {name} cannot be ") as caught:
        validated({name: value})
    assert "\n" not in str(caught.value)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        validated({}).rank = 8  # type: ignore[misc]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_a_help_text(name: str) -> None:
    text = Settings.model_fields[name].description
    assert text
    assert text.endswith(".")
