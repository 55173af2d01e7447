"""Changes of a dataset by several threads and processes at once, and by one that is killed at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data.editing.test_edits import content, made, seen
from trainer.data import captions
from trainer.data.editing.edits import JOURNAL, CaptionConflict, Edits

ROOT = Path(__file__).resolve().parents[3]

WRITER = """
import sys
from pathlib import Path
from tests.data.editing.test_edits_together import write_words
print(write_words(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
"""
"""A tab in a process of its own."""

TYPIST = """
import sys
from pathlib import Path
from trainer.data.editing.edits import Edits
was = "a house"
for number in range(10_000):
    Edits(Path(sys.argv[1])).caption("a.png", was, f"draft {number}")
    was = f"draft {number}"
    print(number, flush=True)
"""
"""A person who types until the process is killed; each number that is printed has been saved."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset of three pictures."""
    return made(tmp_path / "set")


def write_words(folder: Path, tab: str, count: int) -> int:
    """Add words to a caption as another tab does, and write one of its own after each. Returns how many conflicts were told."""
    own, conflicts = {"x": "b.png", "y": "c.jpg"}[tab], 0
    own_was = captions.read((folder / own).with_suffix(".txt"))
    was = captions.read(folder / "a.txt")
    for number in range(count):
        word = f"{tab}{number}"
        while True:
            try:
                Edits(folder).caption("a.png", was, f"{was} {word}")
                was = f"{was} {word}"
                break
            except CaptionConflict as conflict:
                conflicts += 1
                was = conflict.current
        Edits(folder).caption(own, own_was, word)
        own_was = word
    return conflicts


def assert_no_word_is_lost(folder: Path, count: int) -> None:
    """Each word of both tabs is there once, in each tab's order, and the other captions are theirs."""
    words = captions.read(folder / "a.txt").split()
    assert sorted(words) == sorted(["a", "house", *(f"{tab}{number}" for tab in "xy" for number in range(count))])
    for tab in "xy":
        assert [word for word in words if word[0] == tab] == [f"{tab}{number}" for number in range(count)]
    assert [captions.read(folder / name) for name in ("b.txt", "c.txt")] == [f"x{count - 1}", f"y{count - 1}"]
    assert Edits(folder).version == 4 * count


def test_five_hundred_edits_of_two_threads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    conflicts: dict[str, int] = {}
    tabs = [threading.Thread(target=lambda tab=tab: conflicts.update({tab: write_words(folder, tab, 125)})) for tab in "xy"]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    assert_no_word_is_lost(folder, 125)
    assert sum(conflicts.values()) > 0, "they never met"


def test_edits_of_two_processes(folder: Path) -> None:
    count = 30
    tabs = [
        subprocess.Popen([sys.executable, "-c", WRITER, folder, tab, str(count)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for tab in "xy"
    ]
    assert sum(int(tab.communicate()[0]) for tab in tabs) > 0, "they never met"
    assert_no_word_is_lost(folder, count)


# Killed -----------------------------------------------------------------------------------------------------------------


class Fuse:
    """Kills its own process when something is done to a file in the folder for the so-manieth time."""

    def __init__(self, folder: Path, left: int) -> None:
        self.folder, self.left = str(folder), left

    def see(self, event: str, given: tuple[Any, ...]) -> None:
        """Python's own report of what is about to be done."""
        if event in ("open", "os.rename", "os.remove", "os.truncate", "os.mkdir") and str(given[0]).startswith(self.folder):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def survives(folder: Path, act: Callable[[Edits], Any], fuse: int) -> bool:
    """Do it in a process that the fuse kills; whether it was through before that."""
    child = os.fork()
    if not child:
        sys.addaudithook(Fuse(folder, fuse).see)
        try:
            act(Edits(folder))
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status == 0


ACTS: dict[str, Callable[[Edits], Any]] = {
    "caption": lambda change: change.caption("a.png", "a house", "a hut"),
    "captions": lambda change: change.captions({"a.png": ("a house", "a hut"), "b.png": ("a boat", "a raft")}, "both"),
    "remove": lambda change: change.remove(["a.png", "b.png"]),
    "set": lambda change: change.set("weights", {"a.png": 0.5}),
    "mask": lambda change: change.mask("a.png", None),
}


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize("kind", ACTS)
def test_a_change_that_is_killed_at_any_moment_is_made_or_not(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    before, whole = seen(made(tmp_path / "before")), made(tmp_path / "whole")
    ACTS[kind](Edits(whole))
    ends = set()
    for fuse in range(1, 100):
        folder = made(tmp_path / str(fuse))
        through = survives(folder, ACTS[kind], fuse)
        last = Edits(folder).last  # opened anew, which finishes what was begun
        assert seen(folder) == (seen(whole) if last else before)
        assert not list(folder.glob(".*.part"))
        ends.add(last is not None)
        while Edits(folder).undo():
            pass
        assert seen(folder) == before
        if through:
            break
    assert fuse > 4
    assert ends == {True, False}


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_an_undo_that_is_killed_at_any_moment_is_made_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    before, ends = seen(made(tmp_path / "before")), set()
    for fuse in range(1, 100):
        folder = made(tmp_path / str(fuse))
        Edits(folder).remove(["a.png", "b.png"])
        removed = seen(folder)
        through = survives(folder, lambda change: change.undo(), fuse)
        last = Edits(folder).last
        assert seen(folder) == (removed if last else before)
        ends.add(last is not None)
        if through:
            break
    assert ends == {True, False}


def test_who_is_killed_while_typing_loses_nothing_that_was_saved(folder: Path) -> None:
    before = content(folder)
    with subprocess.Popen([sys.executable, "-c", TYPIST, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True) as typist:
        assert typist.stdout
        saved = int(typist.stdout.readline())
        time.sleep(0.1)
        typist.kill()
        saved = max([saved, *(int(line) for line in typist.stdout.read().split())])
    opened = Edits(folder)
    assert captions.read(folder / "a.txt") in (f"draft {saved}", f"draft {saved + 1}")
    while opened.undo():
        pass
    assert content(folder) == before


@pytest.mark.parametrize("damage", [b"", b"\x00" * 30, b'{"change": 9, "what', b"{}\n", b"[1]\n", b'{"change": "x"}\n'])
def test_a_journal_that_was_cut_off_is_read_as_far_as_it_is_whole(
    tmp_path: Path, damage: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    whole = made(tmp_path / "whole")
    Edits(whole).caption("a.png", "a house", "one")
    Edits(whole).caption("b.png", "a boat", "two")
    held = (whole / JOURNAL).read_bytes()
    for length in range(0, len(held) + 1, 29):
        (whole / "a.txt").write_bytes(b"one\n")
        (whole / "b.txt").write_bytes(b"two\n")
        (whole / JOURNAL).write_bytes(held[:length] + damage)
        Edits(whole).caption("c.jpg", captions.read(whole / "c.txt"), f"number {length}")
        undone = Edits(whole).undo()
        assert undone
        assert undone.names == ("c.jpg",)
        again = Edits(whole).undo()
        assert again is None or again.names in (("a.png",), ("b.png",))


@pytest.mark.parametrize("path", ["../outside.txt", "/tmp/outside.txt", "masks/../../outside.txt", "removed/..", "", "a/b.txt"])
def test_a_journal_from_elsewhere_changes_nothing_outside_the_dataset(folder: Path, path: str) -> None:
    before = content(folder.parent)
    step = {"do": "write", "name": "a.png", "path": path, "was": None, "now": {"text": "gotcha"}}
    line = {"change": 1, "what": "x", "names": [], "undoes": None, "steps": [step]}
    (folder / JOURNAL).write_text(f"{json.dumps(line)}\n", encoding="utf-8")
    assert Edits(folder).undo() is None
    assert content(folder.parent) == before


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_a_journal_from_elsewhere_does_not_write_through_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (folder / "originals").symlink_to(tmp_path / "outside")
    step = {"do": "write", "name": "a.png", "path": "originals/keys", "was": None, "now": {"text": "gotcha"}}
    line = {"change": 1, "what": "x", "names": [], "undoes": None, "steps": [step]}
    (folder / JOURNAL).write_text(f"{json.dumps(line)}\n", encoding="utf-8")
    assert Edits(folder).undo() is None
    assert list((tmp_path / "outside").iterdir()) == []
