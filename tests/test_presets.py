"""The presets that ship: valid for both families, and never mixed up."""

from __future__ import annotations

import tomllib
from typing import get_args

import pytest

from trainer import presets
from trainer.errors import SettingsError
from trainer.home import shipped
from trainer.settings import Family, Settings
from trainer.settings_text import validated

FAMILIES: tuple[Family, ...] = get_args(Family)


def test_the_default_is_one_of_them() -> None:
    assert presets.DEFAULT in presets.names()


def test_they_come_from_quick_to_careful() -> None:
    assert presets.names() == ["quick-look", "balanced", "careful"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", presets.names())
def test_each_is_valid_for_each_family(name: str, family: Family) -> None:
    assert isinstance(presets.load(name).settings(family), Settings)


@pytest.mark.parametrize("name", presets.names())
def test_each_tells_what_it_is_for(name: str) -> None:
    preset = presets.load(name)
    assert preset.title
    assert preset.description.endswith(".")


@pytest.mark.parametrize("name", presets.names())
def test_sdxl_gets_the_values_of_its_own_table_and_else_the_defaults(name: str) -> None:
    table = tomllib.loads((shipped("presets") / f"{name}.toml").read_text(encoding="utf-8"))["sdxl"]
    assert presets.load(name).settings("sdxl").model_dump() == {**validated({}).model_dump(), **table}


@pytest.mark.parametrize("name", presets.names())
def test_the_starters_learning_rates_would_ruin_sdxl_and_stay_away_from_it(name: str) -> None:
    sdxl, starter = presets.load(name).settings("sdxl"), presets.load(name).settings("starter")
    assert starter.unet_lr > 10 * sdxl.unet_lr
    assert max(sdxl.unet_lr, sdxl.te1_lr, sdxl.te2_lr) <= 1e-4
    assert sdxl.resolution == 1024


def test_overrides_come_last() -> None:
    assert presets.load("balanced").settings("sdxl", {"rank": "5"}).rank == 5


@pytest.mark.parametrize("name", ["fast", "", "../balanced", "balanced.toml", "Balanced"])
def test_an_unknown_name_is_told_with_those_there_are(name: str) -> None:
    with pytest.raises(SettingsError, match=r"There is no preset named .* The presets are: balanced, careful, quick-look\."):
        presets.load(name)
