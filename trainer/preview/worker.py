"""The previewer's process: requests come as lines of JSON on stdin, answers go as lines of JSON to stdout.

    {"do": "draw", "base": SOURCE, "request": {…}, "out": PNG, "cache": FOLDER}          a picture
    {"do": "sheet", "base": SOURCE, "prediction": "auto", "lora": FILE, "out": PNG, "seed": N, "cache": FOLDER}  a style sheet
    {"do": "cancel"}    ends all that was asked for before it, within a step; the base stays loaded
    {"do": "quit"}

    {"is": "fetch", "done": BYTES, "total": BYTES}    while a base comes from the Hub
    {"is": "step", "done": 3, "total": 20}    as often as there is something to tell; a drawing that is asked for with
                                              "live": true has "glimpse": a small PNG in base64
    {"is": "done", "out": PNG, "remarks": […]}  or  {"is": "error", "message": SENTENCE}  or  {"is": "cancelled"}
                                              once for each picture and sheet that was asked for

The base stays loaded between requests. The process ends when stdin does; a fault of ours ends it too, with a traceback on
stderr. Knows nothing of the page.
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from PIL import Image

from trainer.bases import hub
from trainer.bases.origin import Remark
from trainer.bases.source import facts_of
from trainer.errors import ImpastoError, UsageError
from trainer.preview.previewer import Previewer
from trainer.preview.sheet import draw_sheet
from trainer.recipe import LoraChoice, Request, infotext, write_png

Answer = dict[str, Any]


class Studio:
    """One previewer, for the base that was asked for last."""

    def __init__(self, load: Callable[[str], Previewer], fetch: Callable[[str], Iterator[Answer]]) -> None:
        """`fetch` brings a base to this disk and tells of it, `load` loads it."""
        self._load = load
        self._fetch = fetch
        self._source = ""
        self._previewer: Previewer | None = None

    def previewer(self, source: str) -> Previewer:
        """The previewer of a base. Raises `BaseModelError`."""
        if self._previewer is None or self._source != source:
            self._previewer = None  # two bases would not fit into the memory together
            self._previewer, self._source = self._load(source), source
        return self._previewer

    def answers(self, asked: Mapping[str, Any]) -> Iterator[Answer]:
        """Do what is asked. Raises `ImpastoError`."""
        work = {"draw": self._draw, "sheet": self._sheet}.get(asked.get("do", ""))
        if work is None:
            raise UsageError(f"The previewer was asked for something it does not know: {asked.get('do')}.")
        return work(asked)

    def _draw(self, asked: Mapping[str, Any]) -> Iterator[Answer]:
        yield from self._fetch(asked["base"])
        request, out, previewer = Request.from_json(asked["request"]), Path(asked["out"]), self.previewer(asked["base"])
        for drawn in previewer.draw(request, asked.get("live", False)):
            seen = {"glimpse": _in_text(drawn.glimpse)} if drawn.glimpse else {}
            yield {"is": "step", "done": drawn.step, "total": drawn.steps, **seen}
            if drawn.picture:
                write_png(out, drawn.picture, infotext(request, asked["base"]))
        yield self._done(asked, previewer.remarks(request.loras, request.prediction, Path(asked["cache"])))

    def _sheet(self, asked: Mapping[str, Any]) -> Iterator[Answer]:
        yield from self._fetch(asked["base"])
        lora, out, previewer = Path(asked["lora"]), Path(asked["out"]), self.previewer(asked["base"])
        for sheet in draw_sheet(previewer, lora, asked["seed"], asked["prediction"]):
            yield {"is": "step", "done": sheet.done, "total": sheet.total}
            if sheet.picture:
                write_png(out, sheet.picture, f"Style sheet of {lora.name}, seeds from {asked['seed']}")
        yield self._done(asked, previewer.remarks([LoraChoice(lora)], asked["prediction"], Path(asked["cache"])))

    @staticmethod
    def _done(asked: Mapping[str, Any], remarks: Sequence[Remark]) -> Answer:
        return {"is": "done", "out": asked["out"], "remarks": [asdict(remark) for remark in remarks]}


def _in_text(picture: Image.Image) -> str:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode("ascii")


def fetched(source: str) -> Iterator[Answer]:
    """Bring a base that is not on this disk, told of twice a second. Raises `BaseModelError`, `StorageError`."""
    if facts_of(source).place is None:
        told = 0.0
        for done, total in hub.fetching(source):
            if done == total or time.monotonic() - told >= 0.5:
                told = time.monotonic()
                yield {"is": "fetch", "done": done, "total": total}


class _Inbox:
    """Lines in their order, read by a thread of their own: a cancel is heard while something is drawn."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = lines
        self._unanswered = SimpleQueue[str | None]()
        self._read = self._cancelled = 0
        Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            for line in self._lines:
                if _is_cancel(line):
                    self._cancelled = self._read
                else:
                    self._read += 1
                    self._unanswered.put(line)
        finally:
            self._unanswered.put(None)

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Requests with their numbers."""
        return enumerate(iter(self._unanswered.get, None), start=1)

    def cancelled(self, number: int) -> bool:
        """Whether there was a cancel after the request of this number."""
        return number <= self._cancelled


def serve(lines: Iterable[str], studio: Studio) -> Iterator[Answer]:
    """Answer every line until one says quit, or there are no more."""
    inbox = _Inbox(lines)
    for number, line in inbox:
        try:
            asked = _asked(line)
            if asked.get("do") == "quit":
                return
            yield from _until(studio.answers(asked), partial(inbox.cancelled, number))
        except ImpastoError as error:
            yield {"is": "error", "message": str(error)}


def _until(answers: Iterator[Answer], cancelled: Callable[[], bool]) -> Iterator[Answer]:
    """The answers; once cancelled, the next is not worked for any more."""
    while not cancelled():
        answer = next(answers)
        yield answer
        if answer["is"] == "done":
            return
    yield {"is": "cancelled"}


def _is_cancel(line: str) -> bool:
    try:
        return _asked(line).get("do") == "cancel"
    except UsageError:
        return False


def _asked(line: str) -> dict[str, Any]:
    """The request in a line. Raises `UsageError`."""
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError) as error:
        raise UsageError(f"The previewer was sent something that is not a request: {error}.") from None


def main() -> None:
    """Serve stdin. What the libraries print goes to stderr, so that stdout holds answers alone."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1) as stdout:
        os.dup2(2, 1)
        for answer in serve(sys.stdin, Studio(Previewer.load, fetched)):
            stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
