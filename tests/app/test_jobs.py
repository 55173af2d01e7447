import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from app import jobs
from app.jobs import CommandError, Previewer, PreviewError, Trainings, ask
from trainer.bases.origin import Remark
from trainer.children import launch
from trainer.errors import RunError
from trainer.home import Home
from trainer.recipe import Request
from trainer.settings_text import validated
from trainer.training.run import Run

PATIENCE = 20.0
FAKE_WORKER = """
import json, sys, time
for line in sys.stdin:
    asked = json.loads(line)
    prompt = asked["request"]["prompt"]
    if prompt == "fall over":
        sys.exit(3)
    if prompt == "take long":
        print(json.dumps({"is": "step", "done": 1, "total": 9}), flush=True)
        time.sleep(60)
    if prompt == "complain":
        print(json.dumps({"is": "error", "message": "That is no prompt."}), flush=True)
        continue
    if prompt == "from the Hub":
        print(json.dumps({"is": "fetch", "done": 5 << 20, "total": 7 << 20}), flush=True)
    for done in (1, 2):
        print(json.dumps({"is": "step", "done": done, "total": 2}), flush=True)
    open(asked["out"], "a").write(prompt)
    said = [{"level": "note", "sentence": f"Remembered in {asked['cache']}."}]
    print(json.dumps({"is": "done", "out": asked["out"], "remarks": said}), flush=True)
"""


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What Python is started with in place of the real work; its processes are ended afterwards."""
    command: list[str] = ["-c", FAKE_WORKER]
    started: list[subprocess.Popen[bytes]] = []

    def start(arguments: list[str], log: Path, stdin: int, stdout: int) -> subprocess.Popen[bytes]:
        started.append(launch(command, log, stdin, stdout))
        return started[-1]

    monkeypatch.setattr(jobs, "launch", start)
    yield command
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()


@pytest.fixture
def run(home: Home) -> Run:
    return Run.create(home.runs / "ink", home.datasets / "ink", "starter", "balanced", validated({}))


class TestPreviewer:
    def draw(self, previewer: Previewer, prompt: str, out: Path) -> list[tuple[int, int]]:
        steps: list[tuple[int, int]] = []
        previewer.draw("starter", Request(prompt), out, lambda done, total, **_: steps.append((done, total)))
        return steps

    @pytest.mark.usefixtures("script")
    def test_one_process_draws_one_after_the_other(self, home: Home, tmp_path: Path) -> None:
        previewer = Previewer(home)
        assert self.draw(previewer, "a house", tmp_path / "a") == [(1, 2), (2, 2)]
        first = previewer._process
        threads = [threading.Thread(target=self.draw, args=(previewer, "b", tmp_path / "b")) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert (tmp_path / "a").read_text() == "a house"
        assert (tmp_path / "b").read_text() == "bbbb"
        assert previewer._process is first

    @pytest.mark.usefixtures("script")
    def test_what_is_said_of_the_loras_comes_with_the_picture(self, home: Home, tmp_path: Path) -> None:
        said = Previewer(home).draw("starter", Request("a house"), tmp_path / "a", lambda done, total, **_: None)
        assert said == [Remark("note", f"Remembered in {home.cache}.")]

    @pytest.mark.usefixtures("script")
    def test_a_download_is_told_of_as_such(self, home: Home, tmp_path: Path) -> None:
        told: list[tuple[int, int, str]] = []

        def advance(done: int, total: int, *, doing: str = "") -> None:
            told.append((done, total, doing))

        Previewer(home).draw("some/base", Request("from the Hub"), tmp_path / "a", advance)
        assert told == [(5, 7, "Downloading the base model (MiB)"), (1, 2, ""), (2, 2, "")]

    @pytest.mark.usefixtures("script")
    def test_an_error_is_told_and_the_process_stays(self, home: Home, tmp_path: Path) -> None:
        previewer = Previewer(home)
        with pytest.raises(PreviewError, match=r"^That is no prompt\.$"):
            self.draw(previewer, "complain", tmp_path / "a")
        process = previewer._process
        self.draw(previewer, "a house", tmp_path / "a")
        assert previewer._process is process

    @pytest.mark.usefixtures("script")
    def test_after_a_crash_the_next_request_starts_another(self, home: Home, tmp_path: Path) -> None:
        previewer = Previewer(home)
        with pytest.raises(PreviewError, match=r"ended unexpectedly.*previewer\.log"):
            self.draw(previewer, "fall over", tmp_path / "a")
        assert self.draw(previewer, "a house", tmp_path / "a")

    @pytest.mark.usefixtures("script")
    def test_answers_that_nobody_waited_for_are_not_given_to_the_next(self, home: Home, tmp_path: Path) -> None:
        previewer = Previewer(home)

        def give_up(done: int, total: int, *, doing: str = "") -> None:
            raise RuntimeError("the browser has gone")

        with pytest.raises(RuntimeError):
            previewer.draw("starter", Request("a house"), tmp_path / "a", give_up)
        assert self.draw(previewer, "a boat", tmp_path / "b") == [(1, 2), (2, 2)]
        assert (tmp_path / "b").read_text() == "a boat"

    @pytest.mark.usefixtures("script")
    def test_unload_ends_what_is_being_drawn(self, home: Home, tmp_path: Path) -> None:
        previewer = Previewer(home)
        told: list[str] = []

        def draw() -> None:
            try:
                previewer.draw("starter", Request("take long"), tmp_path / "a", lambda done, total, **_: begun.set())
            except PreviewError as error:
                told.append(str(error))

        begun = threading.Event()
        thread = threading.Thread(target=draw)
        thread.start()
        assert begun.wait(PATIENCE)
        previewer.unload()
        thread.join(PATIENCE)
        assert "a training needs the memory" in told[0]
        previewer.unload()
        assert self.draw(previewer, "a house", tmp_path / "b")

    @pytest.mark.usefixtures("script")
    def test_it_rests_only_when_it_does_not_draw(self, home: Home, tmp_path: Path) -> None:
        previewer = Previewer(home)
        self.draw(previewer, "a house", tmp_path / "a")
        idle = previewer._process
        assert idle is not None
        previewer.draw("starter", Request("a boat"), tmp_path / "b", lambda done, total, **_: previewer.rest())
        assert (tmp_path / "b").read_text() == "a boat", "what is being drawn is finished"
        assert idle.poll() is None
        previewer.rest()
        assert idle.poll() is not None


def test_a_command_answers_or_says_what_is_wrong(home: Home) -> None:
    assert ask(home, ["bases"])["bases"] == []
    with pytest.raises(CommandError, match=r"^There is no file gone\.$"):
        ask(home, ["inspect", "gone"])


class TestTrainings:
    def test_the_newest_run_is_named_first(self, home: Home, run: Run) -> None:
        newer = Run.create(home.runs / "wash", home.datasets, "starter", "balanced", validated({}))
        os.utime(run.folder / "settings.toml", (1, 1))
        assert Trainings(home).names() == ["wash", "ink"]
        assert Trainings(home).open("wash").folder == newer.folder
        with pytest.raises(RunError, match="no run elsewhere"):
            Trainings(home).open("elsewhere")

    def test_a_run_starts_is_alive_and_is_known_to_be_over(self, home: Home, run: Run, script: list[str]) -> None:
        script[:] = ["-c", f"import time; time.sleep(0.5); open({str(run.events_path)!r}, 'w').write('x'); time.sleep(60)"]
        trainings = Trainings(home)
        assert not trainings.alive(run)
        assert trainings.living() is None
        trainings.start(run)
        assert trainings.starting(run)
        assert trainings.alive(run)
        with pytest.raises(RunError, match="ink is being trained"):
            trainings.start(Run.create(home.runs / "wash", home.datasets, "starter", "balanced", validated({})))
        wait_until(run.events_path.is_file)
        assert not trainings.starting(run)
        assert not trainings.alive(run), "its heartbeat alone tells, once it has begun"

    def test_a_process_that_dies_at_once_leaves_nothing_alive(self, home: Home, run: Run, script: list[str]) -> None:
        script[:] = ["-c", "import sys; sys.exit('no torch here')"]
        trainings = Trainings(home)
        trainings.start(run)
        wait_until(lambda: not trainings.alive(run))
        assert "no torch here" in (run.folder / "log.txt").read_text()

    def test_a_training_of_another_process_is_found_by_its_heartbeat(self, home: Home, run: Run) -> None:
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
            started = psutil.Process(other.pid).create_time()
            (run.folder / "heartbeat.json").write_text(f'{{"pid": {other.pid}, "started": {started}}}')
            living = Trainings(home).living()
            assert living is not None
            assert living.folder == run.folder
            other.kill()
            other.wait()
            assert Trainings(home).living() is None

    def test_a_damaged_run_does_not_hide_the_others(self, home: Home, run: Run) -> None:
        (home.runs / "torn").mkdir()
        (home.runs / "torn" / "settings.toml").write_text("base = [")
        assert Trainings(home).living() is None
