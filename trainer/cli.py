"""The commands. Reads arguments, calls the engine, prints; knows no torch before a command needs it.

With `--json`, stdout is exactly one JSON object and progress goes to stderr. An `ImpastoError` becomes one sentence on
stderr and its exit code: 1, or 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from trainer import __version__, presets
from trainer.errors import ImpastoError, UsageError
from trainer.home import Home, free_name, shipped
from trainer.lora.header import read_header
from trainer.recipe import LoraChoice, Request, infotext, write_png
from trainer.training.run import Run

Command = Callable[[argparse.Namespace, Home], dict[str, Any]]
STARTER_NOTE = "This LoRA is only for the starter base: it does nothing useful in SDXL."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        asked = parser().parse_args(arguments)
        home = Home(Path(asked.home).expanduser().resolve()) if asked.home else Home.default()
        command: Command = asked.command
        result = command(asked, home)
    except ImpastoError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted. A training goes on from its last checkpoint with `impasto resume RUN`.", file=sys.stderr)
        return 130
    if asked.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print("\n".join(asked.told(result)))
    return 0


class _Parser(argparse.ArgumentParser):
    """Wrong usage as a sentence."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}. See `{self.prog} --help`.")


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    root = _Parser(prog="impasto", description="Train and mix style LoRAs for Stable Diffusion XL.")
    root.add_argument("--version", action="version", version=f"impasto {__version__}")
    root.add_argument("--home", help="folder for datasets, runs and LoRAs (default: ~/Impasto)")
    commands = root.add_subparsers(dest="name", metavar="COMMAND", required=True, parser_class=_Parser)

    def add(name: str, does: str, command: Command, told: Callable[[dict[str, Any]], list[str]]) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=does, description=does)
        sub.add_argument("--json", action="store_true", help="print one JSON object")
        sub.set_defaults(command=command, told=told)
        return sub

    add("demo", "The whole way on the starter base and a sample style.", demo, _told_demo)

    sub = add("train", "Train a LoRA on a folder of pictures.", train, _told_training)
    sub.add_argument("dataset", type=Path, metavar="DATASET")
    _add_base(sub)
    sub.add_argument("--preset", default=presets.DEFAULT, help=f"one of: {', '.join(presets.names())}")
    sub.add_argument("--set", action="append", default=[], metavar="name=value", help="one setting; may be repeated")
    sub.add_argument("--out", type=Path, required=True, metavar="RUN", help="new folder for the run")

    sub = add("resume", "Go on with a run from its last checkpoint.", resume, _told_training)
    sub.add_argument("run", type=Path, metavar="RUN")

    sub = add("stop", "Stop a run; what it has learnt is kept.", stop, lambda result: [result["message"]])
    sub.add_argument("run", type=Path, metavar="RUN")

    sub = add("generate", "Draw a picture, with any number of LoRAs.", generate, lambda result: [result["picture"]])
    sub.add_argument("prompt", metavar="PROMPT")
    _add_base(sub)
    sub.add_argument("--lora", action="append", default=[], metavar="FILE[:W[:W_TE]]")
    sub.add_argument("--negative", default="", help="what should not be there")
    sub.add_argument("--seed", type=int, default=1)
    sub.add_argument("--steps", type=int)
    sub.add_argument("--cfg", type=float)
    sub.add_argument("--size", metavar="WxH")
    sub.add_argument("--out", type=Path, required=True, metavar="PNG")

    sub = add("sheet", "Draw a LoRA's style sheet: the base beside the LoRA.", sheet, lambda result: [result["sheet"]])
    sub.add_argument("file", type=Path, metavar="FILE")
    _add_base(sub)
    sub.add_argument("--seed", type=int, default=1)
    sub.add_argument("--out", type=Path, metavar="PNG", help="default: beside the file")

    sub = add("inspect", "Tell what LoRA files hold.", inspect, _told_inspection)
    sub.add_argument("files", type=Path, nargs="+", metavar="FILE")
    return root


