"""Bars: live in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from trainer import bars


class Terminal(io.StringIO):
    """A stream that somebody looks at."""

    def isatty(self) -> bool:
        return True


def drawn(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, total: int) -> str:
    """What a bar of `total` steps writes to stderr, quickly done."""
    monkeypatch.setattr(sys, "stderr", stream)
    with bars.bar("training", total) as bar:
        for step in range(1, total + 1):
            bar.set_postfix_str(f"loss {step}", refresh=False)
            bars.reach(bar, step)
    return stream.getvalue()


def test_a_file_is_not_flooded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "PATIENCE", 1e9)
    lines = drawn(monkeypatch, io.StringIO(), 500).splitlines()
    assert len(lines) == 2
    assert "500/500" in lines[-1]
    assert all(line.startswith("training: ") and "\r" not in line for line in lines)


def test_a_file_gets_a_line_when_it_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "PATIENCE", 0.0)
    lines = drawn(monkeypatch, io.StringIO(), 20).splitlines()
    assert [f"{step}/20" in line for step, line in enumerate(lines[:21])] == [True] * 21


def test_a_terminal_has_one_line_that_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    written = drawn(monkeypatch, Terminal(), 20)
    assert written.count("\r") >= 2
    assert written.count("\n") == 1


def test_what_was_done_before_does_not_count_as_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "PATIENCE", 1e9)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with bars.bar("training", 10_000_000) as bar:
        bars.begin(bar, 9_999_990)
        bars.reach(bar, 9_999_991)
        assert bar.n == 9_999_991
        assert bar.format_dict["initial"] == 9_999_990
        bars.reach(bar, 9_999_900)  # a training that has gone back
        assert bar.n == 9_999_900


def test_a_sentence_has_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    bars.say("The paint is dry.")
    assert capsys.readouterr().err == "The paint is dry.\n"
