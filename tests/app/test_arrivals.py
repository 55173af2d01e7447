import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import arrivals
from app.arrivals import STALE, Arrivals
from tests.app.conftest import save_pictures
from trainer.data.arrival.adding import Added, add
from trainer.data.dataset import Dataset
from trainer.errors import DatasetError


@pytest.fixture
def there(tmp_path: Path) -> Arrivals:
    return Arrivals(tmp_path / "cache" / "dropped")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "prints"


def wait_until(true: Callable[[], Any]) -> None:
    until = time.monotonic() + 20
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def parcel(there: Arrivals, tmp_path: Path, files: dict[str, bytes]) -> str:
    """A parcel as the page makes it, of paths and contents."""
    key = there.begin()
    for path, content in files.items():
        there.place(key, path).write_bytes(content)
    return key


def picture(tmp_path: Path, count: int = 1) -> list[bytes]:
    return [path.read_bytes() for path in save_pictures(tmp_path / "given", count)]


def added(there: Arrivals, key: str, folder: Path) -> arrivals.Adding:
    """What became of a parcel."""
    there.add(key, folder)
    adding = there.of(folder)
    assert adding is not None
    wait_until(lambda: not adding.busy)
    return adding


def test_a_folder_is_added_as_it_was_and_nothing_of_it_stays_behind(there: Arrivals, folder: Path, tmp_path: Path) -> None:
    one, two = picture(tmp_path, 2)
    files = {"set/3_boats/a.png": one, "set/3_boats/a.txt": b"a boat\n", "set/b.png": two, "set/no.jpg": b"no picture"}
    adding = added(there, parcel(there, tmp_path, files), folder)
    dataset = Dataset.open(folder)
    assert [each.path.read_bytes() for each in dataset.pictures] == [one, two]
    assert (dataset.pictures[0].caption, dataset.repeats) == ("a boat", {"a.png": 3})
    assert (adding.added, adding.done, adding.total, len(adding.refused)) == (2, 3, 3, 1)
    assert adding.refused[0].startswith("no.jpg is not a picture")
    assert not any(there.folder.iterdir())


@pytest.mark.parametrize("path", ["../../o.png", "/etc/o.png", "a/../../../o.png", "..\\..\\o.png", "..", "", "C:\\o.png"])
def test_no_file_is_written_outside_of_its_parcel(there: Arrivals, path: str) -> None:
    key = there.begin()
    placed = there.place(key, path)
    assert placed.resolve().is_relative_to((there.folder / key).resolve())
    assert placed.parent.resolve() != there.folder.resolve()


@pytest.mark.parametrize("key", ["", "..", "../prints", "0123456789abcdef", "x" * 16])
def test_only_parcels_that_are_there_are_taken(there: Arrivals, folder: Path, key: str) -> None:
    there.begin()
    for act in (lambda: there.add(key, folder), lambda: there.drop(key), lambda: there.place(key, "a.png")):
        with pytest.raises(DatasetError, match="drop it again"):
            act()
    assert there.of(folder) is None


def test_files_of_one_name_are_both_kept(there: Arrivals, folder: Path, tmp_path: Path) -> None:
    key = there.begin()
    for content in picture(tmp_path, 2):
        there.place(key, "a.png").write_bytes(content)
    assert added(there, key, folder).added == 2


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Adding waits before each picture until this is set."""
    opened = threading.Event()

    def slowly(folder: Path, paths: Any, background: Any) -> Iterator[Any]:
        for each in add(folder, paths, background):
            assert opened.wait(20)
            yield each

    monkeypatch.setattr(arrivals, "add", slowly)
    return opened


def test_what_is_dropped_meanwhile_is_added_after_it_and_counted_with_it(
    there: Arrivals, folder: Path, tmp_path: Path, gate: threading.Event
) -> None:
    one, two, three = picture(tmp_path, 3)
    there.add(parcel(there, tmp_path, {"a.png": one, "b.png": two}), folder)
    there.add(parcel(there, tmp_path, {"c.png": three}), folder)
    adding = there.of(folder)
    assert adding is not None
    there.seen(folder)
    assert there.of(folder) is adding, "it is not over yet"
    gate.set()
    wait_until(lambda: not adding.busy)
    assert (adding.done, adding.total, adding.added) == (3, 3, 3)
    there.seen(folder)
    assert there.of(folder) is None


def test_stopping_keeps_what_is_in_and_takes_no_more(
    there: Arrivals, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    def endless(folder: Path, paths: Any, background: Any) -> Iterator[Added]:
        begun.append(folder)
        for number in range(1, 1_000_000):
            yield Added(f"{number}.png", (), number, 1_000_000)
            time.sleep(0.001)

    monkeypatch.setattr(arrivals, "add", endless)
    for _ in range(2):
        there.add(parcel(there, tmp_path, {"a.png": b"x"}), folder)
    adding = there.of(folder)
    assert adding is not None
    wait_until(lambda: adding.added)
    there.stop(folder)
    wait_until(lambda: not adding.busy)
    assert adding.stopped
    assert len(begun) == 1, "what waited is not begun any more"
    assert not any(there.folder.iterdir())


def test_what_was_never_added_is_deleted_a_day_later(there: Arrivals) -> None:
    old, new = there.begin(), there.begin()
    long_ago = time.time() - STALE - 60
    os.utime(there.folder / old, (long_ago, long_ago))
    (there.folder / "packed.zip").write_bytes(b"x")
    os.utime(there.folder / "packed.zip", (long_ago, long_ago))
    newest = there.begin()
    assert sorted(path.name for path in there.folder.iterdir()) == sorted([new, newest])
