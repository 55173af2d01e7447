"""The queue: its order, several processes at once, and the runs' turns, with children that train or stand in for a training."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.tiny import short_run
from trainer.children import ROOT, launch
from trainer.errors import RunError
from trainer.home import Home
from trainer.settings_text import validated
from trainer.training import queue
from trainer.training.events import Finished, Paused, Resumed, Saved, Started
from trainer.training.queue import Queue, told_queue
from trainer.training.run import Run

PATIENCE = 120.0
STAND_IN = """
import os, sys, time
from pathlib import Path
from trainer.errors import RunError
from trainer.training.events import Finished, Started, Stopped
from trainer.training.run import Run

run = Run.open(Path(sys.argv[1]))

def training():
    yield Started(steps=3, pictures=1, base="", device="cpu", buckets={})
    for step in range(2000 if "long" in run.name else 3):
        if run.wishes("stop"):
            yield Stopped(step=step, lora=run.lora.name, seconds=1.0)
            return
        time.sleep(0.02)
    if "broken" in run.name:
        raise RunError("The paint is dry.")
    if "mortal" in run.name:
        os._exit(9)
    yield Finished(step=3, lora=run.lora.name, seconds=1.0)

list(run.recorded(training()))
"""
"""A training that takes a moment and learns nothing."""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes that stand in for trainings, quickly looked at."""
    started: list[subprocess.Popen[bytes]] = []

    def start(arguments: list[str], log: Path, stdin: int, stdout: int) -> subprocess.Popen[bytes]:
        started.append(launch(["-c", STAND_IN, arguments[-1]], log, stdin, stdout))
        return started[-1]

    monkeypatch.setattr(queue, "launch", start)
    monkeypatch.setattr(queue, "TICK", 0.05)
    yield started
    for process in started:
        process.kill()
        process.wait()


def add(home: Home, *names: str) -> list[Path]:
    """New runs at the end of the queue."""
    folders = [home.runs / name for name in names]
    for folder in folders:
        Queue(home).add(Run.create(folder, home.datasets, "starter", "balanced", validated({})).folder)
    return folders


def names(home: Home) -> list[str]:
    return [folder.name for folder in Queue(home).folders]


def ends(home: Home) -> list[tuple[str, str]]:
    """Work the queue off: which run ended how."""
    return [(turn.folder.name, turn.state) for turn in Queue(home).work() if turn.over]


def until(true: Callable[[], bool], process: subprocess.Popen[Any] | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.02)


# The order --------------------------------------------------------------------------------------------------------------


def test_a_queue_keeps_its_order(home: Home) -> None:
    assert Queue(home).folders == []
    a, b, c = add(home, "a", "b", "c")
    Queue(home).move(c, -1)
    assert names(home) == ["a", "c", "b"]
    Queue(home).move(a, 1)
    assert names(home) == ["c", "a", "b"]
    Queue(home).remove(a)
    assert names(home) == ["c", "b"]
    assert Run.open(a).folder == a  # its folder stays
    assert Queue(home).folders == [c, b]


def test_the_ends_are_the_ends(home: Home) -> None:
    a, b = add(home, "a", "b")
    Queue(home).move(a, -1)
    Queue(home).move(b, 1)
    assert names(home) == ["a", "b"]


def test_a_run_has_one_place_however_it_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    add(home, "a")
    monkeypatch.chdir(home.runs)
    with pytest.raises(RunError, match="is in the queue already"):
        Queue(home).add(Path("a"))
    Queue(home).remove(Path("../runs/a"))
    assert names(home) == []


def test_a_run_that_is_not_in_the_queue_is_told_of(home: Home) -> None:
    with pytest.raises(RunError, match="is not in the queue"):
        Queue(home).remove(home.runs / "a")
    with pytest.raises(RunError, match="is not in the queue"):
        Queue(home).move(home.runs / "a", 1)


@pytest.mark.parametrize("content", [b"runs = ", b"", b"\xff\xfe", b"runs = 3", b"runs = [3]"])
def test_a_damaged_queue_is_told_of_and_left_alone(home: Home, content: bytes) -> None:
    home.root.mkdir()
    (home.root / "queue.toml").write_bytes(content)
    for use in (Queue(home).entries, lambda: Queue(home).add(home.runs / "a")):
        with pytest.raises(RunError, match="is damaged"):
            use()
    assert (home.root / "queue.toml").read_bytes() == content


def test_processes_that_add_at_once_lose_nothing(home: Home) -> None:
    script = (
        "import sys; from pathlib import Path; from trainer.home import Home; from trainer.training.queue import Queue\n"
        "print('ready', flush=True); input()\n"
        "for n in range(20): Queue(Home(Path(sys.argv[1]))).add(Path(sys.argv[1]) / f'{sys.argv[2]}{n}')"
    )
    each = [[sys.executable, "-c", script, str(home.root), name] for name in "ab"]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) for command in each]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate() and process.returncode for process in both] == [0, 0]
    found = names(home)
    assert sorted(found) == sorted(f"{name}{n}" for name in "ab" for n in range(20))
    assert [name for name in found if name[0] == "a"] == [f"a{n}" for n in range(20)]


