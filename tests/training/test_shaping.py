"""Which settings may change before a run goes on: every one is judged, once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainer.errors import RunError
from trainer.settings import Settings
from trainer.training.shaping import FREE, SHAPING, require_same, shaping

FOLDER = Path("runs") / "style"


def test_every_setting_is_judged_once() -> None:
    assert sorted([*SHAPING, *FREE]) == sorted(Settings.model_fields)


def kept(**settings: Any) -> dict[str, Any]:
    """What a checkpoint tells of these settings, read back from its file."""
    told: dict[str, Any] = json.loads(json.dumps(shaping(Settings(**settings))))
    return told


OTHERS: dict[str, Any] = {"passes": 3, "steps": 7, "sample_prompts": ("a house",), "precision": "bf16", "recompute": "full"}


def test_what_only_looks_on_may_change() -> None:
    values = {name: getattr(Settings(), name) for name in FREE}
    others = {name: not value if isinstance(value, bool) else OTHERS.get(name, 2) for name, value in values.items()}
    changed = Settings(**others)
    assert all(getattr(changed, name) != value for name, value in values.items())
    require_same(kept(), changed, FOLDER)


def test_the_same_settings_fit() -> None:
    settings = {"unet_lr": 1 / 3, "resolutions": (512, 768), "block_ranks": ("mid_block=0",), "trigger": "größe"}
    require_same(kept(**settings), Settings(**settings), FOLDER)
    with pytest.raises(RunError, match="unet_lr was"):
        require_same(kept(**settings), Settings(**{**settings, "unet_lr": 0.333}), FOLDER)


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({}, {"rank": 8}, "rank was 16 and is now 8."),
        ({"trigger": "inky"}, {}, "trigger was inky and is now ''."),
        ({"resolutions": (512, 768)}, {}, "resolutions was 512|768 and is now (none)."),
        ({"flip": True}, {"unet_lr": 1e-5}, "unet_lr was 0.0001 and is now 1e-05; flip was True and is now False."),
    ],
)
def test_what_shapes_a_training_may_not(before: dict[str, Any], now: dict[str, Any], told: str) -> None:
    with pytest.raises(RunError) as refused:
        require_same(kept(**before), Settings(**now), FOLDER)
    assert str(refused.value) == (
        f"{FOLDER / 'settings.toml'} no longer fits the steps that were taken: {told} "
        "Put it back to go on, or start a new run with the new settings."
    )


def test_what_an_older_checkpoint_does_not_tell_is_not_held_against_it() -> None:
    before = kept(seed=1)
    del before["ema"]
    require_same({**before, "gone": 3}, Settings(ema=0.9), FOLDER)
    with pytest.raises(RunError, match=r"seed was 1 and is now 2\."):
        require_same({**before, "gone": 3}, Settings(ema=0.9, seed=2), FOLDER)