def _add_base(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--base", default="starter", metavar="SOURCE", help="starter, a diffusers folder, or a Hub id")


def train(asked: argparse.Namespace, home: Home) -> dict[str, Any]:
    """`impasto train`."""
    from trainer.data.dataset import Dataset
    from trainer.sdxl.source import STARTER, check_source, family_of, folder_of

    dataset = Dataset.open(asked.dataset).for_training()
    check_source(asked.base)
    overrides: dict[str, Any] = {"trigger": dataset.trigger, **dict(_assignments(asked.set))}
    settings = presets.load(asked.preset).settings(family_of(asked.base), overrides)
    folder = None if asked.base == STARTER else folder_of(asked.base)
    base = str(folder.resolve()) if folder else asked.base  # a run is gone on with from any folder
    return _trained(Run.create(asked.out, asked.dataset, base, asked.preset, settings), home)


def resume(asked: argparse.Namespace, home: Home) -> dict[str, Any]:
    """`impasto resume`."""
    return _trained(Run.open(asked.run), home)


def stop(asked: argparse.Namespace, home: Home) -> dict[str, Any]:
    """`impasto stop`."""
    run = Run.open(asked.run)
    if not run.alive():
        return {"asked": False, "message": f"{run.folder} is not being trained: there is nothing to stop."}
    run.ask_to_stop()
    return {"asked": True, "message": f"{run.folder} stops after the step it is at, and keeps what it has learnt."}


def generate(asked: argparse.Namespace, home: Home) -> dict[str, Any]:
    """`impasto generate`."""
    loras = tuple(LoraChoice.parse(given) for given in asked.lora)
    if asked.out.suffix.lower() != ".png":
        raise UsageError(f"--out must name a .png file, not {asked.out.name}.")
    for choice in loras:
        read_header(choice.path)  # a bad file is told of before a base is loaded
    previewer = _previewer(asked.base)
    base = previewer.base
    usual = presets.load(presets.DEFAULT).settings(base.family)
    width, height = _size(asked.size) if asked.size else (base.resolution, base.resolution)
    request = Request(
        prompt=asked.prompt, negative=asked.negative, seed=asked.seed, width=width, height=height, loras=loras,
        steps=usual.sample_steps if asked.steps is None else asked.steps,
        cfg=usual.sample_cfg if asked.cfg is None else asked.cfg,
    )  # fmt: skip
    previewer.lay(request.loras)
    picture = None
    with _bar("drawing", request.steps) as bar:
        for drawn in previewer.draw(request):
            bar.n, picture = drawn.step, drawn.picture
            bar.refresh()
    assert picture is not None
    write_png(asked.out, picture, infotext(request, asked.base))
    return {"picture": str(asked.out), **request.to_json()}


def sheet(asked: argparse.Namespace, home: Home) -> dict[str, Any]:
    """`impasto sheet`."""
    from trainer.lora.file import LoraFile

    LoraFile.read(asked.file)  # a bad file is told of before a base is loaded
    out = asked.out or asked.file.with_name(f"{asked.file.stem}-sheet.png")
    return {"sheet": str(_draw_sheet(_previewer(asked.base), asked.file, out, asked.seed))}


def inspect(asked: argparse.Namespace, home: Home) -> dict[str, Any]:
    """`impasto inspect`."""
    from trainer.lora.file import LoraFile, summary

    found = [summary(LoraFile.read(path)) for path in asked.files]
    return found[0] if len(found) == 1 else {"files": found}


def demo(asked: argparse.Namespace, home: Home) -> dict[str, Any]:
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


def _trained(run: Run, home: Home) -> dict[str, Any]:
    """Train `run` to its end with a progress bar; what to tell of it."""
    from trainer.training.events import Encoded, Started, Stepped, Warned
    from trainer.training.loop import train
    from trainer.training.progress import fold

    progress = fold(run.events())
    bar = None
    try:
        for event in run.recorded(train(run, home)):
            progress = fold([event], progress)
            if isinstance(event, Warned):
                print(event.message, file=sys.stderr)
            elif isinstance(event, Encoded) and event.done == event.total:
                print(f"Encoded {event.total} pictures.", file=sys.stderr)
            elif isinstance(event, Started):
                print(f"Training {event.steps} steps on {event.device}.", file=sys.stderr)
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
    }


def _draw_sheet(previewer: Any, lora: Path, out: Path, seed: int) -> Path:
    from trainer.preview.sheet import draw_sheet

    bar = None
    for sheet in draw_sheet(previewer, lora, seed):
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
    from trainer.sdxl.base import best_device, drawing_dtype, load_base

    device = best_device()
    return Previewer(load_base(source, device, drawing_dtype(device)))


def _bar(what: str, total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc=what, file=sys.stderr, dynamic_ncols=True, leave=True)


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


def _told_training(result: dict[str, Any]) -> list[str]:
    lines = [f"{result['state'].capitalize()} after {result['steps']} steps: {result['lora']}"]
    return lines + ([STARTER_NOTE] if result["base"] == "starter" else [])


def _told_demo(result: dict[str, Any]) -> list[str]:
    return [
        f"The LoRA:  {result['lora']}",
        f"The sheet: {result['sheet']}   (the base above, the LoRA at half and at full weight below)",
        STARTER_NOTE,
        "Open the page with your own pictures: impasto",
    ]


def _told_inspection(result: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for file in result.get("files", [result]):
        lines += [
            f"{file['name']}",
            f"  base     {file['base'] or 'not told'}",
            f"  trigger  {file['trigger'] or 'none'}",
            "  layers   " + ", ".join(f"{part} {count}" for part, count in file["modules"].items()),
            "  rank     " + ", ".join(f"{rank} ({count} layers)" for rank, count in file["ranks"].items()),
            "  alpha    " + ", ".join(file["alphas"]),
            "  change   " + ", ".join(f"{part} {size:.4g}" for part, size in file["change"].items()),
        ]
    return lines
