"""`impasto caption`: captions for a dataset's pictures. Knows no torch before a model needs it; progress goes to stderr."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from trainer.bars import bar, reach, say
from trainer.captioning.events import Captioned, Done, Event, Fetched, Loading, Passed, Remark, as_json
from trainer.captioning.models import MODELS, chosen
from trainer.captioning.place import place_of
from trainer.captioning.work import Order, run
from trainer.data.lookup import folder_of
from trainer.errors import ImpastoError, UsageError
from trainer.home import Home

Asked = argparse.Namespace
Result = dict[str, Any]


def caption(asked: Asked, home: Home) -> Result:
    """`impasto caption`."""
    if asked.list:
        return {"models": [_told(model) for model in MODELS]}
    if asked.events and asked.json:
        raise UsageError("impasto caption: --events and --json exclude each other.")
    if not asked.events:
        return _shown(_events(asked, home))
    try:
        for event in _events(asked, home):
            print(json.dumps(as_json(event)), flush=True)  # in ASCII, which every pipe takes
    except ImpastoError as error:
        print(json.dumps({"is": "error", "message": str(error)}), flush=True)
        raise
    return {}


def _events(asked: Asked, home: Home) -> Iterator[Event]:
    """What is asked for, being done. Raises `UsageError`, `DatasetError`."""
    order = _order(asked)
    return run(replace(order, folder=folder_of(order.folder, home)))


def _order(asked: Asked) -> Order:
    """What is asked for. Raises `UsageError`."""
    if asked.dataset is None:
        raise UsageError("impasto caption: name the dataset's folder, or ask for the models with --list.")
    model = chosen(asked.model)
    if asked.template is not None and model.kind != "names":
        raise UsageError("impasto caption: --template is for captions from file names, so it goes with --model names.")
    if asked.length is not None and model.kind not in ("florence", None):
        raise UsageError("impasto caption: --length is for the models of Florence-2.")
    return Order(
        folder=asked.dataset,
        model=model,
        length=asked.length or "long",
        template="{name}" if asked.template is None else asked.template,
        overwrite=asked.overwrite,
        without=asked.without_style_words,
    )


def _told(model: Any) -> Result:
    """What there is to say of a model; `here`: it needs no download any more."""
    here = not model.source or place_of(model) is not None
    return {"name": model.name, "source": model.source, "about": model.about, "gigabytes": model.gigabytes, "here": here}


def _shown(events: Iterator[Event]) -> Result:
    """Work to the end under bars; what became of each picture."""
    captions: dict[str, str] = {}
    passed: dict[str, str] = {}
    bars: dict[str, Any] = {}
    with ExitStack() as stack:

        def moved(name: str, done: int, total: int, **how: Any) -> None:
            if name not in bars:
                bars[name] = stack.enter_context(bar(name, total, **how))
            reach(bars[name], done)

        for event in events:
            match event:
                case Fetched():
                    moved("downloading", event.done, event.total, unit="B", unit_scale=True)
                case Loading():
                    say(f"Loading {event.model}.")
                case Captioned():
                    captions[event.name] = event.text
                    moved("captions", event.done, event.total)
                case Passed():
                    passed[event.name] = event.message
                    say(event.message)
                    moved("captions", event.done, event.total)
                case Remark():
                    say(event.message)
                case Done():
                    return {"written": captions, "passed": passed, "total": event.total}
    raise AssertionError("the last event is Done")


def told_captions(result: Result) -> list[str]:
    """What is told of captions, or of the models that write them; nothing where events have told it."""
    if "models" in result:
        return [
            f"{model['name']:<15} {model['about']}"
            + ("" if model["here"] else f" About {model['gigabytes']:.1f} GB to download.")
            for model in result["models"]
        ]
    if not result:
        return []
    lines = [f"{name}: {text}" for name, text in result["written"].items()]
    if not result["total"]:
        return ["Every picture has a caption; --overwrite writes them anew."]
    return [*lines, f"{len(result['written'])} of {result['total']} captions written."]
