from pathlib import Path

import pytest

from app.watch import Watch
from trainer.settings_text import validated
from trainer.training import events
from trainer.training.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", tmp_path, "starter", "balanced", validated({}))


def stepped(step: int) -> events.Stepped:
    return events.Stepped(
        step=step, steps=9, loss=1.0, smoothed=1.0, rates={}, gradient=1.0, change={}, speed=1.0, eta=1.0, memory=0
    )


def append(run: Run, text: str) -> None:
    with run.events_path.open("a", encoding="utf-8") as log:
        log.write(text)


def test_only_what_is_new_is_read_and_a_line_being_written_waits(run: Run) -> None:
    watch = Watch()
    assert watch.progress(run).state == "waiting"
    line = events.to_line(stepped(2))
    append(run, events.to_line(stepped(1)) + "\n" + line[:20])
    assert watch.progress(run).step == 1
    append(run, line[20:] + "\n")
    assert watch.progress(run).step == 2
    assert len(watch.progress(run).losses) == 2


def test_a_new_run_of_the_same_name_is_begun_anew(run: Run) -> None:
    watch = Watch()
    append(run, "".join(events.to_line(stepped(step)) + "\n" for step in (1, 2, 3)))
    assert watch.progress(run).step == 3
    run.events_path.write_text(events.to_line(stepped(1)) + "\n", encoding="utf-8")
    assert watch.progress(run).step == 1
    assert len(watch.progress(run).losses) == 1