# The turns --------------------------------------------------------------------------------------------------------------


def test_runs_have_their_turn_one_after_the_other(home: Home, stand_in: list[Any]) -> None:
    folders = add(home, "a", "b")
    assert ends(home) == [("a", "finished"), ("b", "finished")]
    first, second = (list(Run.open(folder).events()) for folder in folders)
    assert isinstance(first[-1], Finished)
    assert first[-1].time < second[0].time
    assert names(home) == []
    assert len(stand_in) == 2


def test_a_run_that_fails_keeps_its_place_and_the_next_begins(home: Home, stand_in: list[Any]) -> None:
    add(home, "broken", "mortal", "a")
    (home.runs / "gone").mkdir()
    Queue(home).add(home.runs / "gone")
    told = {turn.folder.name: turn for turn in Queue(home).work() if turn.over}
    assert {name: turn.state for name, turn in told.items()} == {
        "broken": "failed", "mortal": "failed", "a": "finished", "gone": "failed",
    }  # fmt: skip
    assert told["broken"].sentence == "broken failed: The paint is dry."
    assert "ended unexpectedly" in told["mortal"].sentence
    assert "is not a run" in told["gone"].sentence
    assert [(entry.state, entry.steps) for entry in Queue(home).entries()] == [
        ("failed", 3), ("interrupted", 3), ("unreadable", 0),
    ]  # fmt: skip
    assert ends(home) == [("broken", "failed"), ("mortal", "failed"), ("gone", "failed")]


def test_a_run_that_a_person_stops_leaves_the_queue(home: Home, stand_in: list[Any]) -> None:
    long, _ = add(home, "long", "a")
    found = []
    for turn in Queue(home).work():
        if turn.folder == long and Run.open(long).alive():
            Run.open(long).ask("stop")
        if turn.over:
            found.append((turn.folder.name, turn.state))
    assert found == [("long", "stopped"), ("a", "finished")]
    assert names(home) == []


def test_whoever_leaves_stops_the_training_and_keeps_the_queue(home: Home, stand_in: list[Any]) -> None:
    long, _ = add(home, "long", "a")
    turns = Queue(home).work()
    until(lambda: next(turns).progress.steps == 3)
    turns.close()
    assert stand_in[0].poll() == 0  # it ended by itself, after its step
    assert not Run.open(long).alive()
    assert names(home) == ["long", "a"]
    again = Queue(home).work()
    assert next(again).folder == long
    again.close()


def test_one_process_alone_works_the_queue_off(home: Home, stand_in: list[Any]) -> None:
    add(home, "long")
    turns = Queue(home).work()
    next(turns)
    with pytest.raises(RunError, match="Another `impasto queue run`"):
        next(Queue(home).work())
    turns.close()
    next(turns := Queue(home).work())
    turns.close()


@pytest.fixture
def outside(home: Home) -> Iterator[Run]:
    """A run that somebody else is training."""
    run = Run.create(home.runs / "long", home.datasets, "starter", "balanced", validated({}))
    process = launch(["-c", STAND_IN, str(run.folder)], run.folder / "log.txt", subprocess.DEVNULL, subprocess.DEVNULL)
    until(run.alive, process)
    yield run
    process.kill()
    process.wait()


def test_a_training_outside_the_queue_is_waited_for(home: Home, stand_in: list[Any], outside: Run) -> None:
    add(home, "a")
    turns = Queue(home).work()
    assert [(turn.folder.name, turn.state) for turn in (next(turns), next(turns))] == [("long", "waiting")] * 2
    assert stand_in == []
    outside.ask("stop")
    assert [(turn.folder.name, turn.state) for turn in turns if turn.over] == [("a", "finished")]
    assert len(stand_in) == 1


def test_a_training_that_has_outlived_its_queue_is_seen_to_its_end(home: Home, stand_in: list[Any], outside: Run) -> None:
    Queue(home).add(outside.folder)
    turns = Queue(home).work()
    assert next(turns).state == "training"
    outside.ask("stop")
    assert [turn.state for turn in turns if turn.over] == ["stopped"]
    assert stand_in == []  # no second process was started for it
    assert names(home) == []


