"""The journal: read from its end, whatever its size; shortened without forgetting how far it had come."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.data.editing import journal
from trainer.data.editing.journal import Change, Journal
from trainer.data.editing.steps import Write


def change(number: int, undoes: int | None = None, text: str = "") -> Change:
    """One that writes a caption."""
    now = f"{number} {text}".encode()
    return Change(number, f"change {number}", ("a.png",), (Write("a.png", "a.txt", None, now),), undoes)


@pytest.mark.parametrize("block", [1, 7, 64, 2**20])
def test_the_newest_are_found_from_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(journal, "_BLOCK", block)
    kept = Journal(tmp_path / "journal")
    assert (kept.version, kept.last, kept.last_what, kept.unfinished) == (0, None, None, None)
    kept.begin(change(1))
    assert [kept.unfinished] == [change(1)]
    kept.end(change(1), "done")
    kept.begin(change(2, text="é\n" * 50))
    kept.end(change(2), "done")
    assert (kept.version, kept.last, kept.unfinished) == (2, change(2, text="é\n" * 50), None)
    kept.begin(change(3))
    kept.end(change(3), "cancelled")
    assert (kept.version, kept.last_what) == (3, "change 2")
    for number, undoes, left in ((4, 2, "change 1"), (5, 1, None)):
        kept.begin(change(number, undoes))
        kept.end(change(number, undoes), "done")
        assert (kept.version, kept.last_what) == (number, left)


def test_an_undo_that_was_called_off_has_undone_nothing(tmp_path: Path) -> None:
    kept = Journal(tmp_path / "journal")
    for entry, how in ((change(1), "done"), (change(2, undoes=1), "cancelled")):
        kept.begin(entry)
        kept.end(entry, how)  # type: ignore[arg-type]
    assert kept.last == change(1)


def test_a_shortened_journal_knows_its_version_and_what_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "KEPT", 3)
    kept = Journal(tmp_path / "journal")
    for number in range(1, 10):
        entry = change(number, undoes=8 if number == 9 else None)
        kept.begin(entry)
        kept.end(entry, "done")
    assert (kept.version, kept.last, kept.unfinished) == (9, change(7), None)
    assert len(kept.path.read_bytes().splitlines()) == 2 * 3 + 1


def test_a_change_larger_than_all_bounds_can_be_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MOST_BYTES", 1000)
    kept = Journal(tmp_path / "journal")
    for entry in (change(1), change(2, text="x" * 5000)):
        kept.begin(entry)
        kept.end(entry, "done")
    assert kept.last == change(2, text="x" * 5000)
