"""What each command does: arguments in, a result ready for JSON out.

Knows no torch before a command needs it. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import presets
from trainer.errors import LoraFileError, UsageError
from trainer.home import Home, free_name, shipped
from trainer.recipe import LoraChoice, Request, infotext, write_png
from trainer.tensorfile import read_header
from trainer.training.queue import Queue, Turn
from trainer.training.run import Run

if TYPE_CHECKING:
    from trainer.bases.source import Facts
    from trainer.data.dataset import Dataset
    from trainer.settings import Settings

Asked = argparse.Namespace
Result = dict[str, Any]


def train(asked: Asked, home: Home) -> Result:
    """`impasto train`."""
    return _trained(_created(asked), home)


def plan(asked: Asked, home: Home) -> Result:
    """`impasto plan`: what `impasto train` would take, before it starts."""
    from trainer.training.outlook import outlook

    return outlook(*_asked_training(asked), asked.memory, home)


def _asked_training(asked: Asked) -> tuple[Dataset, Facts, Settings]:
    """The dataset, the base and the settings that a command line names."""
    from trainer.bases.source import facts_of
    from trainer.data.dataset import Dataset

    dataset = Dataset.open(asked.dataset).for_training()
    facts = facts_of(asked.base)
    file = presets.own(asked.settings) if asked.settings else {}
    trigger = {"trigger": dataset.trigger} if dataset.trigger else {}
    overrides: dict[str, Any] = {**file, **trigger, **dict(_assignments(asked.set))}
    return dataset, facts, presets.load(asked.preset).settings(facts.family, overrides)


def _created(asked: Asked) -> Run:
    """The new run folder that a command line asks for."""
    from trainer.bases.source import kept_as

    _, _, settings = _asked_training(asked)
    return Run.create(asked.out, asked.dataset, kept_as(asked.base), asked.preset, settings)


def resume(asked: Asked, home: Home) -> Result:
    """`impasto resume`."""
    return _trained(Run.open(asked.run), home)


def stop(asked: Asked, home: Home) -> Result:
    """`impasto stop`."""
    run = Run.open(asked.run)
    if not run.alive():
        return {"asked": False, "message": f"{run.folder} is not being trained: there is nothing to stop."}
    run.ask_to_stop()
    return {"asked": True, "message": f"{run.folder} stops after the step it is at, and keeps what it has learnt."}


def queue(asked: Asked, home: Home) -> Result:
    """`impasto queue`: the runs that wait, after the change that was asked for."""
    waiting = Queue(home)
    if asked.change == "add":
        waiting.add(_created(asked).folder)
    elif asked.change == "again":
        waiting.add(Run.open(asked.run).folder)
    elif asked.change == "remove":
        waiting.remove(asked.run)
    elif asked.change in ("up", "down"):
        waiting.move(asked.run, -1 if asked.change == "up" else 1)
    return {"runs": [asdict(entry) for entry in waiting.entries()]}


def work_queue(asked: Asked, home: Home) -> Result:
    """`impasto queue run`: how each run ended that had its turn."""
    ended: list[Turn] = []
    with contextlib.closing(Queue(home).work()) as turns, contextlib.ExitStack() as bars:
        told, bar = "", None
        for turn in turns:
            if turn.sentence != told:
                bars.close()
                told, bar = turn.sentence, None
                print(told, file=sys.stderr)
            if turn.over:
                ended.append(turn)
            elif turn.progress.steps:
                bar = bar or bars.enter_context(_bar("training", turn.progress.steps, initial=turn.progress.step))
                bar.n = turn.progress.step
                bar.refresh()
    return {"ended": [{"run": str(turn.folder), "state": turn.state, "message": turn.sentence} for turn in ended]}


def generate(asked: Asked, home: Home) -> Result:
    """`impasto generate`."""
    from trainer.lora.file import header_of

    loras = tuple(LoraChoice.parse(given) for given in asked.lora)
    if asked.out.suffix.lower() != ".png":
        raise UsageError(f"--out must name a .png file, not {asked.out.name}.")
    for choice in loras:
        header_of(choice.path)  # a bad file is told of before a base is loaded
    previewer = _previewer(asked.base)
    base = previewer.base
    usual = presets.load(presets.DEFAULT).settings(base.family)
    width, height = _size(asked.size) if asked.size else (base.resolution, base.resolution)
    request = Request(
        prompt=asked.prompt, negative=asked.negative, seed=asked.seed, width=width, height=height, loras=loras,
        steps=usual.sample_steps if asked.steps is None else asked.steps,
        cfg=usual.sample_cfg if asked.cfg is None else asked.cfg, prediction=asked.prediction,
    )  # fmt: skip
    previewer.lay(request.loras)
    remarks = _remarks(previewer.remarks(loras, request.prediction, home.cache))
    picture = None
    with _bar("drawing", request.steps) as bar:
        for drawn in previewer.draw(request):
            bar.n, picture = drawn.step, drawn.picture
            bar.refresh()
    assert picture is not None
    write_png(asked.out, picture, infotext(request, asked.base))
    return {"picture": str(asked.out), **request.to_json(), "remarks": remarks}


def sheet(asked: Asked, home: Home) -> Result:
    """`impasto sheet`."""
    from trainer.lora.file import LoraFile

    LoraFile.read(asked.file)  # a bad file is told of before a base is loaded
    out = asked.out or asked.file.with_name(f"{asked.file.stem}-sheet.png")
    previewer = _previewer(asked.base)
    remarks = _remarks(previewer.remarks([LoraChoice(asked.file)], asked.prediction, home.cache))
    return {"sheet": str(_draw_sheet(previewer, asked.file, out, asked.seed, asked.prediction)), "remarks": remarks}


def import_config(asked: Asked, home: Home) -> Result:
    """`impasto import`."""
    from trainer.kohya import imported

    result = imported(asked.config).to_json()
    if asked.out:
        presets.keep(asked.out, result["settings"])
        result["out"] = str(asked.out)
    return result


def bases(asked: Asked, home: Home) -> Result:
    """`impasto bases`."""
    from trainer.bases.library import Bases

    library = Bases(home)
    for folder in asked.add:
        library.add(folder)
    for folder in asked.remove:
        library.remove(folder)
    found = library.found()
    return {
        "folders": [str(folder) for folder in library.folders],
        "bases": [{"path": str(base.path), **_facts(base.facts)} for base in found if base.facts],
        "others": [{"path": str(other.path), "reason": other.refusal} for other in found if not other.facts],
    }


def inspect(asked: Asked, home: Home) -> Result:
    """`impasto inspect`."""
    found = [_inspected(path) for path in asked.files]
    return found[0] if len(found) == 1 else {"files": found}


def _inspected(path: Path) -> Result:
    """What a file is: a LoRA, or else a base. Raises `LoraFileError`, `BaseModelError` that says what it is instead."""
    from trainer.bases.kinds import LORA, UNKNOWN, kind_of
    from trainer.bases.source import facts_at
    from trainer.lora.file import LoraFile, summary

    if not os.path.isdir(path) and kind_of(read_header(path, LoraFileError).tensors) in (LORA, UNKNOWN):
        return summary(LoraFile.read(path))
    return _facts(facts_at(str(path), path))


def _facts(facts: Any) -> Result:
    """What is told of a base."""
    return {
        "name": facts.name,
        "family": facts.family,
        "prediction": facts.prediction,
        "zero_terminal_snr": facts.zero_terminal_snr,
    }


def demo(asked: Asked, home: Home) -> Result:
    """`impasto demo`: sample pictures -> LoRA -> sheet, on the embedded base."""
    from trainer.data.dataset import Dataset

    styles = sorted(path for path in shipped("assets", "styles").iterdir() if path.is_dir())
    dataset = Dataset.open(styles[0]).for_training()
    settings = presets.load(presets.DEFAULT).settings("starter", {"trigger": dataset.trigger})
    print(f"Training the style of {len(dataset.pictures)} pictures in {styles[0]} on the starter base.", file=sys.stderr)
    folder = free_name(home.runs, f"demo-{styles[0].name}")
    result = _trained(Run.create(folder, styles[0], "starter", presets.DEFAULT, settings), home)
    lora = Path(result["lora"])
    path = _draw_sheet(_previewer("starter"), lora, lora.with_name(f"{lora.stem}-sheet.png"), seed=1)
    return {**result, "sheet": str(path)}


def _trained(run: Run, home: Home) -> Result:
    """Train `run` to its end with a progress bar; what to tell of it."""
    from trainer.training.events import Encoded, Fetched, Started, Stepped, Warned
    from trainer.training.loop import train
    from trainer.training.progress import fold

    progress = fold(run.events())
    bar = None
    try:
        for event in run.recorded(train(run, home)):
            progress = fold([event], progress)
            if isinstance(event, Warned):
                print(event.message, file=sys.stderr)
            elif isinstance(event, Fetched):
                bar = bar or _bar("downloading", event.total, unit="B", unit_scale=True)
                bar.update(event.done - bar.n)
            elif isinstance(event, Encoded) and event.done == event.total:
                print(f"Encoded {event.total} pictures.", file=sys.stderr)
            elif isinstance(event, Started):
                print(f"Training {event.steps} steps on {event.device}.", file=sys.stderr)
                if bar:
                    bar.close()
                bar = _bar("training", event.steps)
            elif isinstance(event, Stepped) and bar:
                bar.initial = bar.initial or event.step - 1
                bar.set_postfix_str(f"loss {event.smoothed:.4f}", refresh=False)
                bar.n = event.step
                bar.refresh()
    finally:
        if bar:
            bar.close()
    return {
        "state": progress.state,
        "lora": str(run.folder / progress.lora),
        "run": str(run.folder),
        "steps": progress.step,
        "seconds": round(progress.seconds, 3),
        "loss": progress.last.smoothed if progress.last else None,
        "change": progress.last.change if progress.last else {},
        "base": run.base,
        **_proven(progress.finished),
    }


def _proven(finished: Any) -> Result:
    """What the finished LoRA was found to hold when it was read back; nothing where that was not done."""
    if not finished or not finished.layers:
        return {}
    return {"layers": finished.layers, "size": finished.size, "share": finished.share}


def _remarks(found: Sequence[Any]) -> list[dict[str, str]]:
    """What there is to say of LoRAs on a base, told on stderr too."""
    for remark in found:
        print(f"{remark.level.capitalize()}: {remark.sentence}", file=sys.stderr)
    return [asdict(remark) for remark in found]


def _draw_sheet(previewer: Any, lora: Path, out: Path, seed: int, prediction: Any = "auto") -> Path:
    from trainer.preview.sheet import draw_sheet

    bar = None
    for sheet in draw_sheet(previewer, lora, seed, prediction):
        bar = bar or _bar("drawing the sheet", sheet.total)
        bar.n = sheet.done
        bar.refresh()
        if sheet.picture:
            write_png(out, sheet.picture, f"Style sheet of {lora.name}, seeds from {seed}")
    if bar:
        bar.close()
    return out


def _previewer(source: str) -> Any:
    """A previewer on the best device."""
    from trainer.preview.previewer import Previewer

    return Previewer.load(_located(source))


def _located(source: str) -> Any:
    """The facts about a base that is on this disk, after a download with a bar if it has to come from the Hub."""
    from trainer.sdxl.base import located

    with contextlib.ExitStack() as stack:
        bars: list[Any] = []

        def told(done: int, total: int) -> None:
            if not bars:
                bars.append(stack.enter_context(_bar("downloading", total, unit="B", unit_scale=True)))
            bars[0].update(done - bars[0].n)

        return located(source, told)


def _bar(what: str, total: int, **more: Any) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc=what, file=sys.stderr, dynamic_ncols=True, leave=True, **more)


def _assignments(given: Sequence[str]) -> Iterator[tuple[str, str]]:
    """`name=value` texts as pairs."""
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set takes name=value, not {text!r}.")
        yield name.strip(), value.strip()


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise UsageError(f"--size takes WIDTHxHEIGHT, such as 1024x1024, not {text!r}.")
    return int(width), int(height)
