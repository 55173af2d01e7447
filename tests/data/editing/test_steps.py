"""The steps of a change: told as JSON and read again, done once, taken back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.editing.steps import Move, Step, Write, carry_out, from_json, to_json

names = st.text(st.characters(exclude_characters="/\\:\0", exclude_categories=["Cs"]), min_size=1, max_size=9).filter(
    lambda name: name not in (".", "..")
)
files = st.one_of(names, st.builds("removed/{}".format, names))
held = st.none() | st.binary(max_size=9)


@given(st.builds(Write, names, files, held, held) | st.builds(Move, names, files, files))
def test_a_step_is_what_was_told_of_it(step: Step) -> None:
    assert from_json(json.loads(json.dumps(to_json(step))), Path("set")) == step
    assert step.back().back() == step


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"do": "run", "name": "a", "path": "b", "was": None, "now": None},
        {"do": "write", "name": "a", "path": "b", "was": None},
        {"do": "write", "name": "a", "path": "b", "was": None, "now": 3},
        {"do": "write", "name": "a", "path": "b", "was": None, "now": {"base64": "?"}},
        {"do": "write", "name": "a", "path": None, "was": None, "now": None},
        {"do": "move", "name": "a", "source": "a.png", "target": "../a.png"},
        {"do": "move", "name": "a", "source": "/etc/passwd", "target": "a.png"},
        {"do": "move", "name": "a", "source": "removed/..", "target": "b.png"},
        {"do": "move", "name": "a", "source": "other/a.png", "target": "b.png"},
    ],
)
def test_what_is_no_step_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        from_json(given, Path("/home/set"))


def test_each_step_is_done_once(tmp_path: Path) -> None:
    (tmp_path / "removed").mkdir()
    for name, content in {"a.txt": b"one", "b.png": b"b"}.items():
        (tmp_path / name).write_bytes(content)
    steps: list[Step] = [Write("a.png", "a.txt", b"one", b"two"), Move("b.png", "b.png", "removed/b.png")]
    for _ in range(2):
        assert [step.state(tmp_path) for step in steps] == ["ready" if _ == 0 else "done"] * 2
        assert carry_out(tmp_path, steps) == ()
    assert {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*.*")} == {
        "a.txt": b"two", "removed/b.png": b"b"
    }  # fmt: skip


def test_what_belongs_together_is_done_together_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"by hand")
    (tmp_path / "a.png").write_bytes(b"a")
    (tmp_path / "b.txt").write_bytes(b"one")
    steps: list[Step] = [
        Move("a.png", "a.png", "removed/a.png"), Write("a.png", "a.txt", b"one", None), Write("b.png", "b.txt", b"one", None)
    ]  # fmt: skip
    assert carry_out(tmp_path, steps) == ("a.png",)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.txt"]
