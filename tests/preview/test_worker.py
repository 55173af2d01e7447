"""The previewer's process, without and with the process."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO, cast

import pytest
from PIL import Image

from trainer.bases import hub
from trainer.bases.origin import Remark
from trainer.errors import BaseModelError, LoraFileError
from trainer.preview.previewer import Drawn, Previewer
from trainer.preview.worker import Studio, fetched, serve
from trainer.recipe import LoraChoice, Request

SMALL = Request(prompt="a red house", seed=3, steps=2, width=64, height=64)


class FakePreviewer:
    """Draws a plain picture in two steps."""

    def draw(self, request: Request, live: bool = False) -> Iterator[Drawn]:
        if request.loras:
            raise LoraFileError(f"There is no LoRA file {request.loras[0].path}.")
        yield Drawn(1, 2, glimpse=Image.new("RGB", (1, 1), (9, 8, 7)) if live else None)
        yield Drawn(2, 2, Image.new("RGB", (8, 8), (1, 2, 3)))

    def remarks(self, loras: Sequence[LoraChoice], prediction: str, cache: Path) -> list[Remark]:
        return [Remark("note", f"{len(loras)} LoRAs, remembered in {cache.name}.")]


def studio(loaded: list[str]) -> Studio:
    def load(source: str) -> Previewer:
        if source == "nowhere":
            raise BaseModelError("There is no base model nowhere.")
        loaded.append(source)
        return cast(Previewer, FakePreviewer())

    return Studio(load, lambda source: iter(()))


def drawing(out: Path, base: str = "a", request: Request = SMALL) -> str:
    cache = str(out.parent / "cache")
    return json.dumps({"do": "draw", "base": base, "request": request.to_json(), "out": str(out), "cache": cache})


def test_a_base_that_is_not_here_is_fetched_and_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "cached", lambda source: None)
    monkeypatch.setattr(hub, "fetching", lambda source: iter([(0, 100), (40, 100), (100, 100)]))
    told = list(fetched("some/base"))
    assert told[-1] == {"is": "fetch", "done": 100, "total": 100}
    assert 2 <= len(told) <= 3, "the first and the last, and what takes longer than half a second"
    assert list(fetched("starter")) == []


def test_a_picture_comes_in_steps_with_its_recipe(tmp_path: Path) -> None:
    out = tmp_path / "new" / "a.png"
    answers = list(serve([drawing(out)], studio([])))
    assert answers == [
        {"is": "step", "done": 1, "total": 2}, {"is": "step", "done": 2, "total": 2},
        {"is": "done", "out": str(out), "remarks": [{"level": "note", "sentence": "0 LoRAs, remembered in cache."}]},
    ]  # fmt: skip
    with Image.open(out) as picture:
        assert "Seed: 3" in picture.info["parameters"]


def test_a_live_drawing_shows_what_becomes_of_it(tmp_path: Path) -> None:
    asked = {**json.loads(drawing(tmp_path / "a.png")), "live": True}
    first, second, _ = serve([json.dumps(asked)], studio([]))
    with Image.open(io.BytesIO(base64.b64decode(first["glimpse"]))) as seen:
        assert (seen.format, seen.getpixel((0, 0))) == ("PNG", (9, 8, 7))
    assert "glimpse" not in second


def test_the_base_stays_loaded_until_another_is_wanted(tmp_path: Path) -> None:
    loaded: list[str] = []
    list(serve([drawing(tmp_path / "a.png", base) for base in ("a", "a", "b", "a")], studio(loaded)))
    assert loaded == ["a", "b", "a"]


def test_every_request_has_one_last_answer_and_an_error_ends_only_its_own(tmp_path: Path) -> None:
    lines = [
        "no json", "[]", json.dumps({"do": "dance"}), json.dumps({}),
        drawing(tmp_path / "a.png", "nowhere"),
        drawing(tmp_path / "b.png", request=Request(prompt="", loras=(LoraChoice(Path("gone.safetensors")),))),
        drawing(tmp_path / "c.png"),
        json.dumps({"do": "quit"}),
        drawing(tmp_path / "d.png"),
    ]  # fmt: skip
    last = [answer for answer in serve(lines, studio([])) if answer["is"] != "step"]
    assert [answer["is"] for answer in last] == ["error"] * 6 + ["done"]
    assert last[4]["message"] == "There is no base model nowhere."
    assert "gone.safetensors" in last[5]["message"]
    assert not (tmp_path / "d.png").exists()


def test_a_cancel_ends_what_was_asked_for_before_it_and_nothing_after(tmp_path: Path) -> None:
    first_step = threading.Event()

    def lines() -> Iterator[str]:
        yield drawing(tmp_path / "a.png")
        yield drawing(tmp_path / "b.png")
        assert first_step.wait(10)
        yield json.dumps({"do": "cancel"})
        yield drawing(tmp_path / "c.png")
        heard.set()

    heard, answers = threading.Event(), []
    for answer in serve(lines(), studio([])):
        answers.append(answer["is"])
        first_step.set()
        assert heard.wait(10)
    assert answers == ["step", "cancelled", "cancelled", "step", "step", "done"]
    assert [(tmp_path / name).exists() for name in ("a.png", "b.png", "c.png")] == [False, False, True]


@pytest.mark.slow
@pytest.mark.parametrize("line", ["", "{", "5", '"draw"', "[1]"])
def test_what_is_no_request_is_answered(line: str) -> None:
    (answer,) = serve([line], studio([]))
    assert answer["is"] == "error"
    assert "not a request" in answer["message"]


def test_a_fault_of_ours_is_not_called_a_wrong_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakePreviewer, "draw", lambda self, request, live: request.no_such_thing)
    with pytest.raises(AttributeError, match="no_such_thing"):
        list(serve([drawing(tmp_path / "a.png")], studio([])))


def test_the_process_answers_on_stdout_alone_stops_within_a_step_and_ends_with_stdin(toy_base: Path, tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("a.png", "long.png", "b.png")]
    requests = (SMALL, replace(SMALL, steps=200, width=512, height=512), SMALL)
    first, long, last = (drawing(place, str(toy_base), request) for place, request in zip(places, requests, strict=True))
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer.preview.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    with process as running:
        asking, answering = cast(TextIO, running.stdin), cast(TextIO, running.stdout)
        print(first, long, sep="\n", file=asking)
        begun = [json.loads(answering.readline())["is"] for _ in range(4)]
        print(json.dumps({"do": "cancel"}), last, sep="\n", file=asking)
        asking.close()
        late = [json.loads(line)["is"] for line in answering]
        assert running.wait(timeout=60) == 0
    assert begun == ["step", "step", "done", "step"]
    assert late.index("cancelled") < 50, "one step, and what is told before this process has its turn"
    assert late[late.index("cancelled") :] == ["cancelled", "step", "step", "done"]
    assert places[0].read_bytes() == places[2].read_bytes()
    assert not places[1].exists()
