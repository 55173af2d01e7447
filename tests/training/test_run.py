"""The run folder: made, opened, refused; who works on it; what is logged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import psutil
import pytest

from trainer.errors import RunError, SettingsError, StorageError
from trainer.settings_text import validated
from trainer.training.events import Event, Failed, Resumed, Started, Warned
from trainer.training.run import Run, Wish


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "runs" / "my style", tmp_path / "set", "starter", "balanced", validated({"trigger": "größe"}))


def test_a_run_is_opened_as_it_was_made(run: Run) -> None:
    assert Run.open(run.folder) == run


def test_every_setting_is_kept(tmp_path: Path) -> None:
    settings = validated({"seed": 2**32 - 1, "sample_prompts": ('a "quoted" house', "back\\slash"), "unet_lr": 3e-5})
    Run.create(tmp_path / "run", tmp_path / "set", "C:\\models\\base", "balanced", settings)
    opened = Run.open(tmp_path / "run")
    assert opened.settings == settings
    assert opened.base == "C:\\models\\base"


def test_the_dataset_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Run.create(Path("run"), Path("set"), "starter", "balanced", validated({}))
    assert Run.open(tmp_path / "run").dataset == tmp_path / "set"


def test_the_lora_has_the_runs_name(run: Run) -> None:
    assert run.lora == run.folder / "my-style.safetensors"


def test_a_run_is_never_overwritten(run: Run) -> None:
    with pytest.raises(RunError, match="already holds a run: go on with `impasto resume"):
        Run.create(run.folder, run.dataset, "starter", "balanced", validated({}))


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    with pytest.raises(RunError, match="is not empty"):
        Run.create(tmp_path, tmp_path / "set", "starter", "balanced", validated({}))
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_file_is_no_folder_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file"):
        Run.create(tmp_path / "file", tmp_path / "set", "starter", "balanced", validated({}))


def test_a_folder_that_cannot_be_made_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Could not write"):
        Run.create(tmp_path / "file" / "run", tmp_path / "set", "starter", "balanced", validated({}))


def test_a_folder_that_is_no_run_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run: it has no settings\.toml"):
        Run.open(tmp_path)


@pytest.mark.parametrize("content", [b"dataset = ", b"", b"\xff\xfe", b'settings = 3\nbase = "starter"'])
def test_a_damaged_run_is_told_of(run: Run, content: bytes) -> None:
    (run.folder / "settings.toml").write_bytes(content)
    with pytest.raises(RunError, match="is damaged"):
        Run.open(run.folder)


def test_a_setting_that_was_spoilt_by_hand_is_named(run: Run) -> None:
    path = run.folder / "settings.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("rank = 16", "rank = -1"), encoding="utf-8")
    with pytest.raises(SettingsError, match="rank"):
        Run.open(run.folder)


# The log ----------------------------------------------------------------------------------------------------------------


def some(*events: Event, then: Exception | None = None) -> Iterator[Event]:
    yield from events
    if then:
        raise then


def test_what_happens_is_logged_before_it_is_passed_on(run: Run) -> None:
    for event in run.recorded(some(Resumed(step=1), Warned(message="größe"))):
        assert list(run.events())[-1] == event


def test_a_log_goes_on_where_it_ended(run: Run) -> None:
    list(run.recorded(some(Resumed(step=1))))
    list(run.recorded(some(Resumed(step=2))))
    assert [event.step for event in run.events() if isinstance(event, Resumed)] == [1, 2]


def test_a_line_that_was_cut_off_costs_no_other_event(run: Run) -> None:
    run.events_path.write_text('{"event": "resumed", "st', encoding="utf-8")
    list(run.recorded(some(Resumed(step=2))))
    assert [event.step for event in run.events() if isinstance(event, Resumed)] == [2]


@pytest.mark.parametrize(
    ("error", "message"),
    [(StorageError("The disk is full."), "The disk is full."), (ZeroDivisionError("oh"), "ZeroDivisionError: oh")],
)
def test_a_failure_is_the_last_event_and_goes_on(run: Run, error: Exception, message: str) -> None:
    with pytest.raises(type(error)):
        list(run.recorded(some(Resumed(step=1), then=error)))
    last = list(run.events())[-1]
    assert isinstance(last, Failed)
    assert last.message == message
    assert not run.alive()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_of_in_a_sentence(run: Run) -> None:
    run.events_path.symlink_to("/dev/full")
    with pytest.raises(StorageError, match="the disk is full"):
        list(run.recorded(some(Resumed(step=1))))


# Who works on it --------------------------------------------------------------------------------------------------------


def test_a_run_is_alive_while_it_is_recorded(run: Run) -> None:
    assert not run.alive()
    recording = run.recorded(some(Resumed(step=1), Resumed(step=2)))
    next(recording)
    assert run.alive()
    list(recording)
    assert not run.alive()


def test_two_processes_do_not_work_on_one_run(run: Run) -> None:
    recording = run.recorded(some(Resumed(step=1), Resumed(step=2)))
    next(recording)
    with pytest.raises(RunError, match="being trained by another process"):
        list(run.recorded(some(Resumed(step=1))))
    list(recording)


def test_another_process_of_the_same_number_is_not_mistaken(run: Run) -> None:
    beat = {"pid": os.getpid(), "started": psutil.Process().create_time() - 3600}
    (run.folder / "heartbeat.json").write_text(json.dumps(beat), encoding="utf-8")
    assert not run.alive()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no zombies")
def test_a_process_that_was_killed_but_not_yet_waited_for_is_dead(run: Run) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        beat = {"pid": process.pid, "started": psutil.Process(process.pid).create_time()}
        (run.folder / "heartbeat.json").write_text(json.dumps(beat), encoding="utf-8")
        assert run.alive()
        process.kill()
        for _ in range(500):
            if psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE:
                break
        assert not run.alive()
    finally:
        process.communicate()


@pytest.mark.parametrize("beat", ["", "{", "null", "[]", '{"pid": "x"}', '{"pid": 1}'])
def test_a_damaged_heartbeat_is_none(run: Run, beat: str) -> None:
    (run.folder / "heartbeat.json").write_text(beat, encoding="utf-8")
    assert not run.alive()


# More steps -------------------------------------------------------------------------------------------------------------


def taken(run: Run, steps: int) -> None:
    """Have the run's log say that it took so many steps."""
    list(run.recorded(some(Started(steps=100, pictures=1, base="", device="cpu", buckets={}), Resumed(step=steps))))


