import re
from typing import Any

import gradio as gr
import pytest

from app.captioning import Captioning, Told
from app.desk import Desk
from app.jobs import Previewer, Trainings
from app.tabs.captions import CaptionsPanel, status
from tests.app.conftest import in_blocks
from trainer.cli import parser
from trainer.commands_captions import _order
from trainer.errors import DatasetError, RunError
from trainer.settings import Settings
from trainer.training.run import Run


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What was started in place of a child."""
    calls: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(Captioning, "start", lambda self, dataset, options: calls.append((dataset, options)))
    return calls


@pytest.fixture
def panel(desk: Desk) -> CaptionsPanel:
    def build() -> CaptionsPanel:
        panel, shown = CaptionsPanel(desk), gr.Textbox()
        panel.connect(shown)
        return panel

    return in_blocks(build)


def given(panel: CaptionsPanel, **chosen: Any) -> dict[Any, Any]:
    values = {
        "dataset": "stripes", "model": "names", "template": "{name}", "length": "long", "without": False, "words": None,
        "overwrite": False, **chosen,
    }  # fmt: skip
    return {(panel.dataset if name == "dataset" else getattr(panel, name)): value for name, value in values.items()}


@pytest.mark.parametrize(
    ("chosen", "options"),
    [
        ({}, ["--model", "names", "--template={name}"]),
        ({"template": None}, ["--model", "names", "--template={name}"]),
        ({"template": "-x", "overwrite": True}, ["--model", "names", "--template=-x", "--overwrite"]),
        ({"model": "florence-base", "length": "short"}, ["--model", "florence-base", "--length", "short"]),
        ({"model": "wd-vit", "without": True, "words": "-ink"}, ["--model", "wd-vit", "--without-style-words=-ink"]),
        ({"model": "blip-large", "without": True}, ["--model", "blip-large", "--without-style-words="]),
    ],
)
def test_the_child_is_asked_for_what_was_chosen(
    panel: CaptionsPanel, started: list[tuple[str, list[str]]], chosen: dict[str, Any], options: list[str]
) -> None:
    panel.start(given(panel, **chosen))
    assert started == [("stripes", options)]


def test_what_is_asked_for_is_understood_by_the_command(panel: CaptionsPanel, started: list[tuple[str, list[str]]]) -> None:
    for model in ("names", "florence-base", "blip-large", "wd-vit"):
        panel.start(given(panel, model=model, without=True, words="-x", template="-y", overwrite=True))
        order = _order(parser().parse_args(["caption", "folder", *started[-1][1], "--events"]))
        assert (order.model.name, order.overwrite, order.without) == (model, True, "-x")


def test_only_what_matters_to_a_model_is_shown(panel: CaptionsPanel) -> None:
    seen = {
        model: [update["visible"] for update in panel.show_choices(model)] for model in ("names", "florence-large", "wd-vit")
    }
    assert seen == {"names": [True, False], "florence-large": [False, True], "wd-vit": [False, False]}


def test_a_model_waits_for_a_training_and_takes_the_previewers_place(
    panel: CaptionsPanel, started: list[tuple[str, list[str]]], monkeypatch: pytest.MonkeyPatch, desk: Desk
) -> None:
    rested: list[bool] = []
    monkeypatch.setattr(Previewer, "rest", lambda self: rested.append(True))
    panel.start(given(panel, model="blip-large"))
    assert rested == [True]
    run = Run(desk.home.runs / "prints", desk.home.datasets / "stripes", "starter", "balanced", Settings())
    monkeypatch.setattr(Trainings, "living", lambda self: run)
    panel.start(given(panel))
    with pytest.raises(RunError, match="prints is being trained"):
        panel.start(given(panel, model="blip-large"))
    assert [dataset for dataset, _ in started] == ["stripes", "stripes"]
    with pytest.raises(DatasetError):
        panel.start(given(panel, dataset=""))
    with pytest.raises(DatasetError):
        panel.start(given(panel, dataset="empty"))


def test_a_loaded_page_shows_what_is_under_way_and_asks_on_until_it_is_over(panel: CaptionsPanel, desk: Desk) -> None:
    assert panel.show("stripes")[panel.timer].active is False
    desk.captioning._told = Told("stripes", done=2, total=8, name="a.png", text="a boat")
    updates = panel.show("stripes")
    assert updates[panel.timer].active is True
    assert 'aria-valuenow="25"' in updates[panel.bar]["value"]
    assert updates[panel.cancel]["visible"]
    assert not updates[panel.start_button]["interactive"]
    desk.captioning._told = Told("stripes", "done", done=8, total=8, written=8)
    updates = panel.show("stripes")
    assert updates[panel.timer].active is False
    assert "8 captions are written" in updates[panel.status]["value"]


def test_what_became_of_it_is_told_beside_its_dataset_alone(panel: CaptionsPanel, desk: Desk) -> None:
    desk.captioning._told = Told("stripes", "failed", message="There is no model there.")
    own, other = panel.show("stripes"), panel.show("dots")
    assert own[panel.status] == {**own[panel.status], "visible": True, "value": "“stripes”: There is no model there\\. "}
    assert (other[panel.status]["visible"], other[panel.status]["value"]) == (False, "")
    assert other[panel.start_button]["interactive"]
    desk.captioning._told = Told("stripes", total=8)
    under_way = panel.show("dots")
    assert (under_way[panel.status]["visible"], under_way[panel.cancel]["visible"]) == (True, True)
    assert not under_way[panel.start_button]["interactive"], "one at a time"


def test_texts_of_people_and_models_are_shown_literally() -> None:
    said = status(Told("<b>", name="*a*.png", text="<img src=x>", done=1, total=2, remarks=("_b_ stays.",)))
    assert [sign for sign in "<>*_" if re.search(rf"(?<!\\)[{sign}]", said)] == []
    assert "MiB" in status(Told("a", fetched=(1 << 20, 9 << 20)))
