import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from app import render
from trainer.settings import validated
from trainer.training.events import Sampled
from trainer.training.progress import Progress, State
from trainer.training.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "ink_wash", tmp_path, "starter", "balanced", validated({}))


@pytest.mark.parametrize(
    ("state", "alive", "starting", "stopping", "now"),
    [
        ("waiting", True, True, False, "starting"),
        ("finished", True, True, False, "starting"),
        ("finished", False, False, False, "finished"),
        ("failed", False, False, False, "failed"),
        ("stopped", True, False, True, "stopped"),
        ("training", True, False, False, "training"),
        ("training", True, False, True, "stopping"),
        ("training", False, False, False, "lost"),
        ("encoding", False, False, True, "lost"),
        ("waiting", False, False, False, "lost"),
        ("waiting", True, False, False, "starting"),
    ],
)
def test_the_situation_follows_from_the_log_and_the_process(
    state: State, alive: bool, starting: bool, stopping: bool, now: render.Situation
) -> None:
    assert render.situation(Progress(state=state), alive, starting, stopping) == now


def test_every_situation_has_its_words(run: Run) -> None:
    progress = Progress(step=5, steps=20, encoded=(2, 3), lora="ink_wash.safetensors", message="It *broke*.")
    told = {now: render.status(run, progress, now) for now in render.Situation.__args__}  # type: ignore[attr-defined]
    assert all(r"ink\_wash" in text for text in told.values())
    assert "2 of 3 pictures" in told["encoding"]
    assert r"It \*broke\*\." in told["failed"]
    assert "5 of 20 steps" in told["lost"]
    assert "only for the starter base" in told["finished"]
    assert "only for the starter base" in told["stopped"]


def test_a_base_that_comes_from_the_hub_is_told_of_in_bytes(run: Run) -> None:
    coming, here = (Progress(step=5, steps=20, fetched=(done * 2**30, 4 * 2**30)) for done in (1, 4))
    assert "1.0 of 4.0 GiB" in render.status(run, coming, "starting")
    assert 'aria-valuenow="25"' in render.bar(replace(coming, step=0), "starting")
    assert "Loading the base model" in render.status(run, here, "starting")
    assert 'aria-valuenow="25"' in render.bar(here, "starting"), "a run that goes on shows where it was"


def test_the_bar_is_numbers_only() -> None:
    assert 'aria-valuenow="25"' in render.bar(Progress(state="training", step=5, steps=20), "training")
    assert 'aria-valuenow="67"' in render.bar(Progress(encoded=(2, 3)), "encoding")
    assert 'aria-valuenow="0"' in render.bar(Progress(), "starting")


@pytest.mark.parametrize("count", [2, 3, 250, 4000])
def test_the_chart_is_a_drawing_of_limited_size(count: int) -> None:
    losses = [(step, 1.0 / step, 2.0 / step) for step in range(1, count + 1)]
    chart = ElementTree.fromstring(render.chart(losses))
    lines = chart.findall(".//polyline")
    assert [line.get("class") for line in lines] == ["raw", "smoothed"]
    for line in lines:
        points = [tuple(map(float, point.split(","))) for point in (line.get("points") or "").split()]
        assert len(points) <= 2 * render.MOST_POINTS
        assert points[0][0] == render.LEFT
        assert all(0 <= x <= render.WIDTH and 0 <= y <= render.HEIGHT for x, y in points)
    assert f"step {count}" in "".join(chart.itertext())


def test_there_is_no_chart_of_less_than_two_steps() -> None:
    assert render.chart([]) == render.chart([(1, 1.0, 1.0)]) == ""


@pytest.mark.parametrize(("seconds", "text"), [(-1, "0 s"), (59.4, "59 s"), (61, "1 min 01 s"), (7320, "2 h 02 min")])
def test_duration(seconds: float, text: str) -> None:
    assert render.duration(seconds) == text


def test_the_latest_samples_that_are_there(run: Run) -> None:
    run.samples.mkdir()
    events = []
    for step in range(12):
        events.append(Sampled(step=step, prompt="", path=f"samples/{step}.png"))
        if step != 10:
            (run.samples / f"{step}.png").touch()
    shown = render.samples(run, Progress(samples=events))
    assert [caption for _, caption in shown] == [f"step {step}" for step in (11, 9, 8, 7, 6, 5, 4)]


def test_a_warning_is_told_once_and_literally() -> None:
    assert render.warnings(Progress(warnings=["Left out: <b>", "Left out: <b>"])) == r"- Left out\: \<b\>"
