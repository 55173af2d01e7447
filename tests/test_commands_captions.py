"""`impasto caption`, in this process and as the child that the page starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.captioners import save_tagger
from trainer.captioning.models import MODELS
from trainer.children import ROOT
from trainer.data.dataset import Dataset

COUNT = 40


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tagger(tmp_path_factory.mktemp("models") / "tagger")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Red pictures, the first with a caption."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(COUNT):
        Image.new("RGB", (200, 300), (255, 0, number)).save(folder / f"red-house-{number:02d}.png")
    (folder / "red-house-00.txt").write_text("mine\n", encoding="utf-8")
    return folder


def child(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "trainer", "caption", *map(str, arguments), "--events"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # lines come at once anyway
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def test_json_is_one_object_with_every_caption(impasto: Any, folder: Path) -> None:
    told = impasto("caption", folder, "--template", "a {name}", "--json")
    assert told.code == 0
    names = [f"red-house-{number:02d}.png" for number in range(1, COUNT)]
    assert told.json == {"written": dict.fromkeys(names, "a red house"), "passed": {}, "total": COUNT - 1}
    assert Dataset.open(folder).pictures[0].caption == "mine"
    assert "captions: 100%" in told.err


def test_a_person_is_told_what_was_written_and_that_nothing_is_left(impasto: Any, folder: Path) -> None:
    assert f"{COUNT - 1} of {COUNT - 1} captions written." in impasto("caption", folder).out
    assert impasto("caption", folder).out == "Every picture has a caption; --overwrite writes them anew.\n"
    assert f"{COUNT} of {COUNT} captions written." in impasto("caption", folder, "--overwrite").out


def test_a_model_writes_without_style_words(impasto: Any, folder: Path, tagger: Path) -> None:
    told = impasto("caption", folder, "--model", tagger, "--without-style-words", "long hair", "--json")
    assert set(told.json["written"].values()) == {"red hat"}


def test_the_models_are_listed(impasto: Any) -> None:
    models = impasto("caption", "--list", "--json").json["models"]
    assert [model["name"] for model in models] == [model.name for model in MODELS]
    assert models[0]["here"]
    assert "About 0.5 GB to download." in impasto("caption", "--list").out


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("pictures", "--model", "wd-vit", "--template", "x"), 2, "--template is for captions from file names"),
        (("pictures", "--length", "short"), 2, "--length is for the models of Florence-2"),
        (("pictures", "--model", "nothing"), 2, "There is no model nothing that writes captions: choose one of names"),
        (("pictures", "--events", "--json"), 2, "--events and --json exclude each other"),
        ((), 2, "name the dataset's folder, or ask for the models with --list"),
        (("nowhere",), 1, "The dataset folder nowhere does not exist"),
        (("pictures", "--model", "owner/nothing"), 1, "owner/nothing is not on this machine, or not all of it, and HF"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_a_sentence(
    impasto: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    monkeypatch.chdir(folder.parent)
    told = impasto("caption", *arguments)
    assert told.code == code
    assert sentence in told.sentence


def test_a_child_that_is_killed_has_lost_nothing_and_the_next_goes_on(folder: Path, tagger: Path) -> None:
    process = child(folder, "--model", tagger)
    assert process.stdout
    first = [json.loads(process.stdout.readline()) for _ in range(4)]
    process.kill()
    process.communicate()
    assert [event["is"] for event in first] == ["loading", "caption", "caption", "caption"]
    written = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("*.txt")}
    for event in first[1:]:
        assert written[folder / event["name"].replace(".png", ".txt")][0].decode() == f"{event['text']}\n"
    assert len(written) < COUNT

    out, err = child(folder, "--model", tagger).communicate(timeout=60)
    events = [json.loads(line) for line in out.splitlines()]
    left = COUNT - len(written)
    assert events[0] == {"is": "loading", "model": "tagger"}
    assert events[-1] == {"is": "done", "written": left, "passed": 0, "total": left}
    captions = events[1:-1]
    assert [(event["done"], event["total"]) for event in captions] == [(number, left) for number in range(1, left + 1)]
    assert {event["text"] for event in captions} == {"red hat, long hair"}
    assert all((path.read_bytes(), path.stat().st_mtime_ns) == before for path, before in written.items())
    assert all(picture.caption for picture in Dataset.open(folder).pictures)
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("model", "code", "words"), [("names", 1, "does not exist"), ("nothing", 2, "There is no model nothing")]
)
def test_a_child_tells_an_error_on_both_streams(tmp_path: Path, model: str, code: int, words: str) -> None:
    process = child(tmp_path / "nowhere", "--model", model)
    out, err = process.communicate(timeout=60)
    (event,) = [json.loads(line) for line in out.splitlines()]
    assert event["is"] == "error"
    assert event["message"] == err.strip()
    assert words in err
    assert process.returncode == code


def test_events_are_ascii_whatever_the_console(folder: Path) -> None:
    os.rename(folder / "red-house-01.png", folder / "красный дом.png")
    process = subprocess.run(
        [sys.executable, "-m", "trainer", "caption", str(folder), "--events"], cwd=ROOT, check=True, capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    events = [json.loads(line) for line in process.stdout.decode("ascii").splitlines()]
    assert {"красный дом"} < {event.get("text") for event in events}