def test_a_run_at_work_keeps_its_place(home: Home, outside: Run) -> None:
    Queue(home).add(outside.folder)
    (other,) = add(home, "a")
    changes: list[Callable[[], None]] = [
        lambda: Queue(home).remove(outside.folder),
        lambda: Queue(home).move(outside.folder, 1),
        lambda: Queue(home).move(other, -1),
    ]
    for change in changes:
        with pytest.raises(RunError, match="is being trained"):
            change()
    assert names(home) == ["long", "a"]
    assert [entry.state for entry in Queue(home).entries()] == ["at work", "waiting"]


def test_the_queue_for_a_person() -> None:
    rows: list[dict[str, str | int]] = [
        {"run": "a", "state": "at work", "step": 2, "steps": 9, "message": ""},
        {"run": "b", "state": "failed", "step": 0, "steps": 0, "message": "No."},
    ]
    assert told_queue({"runs": rows}) == ["1. a   at work, step 2 of 9", "2. b   failed: No."]
    assert told_queue({"runs": []})[0].startswith("The queue is empty")


# As processes of their own ----------------------------------------------------------------------------------------------


def impasto(home: Home, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "trainer", "--home", str(home.root), *map(str, arguments), "--json"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    value: dict[str, Any] = json.loads(out)
    return value


def lasting(home: Home, dataset: Path, base: Path) -> Run:
    """A run in the queue that takes some seconds."""
    run = short_run(home.runs / "long", dataset, base, steps=40)
    Queue(home).add(run.folder)
    return run


@pytest.mark.slow
def test_a_queue_that_is_killed_with_its_training_goes_on(home: Home, toy_base: Path, dataset: Path) -> None:
    long = lasting(home, dataset, toy_base)
    worker = impasto(home, "queue", "run")
    until(lambda: any(isinstance(event, Saved) for event in long.events()), worker)
    worker.kill()
    worker.communicate()
    assert long.alive()  # it outlives the queue …
    trainer = psutil.Process(json.loads((long.folder / "heartbeat.json").read_text(encoding="utf-8"))["pid"])
    trainer.kill()  # … but not the machine
    until(lambda: not long.alive())
    assert [entry.state for entry in Queue(home).entries()] == ["interrupted"]

    told = answer(impasto(home, "queue", "run"))["ended"]
    assert [(Path(each["run"]).name, each["state"]) for each in told] == [("long", "finished")]
    assert sum(isinstance(event, Resumed) for event in long.events()) == 1
    assert long.lora.is_file()
    assert names(home) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl+C cannot be sent to one process alone")
def test_ctrl_c_leaves_everything_in_order(home: Home, toy_base: Path, dataset: Path) -> None:
    import signal

    long = lasting(home, dataset, toy_base)
    add(home, "next")
    worker = impasto(home, "queue", "run")
    until(lambda: any(isinstance(event, Saved) for event in long.events()), worker)
    worker.send_signal(signal.SIGINT)
    out, err = worker.communicate(timeout=PATIENCE)
    assert (worker.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert not long.alive()
    entries = Queue(home).entries()
    assert [(Path(entry.run).name, entry.state) for entry in entries] == [("long", "stopped"), ("next", "waiting")]
    assert (long.checkpoints / f"{entries[0].step:06d}").is_dir()  # nothing that was learnt is lost
    assert sum(isinstance(event, Started) for event in long.events()) == 1


def test_the_commands_change_the_queue(home: Home, toy_base: Path, dataset: Path, tmp_path: Path) -> None:
    from trainer.cli import main

    for name in ("a", "b"):
        assert (
            main(["queue", "add", str(dataset), "--base", str(toy_base), "--set", "steps=2", "--out", str(tmp_path / name)])
            == 0
        )
    assert Run.open(tmp_path / "a").settings.steps == 2
    assert Run.open(tmp_path / "a").base == str(toy_base)
    assert main(["queue", "up", str(tmp_path / "b")]) == 0
    assert names(home) == ["b", "a"]
    assert main(["queue", "down", str(tmp_path / "b")]) == 0
    assert main(["queue", "remove", str(tmp_path / "b"), "--json"]) == 0
    assert names(home) == ["a"]
    assert main(["queue", "add", str(dataset), "--out", str(tmp_path / "a")]) == 1
    assert main(["queue", "remove", str(tmp_path / "b")]) == 1
    assert main(["queue", "again", str(tmp_path / "b")]) == 0
    assert names(home) == ["a", "b"]
    assert main(["queue", "again", str(tmp_path)]) == 1
    assert main(["queue", "paint"]) == 2


def test_a_run_that_waits_is_told_of_as_such(home: Home) -> None:
    (folder,) = add(home, "a")
    run = Run.open(folder)
    for event in run.recorded(iter([Started(steps=3, pictures=1, base="", device="cpu", buckets={}), Paused(step=2)])):
        assert [entry.state for entry in Queue(home).entries()] == ["paused" if isinstance(event, Paused) else "at work"]
    assert [(entry.state, entry.step) for entry in Queue(home).entries()] == [("interrupted", 2)]
