from dataclasses import replace
from pathlib import Path

import pytest

from app import render
from trainer.settings_text import validated
from trainer.training.events import Sampled
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
        ("pausing", True, ("pause",), {"stop", "cancel"}),
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


def test_before_and_after_a_cancel_it_is_said_what_resume_goes_on_from(run: Run) -> None:
    def told(step: int) -> tuple[str, str]:
        cancelled = Progress(step=step, steps=2000)
        return render.doubt(run, cancelled), render.status(run, cancelled, "stopped")

    assert "No step is taken yet" in told(0)[0]
    assert "what it has learnt in 137 steps is lost" in told(137)[0]
    assert "no checkpoint: *Resume* begins anew" in told(137)[1]
    for name in ("000500", "001000", "001500.aside", ".002000.part", "001900 - Copy"):
        (run.checkpoints / name).mkdir(parents=True)
    assert "from the checkpoint at step 1000: 37 of the 1037 steps are lost" in told(1037)[0]
    assert "goes on from the checkpoint at step 1000." in told(1037)[1]
    assert "goes on from the checkpoint at step 1000." in render.status(run, Progress(step=1037, steps=2000), "lost")
    assert "no step is lost" in told(1000)[0]


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


@pytest.mark.parametrize(("seconds", "text"), [(-1, "0 s"), (59.4, "59 s"), (61, "1 min 01 s"), (7320, "2 h 02 min")])
def test_duration(seconds: float, text: str) -> None:
    assert render.duration(seconds) == text


def drawn(run: Run, prompt: str, *steps: int, base: str = "") -> list[Sampled]:
    """Samples of these steps, whose pictures are there."""
    run.samples.mkdir(exist_ok=True)
    name = "".join(filter(str.isalnum, prompt))
    found = [Sampled(step=step, prompt=prompt, path=f"samples/{name}{step}.png", base=base) for step in steps]
    for sample in found:
        (run.folder / sample.path).touch()
    return found


def test_the_latest_samples_that_are_there_stand_beside_the_base(run: Run) -> None:
    events = drawn(run, "a", *range(12))
    (run.folder / events[10].path).unlink()
    shown = render.samples(run, Progress(samples=events))
    assert [caption for _, caption in shown] == ["the base: a", *(f"step {step}: a" for step in (11, 9, 8, 7, 6, 5))]
    assert shown[0][0] == run.folder / events[0].path


def test_each_prompt_has_a_row_of_its_own(run: Run) -> None:
    events = [*drawn(run, "a", 0), *drawn(run, "b", 0), *drawn(run, "a", 5, 10, 15, 20), *drawn(run, "b", 5)]
    names = [path.name for path, _ in render.samples(run, Progress(samples=events))]
    assert names == ["a0.png", "a20.png", "a15.png", "a10.png", "b0.png", "b5.png"]


def test_a_sample_without_the_trigger_word_says_so(run: Run) -> None:
    called = replace(run, settings=validated({"trigger": "vellorn_(ink)", "sample_untriggered": True}))
    prompts = (r"vellorn_\(ink\), a tree", "a tree", r"a tree in vellorn_\(ink\)")
    events = [sample for prompt in prompts for sample in drawn(run, prompt, 5)]
    captions = [caption for _, caption in render.samples(called, Progress(samples=events))]
    plain, without = "step 5: {}".format, "step 5, without the trigger word: {}".format
    assert captions == [plain(prompts[0]), without(prompts[1]), plain(prompts[2])]
    assert [caption for _, caption in render.samples(run, Progress(samples=events))] == [plain(prompt) for prompt in prompts]


def test_the_base_may_have_a_picture_of_its_own(run: Run) -> None:
    drawn(run, "base", 0)
    events = drawn(run, "a", 5, base="samples/base0.png")
    assert [path.name for path, _ in render.samples(run, Progress(samples=events))] == ["base0.png", "a5.png"]


def test_a_sample_that_was_asked_for_twice_is_shown_once(run: Run) -> None:
    events = [*drawn(run, "a", 5), *drawn(run, "a", 5)]
    assert [caption for _, caption in render.samples(run, Progress(samples=events))] == ["step 5: a"]


def test_a_warning_is_told_once_and_literally() -> None:
    assert render.warnings(Progress(warnings=["Left out: <b>", "Left out: <b>"])) == r"- Left out\: \<b\>"
