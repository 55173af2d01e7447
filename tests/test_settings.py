"""The schema of the settings: bounds, refusals, and numbers that come as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from trainer.errors import SettingsError
from trainer.settings import Settings
from trainer.settings_text import validated, wanted


def test_the_defaults_are_valid() -> None:
    assert isinstance(validated({}), Settings)


def test_numbers_may_come_as_text() -> None:
    got = validated({"steps": "120", "unet_lr": "3e-5", "recompute": "full", "trigger": "glassy"})
    assert (got.steps, got.unet_lr, got.recompute, got.trigger) == (120, 3e-5, "full", "glassy")


def test_texts_may_come_with_a_bar_between_them() -> None:
    assert validated({"sample_prompts": " a house | a boat|"}).sample_prompts == ("a house", "a boat")
    assert validated({"sample_prompts": ["a|b"]}).sample_prompts == ("a|b",)
    assert validated({"trigger": "a|b"}).trigger == "a|b"


def test_an_unknown_name_is_told_with_where_they_are_listed() -> None:
    with pytest.raises(SettingsError, match=r"There is no setting named learning; `impasto train --help` lists them all\."):
        validated({"learning": 1e-4})


def test_nothing_is_near_to_nonsense() -> None:
    with pytest.raises(SettingsError, match=r"setting named nonsense; `impasto train --help` lists them all\."):
        validated({"nonsense": 1})


@pytest.mark.parametrize(
    "block",
    ["down_blocks", "down_blocks.2", "mid_block", "mid_block.attentions.0", "up_blocks.0.attentions.1.transformer_blocks"],
)
def test_blocks_are_given_by_their_path_as_deep_as_one_likes(block: str) -> None:
    assert validated({"block_ranks": f"{block}=8"}).block_ranks == (f"{block}=8",)


@pytest.mark.parametrize(("wrong", "near"), [("rnak", "rank"), ("Unet-LR", "unet_lr"), ("sample_prompt", "sample_prompts")])
def test_a_name_that_is_nearly_one_is_told_with_it(wrong: str, near: str) -> None:
    with pytest.raises(SettingsError) as caught:
        validated({wrong: 1})
    assert str(caught.value) == f"There is no setting named {wrong}; the nearest is {near}."


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rank", 0), ("rank", 513), ("rank", "many"), ("rank", 1.5), ("alpha", 0), ("unet_lr", -1e-4), ("unet_lr", "nan"),
        ("unet_lr", "inf"), ("max_grad_norm", "inf"), ("batch", 0), ("resolution", 32), ("steps", -1), ("warmup", 1.5),
        ("caption_dropout", 2), ("seed", -1), ("seed", 2**63), ("checkpoint_every", 0), ("sample_cfg", 0.5),
        ("trigger", "x" * 81), ("recompute", "perhaps"), ("sample_prompts", 3), ("trigger", None), ("shuffle_tags", "maybe"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_with_its_name_and_what_is_wanted(name: str, value: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        validated({name: value})
    assert str(caught.value).startswith(f"{name} must be {wanted(name)}, not ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"rank": "0"}, "rank must be a whole number from 1 to 512, not 0."),
        ({"rank": ""}, "rank must be a whole number from 1 to 512, not empty."),
        ({"alpha": -1}, "alpha must be a number above 0 and at most 1024, not -1."),
        ({"max_grad_norm": 0}, "max_grad_norm must be a number above 0, not 0."),
        ({"checkpoint_every": 0}, "checkpoint_every must be a whole number of at least 1, not 0."),
        ({"resolution": 65}, "resolution must be a whole number from 64 to 2048 and a multiple of 32, not 65."),
        ({"seed": 2**32}, "seed must be a whole number from 0 to 4294967295, not 4294967296."),
        ({"prediction": "v"}, "prediction must be auto, epsilon or v_prediction, not v."),
        ({"shuffle_tags": "no\nway"}, "shuffle_tags must be true or false, not no way."),
        ({"trigger": "x" * 81}, f"trigger must be a text of at most 80 characters, not {'x' * 40}… (81 characters)."),
        ({"sample_prompts": 3}, "sample_prompts must be texts, separated by |, not 3."),
        ({"block_ranks": "foo"}, "block_ranks: 'foo' has no number; write it as up_blocks.0=32."),
        ({"block_ranks": "mid_block=8|up_blocks.9=3"},
         "block_ranks: There is no block up_blocks.9; there are down_blocks.0 to .2, mid_block and up_blocks.0 to .2."),
        ({"block_rates": "mid_block=1.2.3"},
         "block_rates: 'mid_block=1.2.3' needs a number of at least 0; write it as up_blocks.0=32."),
        ({"block_rates": "mid_block=-1"},
         "block_rates: 'mid_block=-1' needs a number of at least 0; write it as up_blocks.0=32."),
        ({"block_rates": 5}, "block_rates must be texts, separated by |, not 5."),
        ({"unet_lr": 0, "te1_lr": "0", "te2_lr": 0.0},
         "Nothing would be trained: all three learning rates are 0. Set unet_lr, te1_lr or te2_lr."),
        ({"block_ranks": "mid_block=600"}, "block_ranks must give mid_block a whole number from 0 to 512, not 600."),
        ({"block_ranks": "down_blocks=8|mid_block=1.5"},
         "block_ranks must give mid_block a whole number from 0 to 512, not 1.5."),
        ({"block_rates": "up_blocks.1=101"}, "block_rates must give up_blocks.1 a number from 0 to 100, not 101."),
        ({"block_rates": "mid_block=1|mid_block=2"}, "block_rates must name each block once."),
    ],
)  # fmt: skip
def test_the_bounds_are_told_in_plain_words(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        validated(values)
    assert str(caught.value) == sentence


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        validated({}).rank = 8  # type: ignore[misc]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_a_help_text(name: str) -> None:
    text = Settings.model_fields[name].description
    assert text
    assert text.endswith(".")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_what_every_setting_takes_can_be_said(name: str) -> None:
    words = wanted(name)
    assert words
    assert not any(sign in words for sign in "{}[]'")


def test_no_setting_comes_or_goes_unnoticed() -> None:
    """Each setting is one more thing to understand: a new one is written down in `settings_names.txt` too."""
    names = Path(__file__).with_name("settings_names.txt").read_text(encoding="utf-8").split()
    assert sorted(Settings.model_fields) == sorted(names)
