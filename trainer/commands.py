"""What the commands do that have no file of their own: arguments in, a result ready for JSON out.

Knows no torch before a command needs it. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer import presets
from trainer.bars import bar, reach
from trainer.commands_training import trained
from trainer.errors import BaseModelError, ImpastoError, LoraFileError, RunError
from trainer.home import Home, free_name, shipped
from trainer.recipe import LoraChoice, write_png
from trainer.tensorfile import read_header
from trainer.training.run import Run

Asked = argparse.Namespace
Result = dict[str, Any]


def sheet(asked: Asked, home: Home) -> Result:
    """`impasto sheet`."""
    from trainer.lora.file import LoraFile

    LoraFile.read(asked.file)  # a bad file is told of before a base is loaded
    out = asked.out or asked.file.with_name(f"{asked.file.stem}-sheet.png")
    previewer = loaded(asked.base)
    remarks = told_remarks(previewer.remarks([LoraChoice(asked.file)], asked.prediction, home.cache))
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
    """`impasto inspect`; of several files each is told of, a bad one with its `error`, and LoRAs by pairs too."""
    if len(asked.files) == 1:
        return _inspected(asked.files[0])[0]
    from trainer.lora.anatomy import overlaps

    told: list[Result] = []
    anatomies = []
    for path in asked.files:
        try:
            result, anatomy = _inspected(path)
        except ImpastoError as error:
            result, anatomy = {"name": path.name, "error": str(error)}, None
        told.append(result)
        anatomies += [anatomy] if anatomy else []
    return {"files": told, "overlaps": [pair.to_json() for pair in overlaps(anatomies)]}


def _inspected(path: Path) -> tuple[Result, Any]:
    """What a file is: a LoRA, with its anatomy, or else a base, which has none.

    Raises `LoraFileError`, `BaseModelError` that says what it is instead.
    """
    from trainer.bases.kinds import LORA, SDXL, UNKNOWN, kind_of
    from trainer.bases.source import facts_at
    from trainer.lora.anatomy import Anatomy
    from trainer.lora.file import LoraFile, summary

    header = None if os.path.isdir(path) else read_header(path, LoraFileError)
    kind = kind_of(header.tensors) if header else SDXL
    if header is None or kind is SDXL:
        return _facts(facts_at(str(path), path)), None
    if kind not in (LORA, UNKNOWN):
        raise BaseModelError(f"{path.name} is {kind.name}, neither a LoRA nor a whole SDXL base in 16 bits or more.")
    lora = LoraFile.read(path)
    with bar(f"measuring {lora.name}", len(lora.layers), delay=2) as shown:
        anatomy = Anatomy.of(lora, shown.update)
    change = {part: round(size, 6) for part, size in anatomy.parts.items()}
    told = {"size": path.stat().st_size, "change": change, "anatomy": anatomy.to_json(header.size)}
    return {**summary(lora), **told}, anatomy


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
    result = trained(Run.create(folder, styles[0], "starter", presets.DEFAULT, settings), home)
    if result["state"] != "finished":
        raise RunError(f"The demo was stopped: `impasto resume {folder}` goes on with its training.")
    lora = Path(result["lora"])
    path = _draw_sheet(loaded("starter"), lora, lora.with_name(f"{lora.stem}-sheet.png"), seed=1)
    return {**result, "sheet": str(path)}


def told_remarks(found: Sequence[Any]) -> list[dict[str, str]]:
    """What there is to say of LoRAs on a base, told on stderr too."""
    for remark in found:
        print(f"{remark.level.capitalize()}: {remark.sentence}", file=sys.stderr)
    return [asdict(remark) for remark in found]


def _draw_sheet(previewer: Any, lora: Path, out: Path, seed: int, prediction: Any = "auto") -> Path:
    from trainer.preview.sheet import draw_sheet

    with contextlib.ExitStack() as bars:
        shown = None
        for sheet in draw_sheet(previewer, lora, seed, prediction):
            shown = shown or bars.enter_context(bar("drawing the sheet", sheet.total))
            reach(shown, sheet.done)
            if sheet.picture:
                write_png(out, sheet.picture, f"Style sheet of {lora.name}, seeds from {seed}")
    return out


def bench(asked: Asked, home: Home) -> Result:
    """`impasto bench mix`."""
    from trainer.bench import mixing

    print("Measuring. This takes a minute on the starter base.", file=sys.stderr)
    return mixing(_located(asked.base))


def loaded(source: str) -> Any:
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
                bars.append(stack.enter_context(bar("downloading", total, unit="B", unit_scale=True)))
            reach(bars[0], done)

        return located(source, told)