def test_a_run_may_be_given_other_steps_and_keeps_all_else(run: Run) -> None:
    path = run.folder / "settings.toml"
    path.write_text(f"# a note of mine\n{path.read_text(encoding='utf-8')}", encoding="utf-8")
    taken(run, 40)
    assert run.with_steps(900).settings.steps == 900
    assert Run.open(run.folder) == run.with_steps(900)
    assert Run.open(run.folder).with_steps(40).settings == run.settings.model_copy(update={"steps": 40})
    assert path.read_text(encoding="utf-8").startswith("# a note of mine\n")


@pytest.mark.parametrize(
    ("steps", "words"), [(39, "has taken 40 steps already: ask for 40 or more, not 39"), (-1, "steps must be")]
)
def test_steps_that_cannot_be_are_refused(run: Run, steps: int, words: str) -> None:
    taken(run, 40)
    with pytest.raises((RunError, SettingsError), match=words):
        run.with_steps(steps)
    assert Run.open(run.folder) == run


def test_a_run_at_work_keeps_its_steps(run: Run) -> None:
    for _ in run.recorded(some(Resumed(step=1))):
        with pytest.raises(RunError, match="is being trained: stop it before you change its steps"):
            run.with_steps(900)


# Wishes -----------------------------------------------------------------------------------------------------------------

WISHES = get_args(Wish)


@pytest.mark.parametrize("wish", WISHES)
def test_a_wish_is_heard_until_it_is_granted(run: Run, wish: Wish) -> None:
    heard = []
    for _ in run.recorded(some(Resumed(step=1), Resumed(step=2))):
        run.ask(wish)
        heard.append([run.wishes(each) for each in WISHES])
        run.granted(wish)
        heard.append([run.wishes(each) for each in WISHES])
    assert heard == [[each == wish for each in WISHES], [False] * 5] * 2


@pytest.mark.parametrize("wish", WISHES)
def test_a_wish_that_nobody_hears_is_refused(run: Run, wish: Wish) -> None:
    with pytest.raises(RunError, match=f"is not being trained, or has not begun yet: it cannot {wish} now"):
        run.ask(wish)
    assert not run.wishes(wish)


@pytest.mark.parametrize("wish", WISHES)
def test_wishes_of_an_earlier_training_are_forgotten(run: Run, wish: Wish) -> None:
    (run.folder / wish).touch()  # its process was killed
    heard = [run.wishes(wish) for _ in run.recorded(some(Resumed(step=1)))]
    assert heard == [False]
    for _ in run.recorded(some(Resumed(step=1))):
        run.ask(wish)
    assert not run.wishes(wish)


def test_what_a_killed_process_left_half_written_is_swept_away(run: Run) -> None:
    (run.samples).mkdir()
    (run.checkpoints / ".000020.part").mkdir(parents=True)
    (run.checkpoints / "000010").mkdir()
    left = [
        run.checkpoints / ".000020.part" / "state.json",
        run.samples / ".a.png.7.part",
        run.folder / ".a.safetensors.7.part",
    ]
    for path in left:
        path.touch()
    list(run.recorded(some(Resumed(step=1))))
    assert sorted(path.name for path in run.folder.rglob("*")) == [
        "000010", "checkpoints", "events.jsonl", "samples", "settings.toml",
    ]  # fmt: skip


@pytest.mark.parametrize("wish", ["stop", "cancel"])
def test_a_training_that_waits_is_woken_to_end(run: Run, wish: Wish) -> None:
    for _ in run.recorded(some(Resumed(step=1))):
        run.ask("pause")
        run.ask(wish)
        assert (run.wishes(wish), run.wishes("pause")) == (True, False)
