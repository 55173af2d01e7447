import json
import os
from typing import Any

import psutil
import pytest

from app.desk import Desk
from app.jobs import Previewer, Trainings
from app.tabs.train import TrainTab
from tests.app.conftest import in_blocks
from trainer.data.editing.edits import Edits
from trainer.errors import BaseModelError, DatasetError, ImpastoError, RunError, SettingsError
from trainer.training import events
from trainer.training.run import Run

STARTED = events.Started(steps=20, pictures=3, base="starter", device="cpu", buckets={})


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happened instead of processes being started and ended, in order."""
    happened: list[str] = []
    monkeypatch.setattr(Previewer, "unload", lambda self: happened.append("unloaded"))
    monkeypatch.setattr(Trainings, "start", lambda self, run: happened.append(f"started {run.folder.name}"))
    return happened


@pytest.fixture
def tab(desk: Desk) -> TrainTab:
    return in_blocks(lambda: TrainTab(desk))


def given(tab: TrainTab, **chosen: str) -> dict[Any, Any]:
    """The tab's inputs: a dataset and the preset's settings, but for what is `chosen`."""
    values: dict[Any, Any] = {
        tab.dataset: "stripes", tab.preset: "quick-look", tab.name: "", tab.base: "starter",
        **dict.fromkeys(tab.form.components, ""),
    }  # fmt: skip
    for name, value in chosen.items():
        values[tab.form.fields[name] if name in tab.form.fields else getattr(tab, name)] = value
    return values


def test_one_button_makes_a_run_and_starts_it(tab: TrainTab, desk: Desk, done: list[str]) -> None:
    Edits(desk.dataset("stripes").folder).trigger("", "vellorn")
    updates = tab.start(given(tab, steps="20"))
    run = Run.open(desk.home.runs / "stripes")
    assert (run.settings.steps, run.settings.trigger, run.preset, run.base) == (20, "vellorn", "quick-look", "starter")
    assert run.dataset == desk.home.datasets / "stripes"
    assert done == ["unloaded", "started stripes"]
    assert updates[tab.run]["value"] == "stripes"


def test_prior_pictures_may_be_a_dataset_of_the_page(tab: TrainTab, desk: Desk, done: list[str]) -> None:
    tab.start(given(tab, name="one", prior_dataset="stripes"))
    assert desk.trainings.open("one").settings.prior_dataset == str(desk.home.datasets / "stripes")
    tab.start(given(tab, name="two", prior_dataset="/elsewhere"))
    assert desk.trainings.open("two").settings.prior_dataset == "/elsewhere"


def test_a_second_run_of_the_same_name_gets_another_folder(tab: TrainTab, desk: Desk, done: list[str]) -> None:
    for _ in range(2):
        tab.start(given(tab, name="Ink & wash"))
    assert done[1::2] == ["started Ink-wash", "started Ink-wash-2"]


@pytest.mark.parametrize(
    ("chosen", "error", "words"),
    [
        ({"dataset": ""}, DatasetError, "Choose a dataset"),
        ({"dataset": "gone"}, DatasetError, "no dataset “gone”"),
        ({"dataset": "empty"}, DatasetError, "no picture to train on"),
        ({"base": "nowhere"}, BaseModelError, "no base model nowhere"),
        ({"rank": "abc"}, SettingsError, "rank"),
        ({"steps": "-1"}, SettingsError, "steps"),
        ({"preset": "bogus"}, SettingsError, "no preset"),
    ],
)
def test_wrong_input_is_a_sentence_and_starts_nothing(
    tab: TrainTab, desk: Desk, done: list[str], chosen: dict[str, str], error: type[ImpastoError], words: str
) -> None:
    with pytest.raises(error, match=words):
        tab.start(given(tab, **chosen))
    assert done == []
    assert not desk.home.runs.exists()


def test_a_page_that_is_loaded_again_shows_the_newest_run(tab: TrainTab, done: list[str]) -> None:
    assert tab.seen not in tab.show_latest()
    tab.start(given(tab))
    latest = tab.show_latest()
    assert latest[tab.run]["value"] == "stripes"
    assert tab.status in latest


def test_only_what_is_new_is_sent(tab: TrainTab, desk: Desk, done: list[str]) -> None:
    tab.start(given(tab))
    run = desk.trainings.open("stripes")
    first = tab.look("stripes", "")
    assert tab.samples in first
    assert list(tab.look("stripes", first[tab.seen])) == [tab.seen]
    run.events_path.write_text(events.to_line(events.Encoded(done=1, total=3)) + "\n", encoding="utf-8")
    later = tab.look("stripes", first[tab.seen])
    assert later[tab.seen] != first[tab.seen]
    assert tab.samples not in later


def test_a_run_whose_process_is_gone_can_be_resumed(tab: TrainTab, desk: Desk, done: list[str]) -> None:
    tab.start(given(tab))
    shown = tab.look("stripes", "")
    assert "was interrupted" in shown[tab.status]
    assert shown[tab.resume]["visible"]
    assert offered(tab, shown) == {"resume"}
    tab.resume_run("stripes")
    assert done[2:] == ["unloaded", "started stripes"]
    with pytest.raises(RunError, match="no run gone"):
        tab.look("gone", "")


def under_way(tab: TrainTab, run: Run, *told: events.Event) -> dict[Any, Any]:
    """What the page shows of `run` when this very process works on it and has told of `told`."""
    beat = {"pid": os.getpid(), "started": psutil.Process().create_time()}
    (run.folder / "heartbeat.json").write_text(json.dumps(beat), encoding="utf-8")
    with run.events_path.open("a", encoding="utf-8") as log:
        log.writelines(events.to_line(event) + "\n" for event in told)
    return tab.look(run.folder.name, "")


def buttons(tab: TrainTab, shown: dict[Any, Any]) -> dict[str, dict[str, Any]]:
    """The buttons about a run that are there, from left to right."""
    every: list[tuple[str, Any]] = [("resume", tab.resume), ("go_on", tab.go_on), *tab.wishes.items()]
    return {name: shown[button] for name, button in every if shown[button]["visible"]}


def offered(tab: TrainTab, shown: dict[Any, Any]) -> set[str]:
    """Which of the buttons about a run can be pressed."""
    return {name for name, button in buttons(tab, shown).items() if button.get("interactive", True)}


def test_what_is_asked_of_a_training_is_left_in_its_run(tab: TrainTab, desk: Desk, done: list[str]) -> None:
    tab.start(given(tab))
    run = desk.trainings.open("stripes")
    assert offered(tab, under_way(tab, run, STARTED)) == {"pause", "sample", "stop", "cancel"}
    shown = tab.asker("sample")("stripes")
    assert run.wishes("sample")
    assert offered(tab, shown) == {"pause", "stop", "cancel"}, "asked for once is enough"
    assert buttons(tab, shown)["sample"]["value"] == "Sampling…"
    shown = tab.asker("stop")("stripes")
    assert run.wishes("stop")
    assert offered(tab, shown) == set()
    assert "Stopping" in shown[tab.status]


def test_a_pause_ends_when_it_is_no_longer_asked_for(tab: TrainTab, desk: Desk, done: list[str]) -> None:
    tab.start(given(tab))
    run = desk.trainings.open("stripes")
    under_way(tab, run, STARTED)
    shown = tab.asker("pause")("stripes")
    assert "pauses after the step" in shown[tab.status]
    assert buttons(tab, shown)["pause"]["value"] == "Pausing…"
    shown = under_way(tab, run, events.Paused(step=3))
    assert "is paused" in shown[tab.status]
    assert offered(tab, shown) == {"go_on", "stop", "cancel"}
    tab.end_pause("stripes")
    assert not run.wishes("pause")
    assert "Training" in under_way(tab, run, events.Resumed(step=3))[tab.status]


def test_no_button_takes_the_place_of_another_while_a_run_is_under_way(tab: TrainTab, desk: Desk, done: list[str]) -> None:
    tab.start(given(tab))
    run = desk.trainings.open("stripes")
    row = ["pause", "sample", "stop", "cancel"]
    assert list(buttons(tab, under_way(tab, run, events.Encoded(done=1, total=3)))) == row
    assert list(buttons(tab, under_way(tab, run, STARTED))) == row
    for wish in ("sample", "pause"):
        assert list(buttons(tab, tab.asker(wish)("stripes"))) == row
    assert list(buttons(tab, under_way(tab, run, events.Paused(step=3)))) == ["go_on", *row[1:]]
    tab.end_pause("stripes")
    assert list(buttons(tab, under_way(tab, run, events.Resumed(step=3)))) == row
    assert list(buttons(tab, tab.asker("stop")("stripes"))) == row


def test_a_cancel_is_asked_about_before_it_is_done(tab: TrainTab, desk: Desk, done: list[str]) -> None:
    tab.start(given(tab))
    run = desk.trainings.open("stripes")
    (run.checkpoints / "000004").mkdir(parents=True)
    assert tab.sure not in under_way(tab, run, STARTED, events.Resumed(step=4), events.Paused(step=6)), "stays as it is"
    asked = tab.ask_again("stripes")
    assert asked[tab.sure]["visible"]
    assert "checkpoint at step 4: 2 of the 6 steps are lost" in asked[tab.doubt]
    assert not run.wishes("cancel")
    shown = tab.asker("cancel")("stripes")
    assert run.wishes("cancel")
    assert not shown[tab.sure]["visible"]
    shown = under_way(tab, run, events.Stopped(step=6, lora="", seconds=1))
    assert "goes on from the checkpoint at step 4" in shown[tab.status]
    assert not shown[tab.sure]["visible"]


def test_a_run_that_nobody_works_on_can_be_asked_for_nothing(tab: TrainTab, done: list[str]) -> None:
    tab.start(given(tab))
    with pytest.raises(RunError, match="not being trained"):
        tab.asker("pause")("stripes")


def test_a_measurement_alone_is_shown_at_once(tab: TrainTab, desk: Desk, done: list[str]) -> None:
    tab.start(given(tab))
    seen = under_way(tab, desk.trainings.open("stripes"), STARTED)[tab.seen]
    under_way(tab, desk.trainings.open("stripes"), events.Validated(step=0, loss=0.5, best=0))
    assert tab.look("stripes", seen)[tab.seen] != seen


def test_the_fit_is_asked_of_the_engine(tab: TrainTab, monkeypatch: pytest.MonkeyPatch) -> None:
    rested: list[bool] = []
    monkeypatch.setattr(Previewer, "rest", lambda self: rested.append(True))
    shown = tab.show_fit(given(tab, steps="20", rank="4"))
    assert shown["visible"] is True
    assert shown["value"].startswith("**Fits\\: ")
    assert "20 steps" in shown["value"]
    assert rested == [True], "the card's memory is measured without the previewer"


def test_a_fit_that_cannot_be_told_is_a_sentence(tab: TrainTab, done: list[str]) -> None:
    with pytest.raises(ImpastoError, match=r"resolution must be a whole number from 64 to 2048 and a multiple of 32, not 1"):
        tab.show_fit(given(tab, resolution="1"))
