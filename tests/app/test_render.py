import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from app import render
from trainer.settings_text import validated
from trainer.training.events import Sampled, Validated
from trainer.training.progress import Progress, State
from trainer.training.run import Run, Wish


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "ink_wash", tmp_path, "starter", "balanced", validated({}))


@pytest.mark.parametrize(
    ("state", "alive", "starting", "wishes", "now"),
    [
        ("waiting", True, True, (), "starting"),
        ("finished", True, True, (), "starting"),
        ("finished", False, False, (), "finished"),
        ("failed", False, False, (), "failed"),
        ("stopped", True, False, ("stop",), "stopped"),
        ("training", True, False, (), "training"),
        ("training", True, False, ("sample",), "training"),
        ("training", True, False, ("stop",), "stopping"),
        ("training", True, False, ("stop", "cancel"), "cancelling"),
        ("training", True, False, ("pause",), "pausing"),
        ("training", False, False, ("pause",), "lost"),
        ("paused", True, False, ("pause",), "paused"),
        ("paused", True, False, ("stop",), "stopping"),
        ("paused", False, False, ("pause",), "lost"),
        ("encoding", True, False, ("pause",), "encoding"),
        ("encoding", False, False, ("stop",), "lost"),
        ("waiting", False, False, (), "lost"),
        ("waiting", True, False, (), "starting"),
    ],
)
def test_the_situation_follows_from_the_log_the_process_and_its_wishes(
    state: State, alive: bool, starting: bool, wishes: tuple[Wish, ...], now: render.Situation
) -> None:
    assert render.situation(Progress(state=state), alive, starting, wishes) == now


@pytest.mark.parametrize(
    ("now", "alive", "wishes", "can"),
    [
        ("training", True, (), {"pause", "sample", "stop", "cancel"}),
        ("training", True, ("sample",), {"pause", "stop", "cancel"}),
        ("encoding", True, (), {"stop", "cancel"}),
        ("pausing", True, ("pause",), {"go_on", "stop", "cancel"}),
        ("paused", True, ("pause",), {"go_on", "stop", "cancel"}),
        ("paused", True, (), {"stop", "cancel"}),
        ("stopping", True, ("stop",), set()),
        ("cancelling", True, ("cancel",), set()),
        ("starting", True, (), set()),
        ("training", False, (), set()),
        ("finished", False, (), set()),
        ("stopped", False, (), {"resume"}),
        ("failed", False, (), {"resume"}),
        ("lost", False, (), {"resume"}),
    ],
)
def test_only_what_would_do_something_can_be_done(
    now: render.Situation, alive: bool, wishes: tuple[Wish, ...], can: set[str]
) -> None:
    assert render.possible(now, alive, wishes) == can


def test_every_situation_has_its_words(run: Run) -> None:
    progress = Progress(step=5, steps=20, encoded=(2, 3), lora="ink_wash.safetensors", message="It *broke*.")
    told = {now: render.status(run, progress, now) for now in render.Situation.__args__}  # type: ignore[attr-defined]
    assert all(r"ink\_wash" in text for text in told.values())
    assert "2 of 3 pictures" in told["encoding"]
    assert r"It \*broke\*\." in told["failed"]
    assert "5 of 20 steps" in told["lost"]
    assert "only for the starter base" in told["finished"]
    assert "only for the starter base" in told["stopped"]
    assert "5 of 20 steps are done" in told["paused"]
    full = Progress(step=5, steps=20, message="The disk is full.")
    assert r"The disk is full\." in render.status(run, full, "paused")
    assert "Go on" not in render.status(run, full, "paused"), "it goes on by itself"
    assert "is cancelled" in render.status(run, Progress(step=5, steps=20), "stopped")


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


def test_what_was_measured_on_held_out_pictures_is_dots_on_the_chart() -> None:
    losses = [(step, 1.0, 1.0) for step in range(1, 100)]
    measured = [Validated(step=step, loss=1.0 if step == 50 else 0.5, best=100) for step in (50, 100)]
    chart = ElementTree.fromstring(render.chart(losses, measured))
    (first, last), line = chart.findall(".//circle"), chart.findall(".//polyline")[1]
    ends = [tuple(map(float, point.split(","))) for point in (line.get("points") or "").split()]
    assert float(first.get("cy") or 0) == ends[0][1], "the same loss lies at the same height"
    assert float(last.get("cy") or 0) > ends[0][1]
    assert float(last.get("cx") or 0) == render.WIDTH - 8 > ends[-1][0]
    assert "0.5000 on pictures held out, best at step 100" in "".join(chart.itertext())


def test_there_is_no_chart_of_less_than_two_steps() -> None:
    assert render.chart([]) == render.chart([(1, 1.0, 1.0)]) == ""


@pytest.mark.parametrize(("seconds", "text"), [(-1, "0 s"), (59.4, "59 s"), (61, "1 min 01 s"), (7320, "2 h 02 min")])
def test_duration(seconds: float, text: str) -> None:
    assert render.duration(seconds) == text


def drawn(run: Run, prompt: str, *steps: int, base: str = "") -> list[Sampled]:
    """Samples of these steps, whose pictures are there."""
    run.samples.mkdir(exist_ok=True)
    found = [Sampled(step=step, prompt=prompt, path=f"samples/{prompt}{step}.png", base=base) for step in steps]
    for sample in found:
        (run.folder / sample.path).touch()
    return found


def test_the_latest_samples_that_are_there_stand_beside_the_base(run: Run) -> None:
    events = drawn(run, "a", *range(12))
    (run.folder / events[10].path).unlink()
    shown = render.samples(run, Progress(samples=events))
    assert [caption for _, caption in shown] == ["the base", *(f"step {step}" for step in (11, 9, 8, 7, 6, 5))]
    assert shown[0][0] == run.folder / events[0].path


def test_each_prompt_has_a_row_of_its_own(run: Run) -> None:
    events = [*drawn(run, "a", 0), *drawn(run, "b", 0), *drawn(run, "a", 5, 10, 15, 20), *drawn(run, "b", 5)]
    names = [path.name for path, _ in render.samples(run, Progress(samples=events))]
    assert names == ["a0.png", "a20.png", "a15.png", "a10.png", "b0.png", "b5.png"]


def test_the_base_may_have_a_picture_of_its_own(run: Run) -> None:
    drawn(run, "base", 0)
    events = drawn(run, "a", 5, base="samples/base0.png")
    assert [path.name for path, _ in render.samples(run, Progress(samples=events))] == ["base0.png", "a5.png"]


def test_a_sample_that_was_asked_for_twice_is_shown_once(run: Run) -> None:
    events = [*drawn(run, "a", 5), *drawn(run, "a", 5)]
    assert [caption for _, caption in render.samples(run, Progress(samples=events))] == ["step 5"]


def test_a_warning_is_told_once_and_literally() -> None:
    assert render.warnings(Progress(warnings=["Left out: <b>", "Left out: <b>"])) == r"- Left out\: \<b\>"
