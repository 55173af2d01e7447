"""Where things live, names that every system takes, and files written whole or not at all."""

from __future__ import annotations

import errno
import itertools
import os
import re
import subprocess
import sys
import zipfile
from contextlib import nullcontext
from pathlib import Path

import pytest

from trainer import home as module
from trainer.home import Home, clear_parts, free_name, safe_name, shipped, sync_folder, write_all, write_atomically

ROOT = Path(__file__).resolve().parents[1]


def test_the_home_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IMPASTO_HOME", str(tmp_path / "mine"))
    assert Home.default().root == tmp_path / "mine"


def test_the_home_is_a_folder_of_the_persons_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMPASTO_HOME")
    assert Home.default().root == Path.home() / "Impasto"


def test_nothing_is_made_before_it_is_needed(tmp_path: Path) -> None:
    there = Home(tmp_path / "home")
    assert {there.datasets.parent, there.runs.parent, there.loras.parent, there.pictures.parent} == {there.root}
    assert not there.root.exists()


# Names ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("my style", "my-style"), ("größe 東京", "größe-東京"), ("a/b\\c:d*e?f", "a-b-c-d-e-f"), ("..", "untitled"),
        ("", "untitled"), ("../../etc/passwd", "etc-passwd"), ("CON", "CON-1"), ("lpt1.txt", "lpt1-1.txt"),
        ("x" * 200, "x" * 80), ("x" * 79 + " y", "x" * 79), (" .hidden ", "hidden"), ("v1.5_final", "v1.5_final"),
    ],
)  # fmt: skip
def test_a_name_becomes_one_that_every_system_takes(given: str, name: str) -> None:
    assert safe_name(given) == name
    assert safe_name(name) == name


def test_a_safe_name_is_short_in_bytes_too() -> None:
    assert len(safe_name("家" * 80).encode()) <= 160
    assert safe_name("家" * 80).startswith("家家家")


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    for expected in ("a.png", "a-2.png", "a-3.png"):
        path = free_name(tmp_path, "a.png")
        assert path.name == expected
        path.touch()


# Writing ----------------------------------------------------------------------------------------------------------------


def test_what_is_written_is_there(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new" / "a.bin", b"one")
    write_atomically(tmp_path / "new" / "a.bin", b"two")
    assert (tmp_path / "new" / "a.bin").read_bytes() == b"two"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.bin"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_what_could_not_be_written_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_atomically(tmp_path / "a.bin", b"one")
    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "a.bin", b"two")
    assert (tmp_path / "a.bin").read_bytes() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_many_files_are_written_at_once(tmp_path: Path) -> None:
    names = [f"{'a name that begins like all the others ' * 3}{number}.txt" for number in range(40)]
    write_all({tmp_path / name: b"one" for name in names})
    contents = {tmp_path / name: name.encode() for name in names} | {tmp_path / "new" / "a.txt": b"x"}
    write_all(contents)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == contents


def test_of_many_files_each_is_whole_whatever_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = itertools.count(1)

    def third(source: Path, target: Path) -> None:
        if next(counted) == 3:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.rename(source, target)

    paths = [tmp_path / f"{number}.txt" for number in range(5)]
    write_all(dict.fromkeys(paths, b"one"))
    monkeypatch.setattr(os, "replace", third)
    with pytest.raises(OSError, match="Input/output"):
        write_all(dict.fromkeys(paths, b"two"))
    assert [path.read_bytes() for path in paths] == [b"two", b"two", b"one", b"one", b"one"]
    assert len(list(tmp_path.iterdir())) == 5


def test_a_file_may_have_the_longest_name(tmp_path: Path) -> None:
    for name in ("é" * 127, "a" * 255, "😀" * 63):
        write_atomically(tmp_path / name, b"one")
        assert (tmp_path / name).read_bytes() == b"one"


def test_what_a_killed_writer_left_is_cleared_away_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "replace", lambda *_: None)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    for name in ("a[1].txt", "a1.txt"):
        write_atomically(tmp_path / name, b"one")
    monkeypatch.undo()
    clear_parts(tmp_path / "a[1].txt")
    assert [path.name.startswith(".a1.txt") for path in tmp_path.iterdir()] == [True]


# What ships -------------------------------------------------------------------------------------------------------------


def test_in_a_checkout_presets_and_assets_are_found() -> None:
    assert (shipped("presets") / "balanced.toml").is_file()
    assert (shipped("assets", "starter") / "unet" / "config.json").is_file()
    assert any(shipped("assets", "styles").iterdir())


def test_an_installed_copy_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trainer" / "shipped" / "presets").mkdir(parents=True)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "trainer" / "home.py"))
    assert shipped("presets") == tmp_path / "trainer" / "shipped" / "presets"


@pytest.mark.slow
def test_the_wheel_holds_presets_and_assets_and_finds_them(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    made = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    for folder in ("presets", "assets/starter", "assets/styles", "assets/page"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and not path.name.startswith("."):
                assert f"trainer/shipped/{path.relative_to(ROOT).as_posix()}" in names
    assert not any("/make/" in name or name.startswith("tests/") for name in names)
    look = "from trainer import home, presets; print(home.shipped('assets', 'starter')); print(presets.names())"
    found = subprocess.run(
        [sys.executable, "-c", look], cwd=tmp_path / "site", capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert Path(found[0]) == tmp_path / "site" / "trainer" / "shipped" / "assets" / "starter"
    assert found[1] == "['quick-look', 'balanced', 'careful']"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows flushes a folder's names by itself")
@pytest.mark.parametrize(
    ("code", "told"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.ENOSPC, True), (errno.EIO, True)]
)
def test_a_disk_that_cannot_flush_folders_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, told: bool
) -> None:
    def failing(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match=re.escape(os.strerror(code))) if told else nullcontext():
        sync_folder(tmp_path)
