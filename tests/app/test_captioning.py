import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import captioning
from app.captioning import Captioning, Told
from app.desk import Desk
from trainer.children import launch
from trainer.errors import RunError
from trainer.home import Home

FAKE = """
import json, sys, time
for line in json.loads(sys.argv[1]):
    print(line if isinstance(line, str) else json.dumps(line), flush=True)
    if line == {"is": "wait"}:
        time.sleep(60)
"""


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What the child says in place of writing captions; its processes are ended afterwards."""
    lines: list[object] = []
    started: list[subprocess.Popen[bytes]] = []

    def start(arguments: list[str], log: Path, stdin: int, stdout: int) -> subprocess.Popen[bytes]:
        started.append(launch(["-c", FAKE, json.dumps(lines)], log, stdin, stdout))
        return started[-1]

    monkeypatch.setattr(captioning, "launch", start)
    yield lines
    for process in started:
        process.kill()
        process.wait()


def over(job: Captioning) -> Told:
    """How it ended."""
    until = time.monotonic() + 20
    while job.busy:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert job.told is not None
    return job.told


def caption(name: str, done: int, total: int) -> dict[str, object]:
    return {"is": "caption", "name": name, "text": "a boat", "done": done, "total": total}


def test_it_is_told_how_far_the_child_is(home: Home, said: list[object]) -> None:
    passed = {"is": "passed", "name": "b.png", "message": "b.png stays.", "done": 2, "total": 3}
    said += [{"is": "fetch", "done": 5, "total": 9}, {"is": "loading", "model": "m"}, caption("a.png", 1, 3), passed]
    said += ["no JSON", {"is": "remark", "message": "Slow."}, caption("c.png", 3, 3), {"is": "done", "written": 2}]
    job = Captioning(home)
    assert job.told is None
    job.start("prints", [])
    told = over(job)
    assert (told.dataset, told.state, told.fetched) == ("prints", "done", (5, 9))
    assert (told.done, told.total, told.written, told.name) == (3, 3, 2, "c.png")
    assert told.remarks == ("b.png stays.", "Slow.")


def test_what_went_wrong_is_told_and_one_can_begin_again(home: Home, said: list[object]) -> None:
    job = Captioning(home)
    said += [{"is": "error", "message": "There is no model there."}]
    job.start("prints", [])
    assert (over(job).state, over(job).message) == ("failed", "There is no model there.")
    said[:] = [caption("a.png", 1, 2)]
    job.start("prints", [])
    told = over(job)
    assert (told.state, told.written) == ("failed", 1)
    assert "ended unexpectedly" in told.message


def test_one_at_a_time_and_it_can_be_ended(home: Home, said: list[object]) -> None:
    said += [caption("a.png", 1, 2), {"is": "wait"}, caption("b.png", 2, 2)]
    job = Captioning(home)
    job.start("prints", [])
    until = time.monotonic() + 20
    while job.told is None or not job.told.written:
        assert time.monotonic() < until
        time.sleep(0.01)
    with pytest.raises(RunError, match="already"):
        job.start("others", [])
    began = time.monotonic()
    job.stop()
    told = over(job)
    assert time.monotonic() - began < 10
    assert (told.dataset, told.state, told.written) == ("prints", "cancelled", 1)
    job.stop()
    assert job.told == told


def test_what_an_earlier_child_says_late_concerns_nobody(home: Home, said: list[object]) -> None:
    said += [{"is": "error", "message": "That was the first."}]
    job = Captioning(home)
    job.start("prints", [])
    first = job._process
    assert first is not None
    over(job)
    said[:] = [{"is": "wait"}]
    job.start("prints", [])
    job._hear(first, {"is": "error", "message": "It ended."})
    assert job.busy
    job.stop()


def test_the_real_child_writes_captions_one_by_one(desk: Desk) -> None:
    for path in (desk.home.datasets / "stripes").glob("*.txt"):
        path.unlink()
    (desk.home.datasets / "stripes" / "01.png").rename(desk.home.datasets / "stripes" / "03_red-house.png")
    desk.captioning.start("stripes", ["--model", "names", "--template=a picture of {name}", "--without-style-words=picture"])
    assert over(desk.captioning).state == "done", over(desk.captioning).message
    assert "red house" in desk.picture("stripes", "03_red-house.png").caption
