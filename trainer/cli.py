"""The command line's grammar, and what is printed where; what a command does is said in `commands.py`.

With `--json`, stdout is exactly one JSON object and progress goes to stderr. An `ImpastoError` becomes one sentence on
stderr and its exit code: 1, or 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, get_args

from trainer import (
    __version__,
    commands,
    commands_captions,
    commands_data,
    commands_generate,
    commands_lora,
    commands_training,
    kohya,
    presets,
    told,
)
from trainer.captioning.models import LENGTHS
from trainer.data.checkup.mending import MENDABLE
from trainer.errors import ImpastoError, UsageError
from trainer.home import Home
from trainer.lora.ways import FORMS, METHODS, ONLY
from trainer.recipe import SAMPLERS, sampler_named
from trainer.settings import GROUPS, Prediction
from trainer.settings_text import wanted
from trainer.training.outlook import told_outlook
from trainer.training.queue import any_failed, told_queue, told_turns

_PREDICTION = "what the base's U-Net answers with, where its file does not tell"

_TRAINING = ("demo", "train", "resume", "queue")
"""The commands in which one trains."""

Command = Callable[[argparse.Namespace, Home], dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may have letters that a console has not
    asked = argparse.Namespace(name="")
    try:
        asked = parser().parse_args(arguments)
        home = Home(Path(asked.home).expanduser().resolve()) if asked.home else Home.default()
        command: Command = asked.command
        result = command(asked, home)
    except ImpastoError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        more = " A training goes on from its last checkpoint with `impasto resume RUN`." if asked.name in _TRAINING else ""
        print(f"Interrupted.{more}", file=sys.stderr)
        return 130
    if asked.json:
        print(json.dumps(result))  # in ASCII, which every console and pipe takes
    elif lines := asked.told(result):
        print("\n".join(lines))
    return 1 if asked.failed(result) else 0


class _Parser(argparse.ArgumentParser):
    """Wrong usage as a sentence."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}. See `{self.prog} --help`.")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Nothing is left for the commands above, whose help would not help."""
        asked, strange = super().parse_known_args(args, namespace)
        if strange:
            quotes = "" if any(one.startswith("-") for one in strange) else " (a text of several words is put in quotes)"
            self.error(f"unrecognized arguments: {' '.join(strange)}{quotes}")
        return asked, strange


def _alone(given: str) -> Path:
    """A file that is taken as it is. Raises `UsageError` where a LoRA's weight or part stands behind it."""
    if (found := re.search(r"\.safetensors([:@][^/\\]*)$", given, re.IGNORECASE)) and not Path(given).exists():
        raise UsageError(f"Name {given.removesuffix(found[1])} alone: {found[1]} is for commands that draw, mix or bake.")
    return Path(given)


Told = Callable[[dict[str, Any]], list[str]]
"""What a person is told of a result."""

Add = Callable[[str, str, Command, Told], argparse.ArgumentParser]
"""Makes a command of a name, what it does, what does it, and what is told of it."""


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    root = _Parser(prog="impasto", description="Train and mix style LoRAs for Stable Diffusion XL.")
    root.add_argument("--version", action="version", version=f"impasto {__version__}")
    root.add_argument("--home", help="folder for datasets, runs and LoRAs (default: ~/Impasto)")
    known = root.add_subparsers(dest="name", metavar="COMMAND", required=True, parser_class=_Parser)

    def add(name: str, does: str, command: Command, told: Told) -> argparse.ArgumentParser:
        sub = known.add_parser(name, help=does, description=does)
        sub.add_argument("--json", action="store_true", help="print one JSON object")
        sub.set_defaults(command=command, told=told, failed=lambda result: False)
        return sub

    add("demo", "The whole way on the starter base and a sample style.", commands.demo, told.told_demo)

    sub = add("train", "Train a LoRA on a folder of pictures.", commands_training.train, told.told_training)
    _add_training(sub)
    _add_out(sub)

    sub = add(
        "plan", "Tell what a training would take: memory, time, and whether it fits.", commands_training.plan, told_outlook
    )
    _add_training(sub)
    sub.add_argument("--memory", metavar="SIZE", help="as if so much were free on a card, such as 12GiB")
    _add_running(add)
    _add_drawing(add)
    _add_files(add)
    _add_made(add)
    return root


def _add_running(add: Add) -> None:
    """The commands for runs that there are."""
    sub = add(
        "resume", "Go on with a run that waits, or from its last checkpoint.", commands_training.resume, told.told_training
    )
    sub.add_argument("run", type=Path, metavar="RUN")
    sub.add_argument("--steps", type=int, metavar="N", help="train so many steps in all, more or fewer than were asked for")

    sub = add("stop", "Stop a run; what it has learnt is kept.", commands_training.stop, told.told_message)
    sub.add_argument("run", type=Path, metavar="RUN")
    sub.add_argument("--cancel", action="store_true", help="write no LoRA; the checkpoints stay, to go on from")
    for name, does in {
        "pause": "Let a run wait where it is, until it is resumed.",
        "sample": "Have a run draw its sample pictures now.",
        "save": "Have a run write a checkpoint now.",
    }.items():
        add(name, does, commands_training.wish, told.told_message).add_argument("run", type=Path, metavar="RUN")

    _add_queue(add("queue", "List the runs that wait for their turn, or change them.", commands_training.queue, told_queue))


def _add_drawing(add: Add) -> None:
    """The commands that draw."""
    sub = add("generate", "Draw pictures, with any number of LoRAs.", commands_generate.generate, lambda told: told["pictures"])
    _add_generate(sub)

    sub = add("sheet", "Draw a LoRA's style sheet: the base beside the LoRA.", commands.sheet, lambda result: [result["sheet"]])
    sub.add_argument("file", type=_alone, metavar="FILE")
    _add_drawn_base(sub)
    sub.add_argument("--seed", type=int, default=1)
    sub.add_argument("--out", type=Path, metavar="PNG", help="default: beside the file")

    sub = add("bench", "Measure what mixing costs here, beside diffusers.", commands.bench, told.told_mixing)
    sub.add_argument("what", choices=("mix",))
    _add_base(sub)


def _add_generate(sub: argparse.ArgumentParser) -> None:
    """What is not said is None: it comes from the picture of `--from`, or is what is usual."""
    sub.add_argument("prompt", metavar="PROMPT", nargs="?")
    _add_drawn_base(sub)
    sub.set_defaults(base=None, prediction=None)
    told = "style, or a block with a factor, or steps=FROM-TO: --lora a.safetensors:0.8@style"
    sub.add_argument("--lora", action="append", default=[], metavar="FILE[:W[:W_TE]][@PART]", help=f"a PART is {told}")
    sub.add_argument("--equal-strength", action="store_true", default=None, help="scale LoRAs to change equally much")
    sub.add_argument("--negative", help="what should not be there")
    sub.add_argument("--seed", type=int, metavar="N", help="of the first picture (default: 1)")
    sub.add_argument("--count", type=int, default=1, metavar="N", help="so many pictures, PNG-1.png …, each with the next seed")
    told = f"{', '.join(SAMPLERS)} (default: {SAMPLERS[0]})"
    sub.add_argument("--sampler", type=sampler_named, choices=SAMPLERS, metavar="NAME", help=told)
    sub.add_argument("--steps", type=int, metavar="N")
    sub.add_argument("--cfg", type=float, metavar="X")
    sub.add_argument("--size", metavar="WxH")
    sub.add_argument("--from", dest="origin", type=Path, metavar="PNG", help="by this picture's recipe, but for what is said")
    sub.add_argument("--out", type=Path, required=True, metavar="PNG")


def _add_files(add: Add) -> None:
    """The commands about files."""
    sub = add("import", "Turn a kohya config into settings.", commands.import_config, kohya.told_import)
    sub.add_argument("config", type=Path, metavar="CONFIG", help="a .toml of sd-scripts or a .json of the kohya_ss GUI")
    sub.add_argument("--out", type=Path, metavar="FILE.toml", help="write the settings here, for `impasto train --settings`")

    does = "Put pictures, folders and zips into a dataset: copied, and made such that every tool sees the same."
    sub = add("add", does, commands_data.add, commands_data.told_add)
    sub.add_argument("dataset", type=Path, metavar="DATASET", help="the folder, which is made if need be")
    sub.add_argument("files", type=Path, metavar="FILE", nargs="+")
    sub.set_defaults(failed=commands_data.any_refused)

    does = "Tell what may be wrong with a dataset, how it is cropped, and how often each picture is seen."
    _add_check(add("check", does, commands_data.check, commands_data.told_check))

    does = "Write the captions that are missing in a dataset, by a model or from the files' names."
    _add_caption(add("caption", does, commands_captions.caption, commands_captions.told_captions))

    sub = add("bases", "List the base models in your folders.", commands.bases, told.told_bases)
    sub.add_argument("--add", type=Path, action="append", default=[], metavar="DIR", help="look for bases in this folder too")
    sub.add_argument("--remove", type=Path, action="append", default=[], metavar="DIR", help="do not look there any more")

    sub = add("inspect", "Tell what LoRA files and base models are.", commands.inspect, told.told_inspection)
    sub.add_argument("files", type=_alone, nargs="+", metavar="FILE")
    sub.set_defaults(failed=told.any_unknown)


def _add_check(sub: argparse.ArgumentParser) -> None:
    _add_training(sub)
    sub.set_defaults(base=None)  # no base is needed to say what SDXL wants
    told = f"mend what is found of this kind, in all pictures; may be repeated: {', '.join(MENDABLE)}"
    sub.add_argument("--mend", action="append", default=[], choices=MENDABLE, metavar="KIND", help=told)


def _add_caption(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("dataset", type=Path, metavar="DATASET", nargs="?")
    told = "a name that --list tells, a folder, or a Hub id (default: names, which needs no model)"
    sub.add_argument("--model", default="names", metavar="NAME", help=told)
    sub.add_argument("--list", action="store_true", help="tell which models there are")
    sub.add_argument("--length", choices=LENGTHS, help="how much Florence-2 says (default: long)")
    sub.add_argument("--template", metavar="TEXT", help="of captions from file names, with {name} in it")
    sub.add_argument("--overwrite", action="store_true", help="write new captions where there are some")
    told = "leave out what names the style, and these words of your own, separated by commas; --without-style-words= for none"
    sub.add_argument("--without-style-words", metavar="WORDS", help=told)
    sub.add_argument("--events", action="store_true", help="print a line of JSON for each thing that happens")


def _add_made(add: Add) -> None:
    """The commands that make LoRA files from others, or change them."""
    sub = add("mix", "Merge LoRAs into one file.", commands_lora.mix, told.told_message)
    sub.add_argument("lora", nargs="+", metavar="FILE[:W[:W_TE]][@PART]")
    sub.add_argument("--method", choices=METHODS, default="exact", help="default: exact, which is the sum and nothing else")
    _add_kept(sub)
    sub.add_argument("--density", type=float, metavar="X", help="share of the numbers that ties and dare keep (default: 0.5)")
    sub.add_argument("--seed", type=int, metavar="N", help="of dare's draws")
    sub.add_argument("--equal-strength", action="store_true", help="scale LoRAs to change equally much")
    _add_new_file(sub)

    sub = add("bake", "Add LoRAs to a base model for good.", commands_lora.bake, told.told_message)
    sub.add_argument("base", type=Path, metavar="BASE", help="a checkpoint in a single .safetensors")
    sub.add_argument("lora", nargs="+", metavar="FILE[:W[:W_TE]][@PART]")
    _add_new_file(sub)

    sub = add("resize", "Make a LoRA smaller, or a plain one of another kind.", commands_lora.resize, told.told_message)
    sub.add_argument("file", type=_alone, metavar="FILE")
    _add_kept(sub)
    _add_new_file(sub)

    sub = add("export", "Write a LoRA in another form, or a part of it.", commands_lora.export_lora, told.told_message)
    sub.add_argument("file", type=_alone, metavar="FILE")
    sub.add_argument("--form", choices=FORMS, required=True, help="kohya is what Impasto writes, and what every tool reads")
    sub.add_argument("--only", choices=ONLY, help="only the U-Net's layers, or those of the text encoders")
    _add_new_file(sub)

    sub = add("edit", "Change what a LoRA tells of itself, not its layers.", commands_lora.edit_lora, told.told_message)
    sub.add_argument("file", type=_alone, metavar="FILE")
    for name in ("title", "trigger", "description"):
        sub.add_argument(f"--{name}", metavar="TEXT", help='"" takes it out')
    sub.add_argument("--thumbnail", type=Path, metavar="PICTURE", help="a small copy of it goes into the file")
    sub.add_argument("--weight", type=float, metavar="X", help="the weight that it is best used at")


def _add_kept(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--rank", type=int, metavar="N", help="the rank of every layer")
    sub.add_argument("--energy", type=float, metavar="X", help="share of each layer's energy that is kept, such as 0.98")


def _add_new_file(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--out", type=Path, required=True, metavar="FILE", help="a new .safetensors")


def _add_queue(queue: argparse.ArgumentParser) -> None:
    queue.set_defaults(change="")
    known = queue.add_subparsers(metavar="CHANGE", parser_class=_Parser)

    def add(name: str, does: str) -> argparse.ArgumentParser:
        sub = known.add_parser(name, help=does, description=does)
        sub.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object")
        sub.set_defaults(change=name)
        return sub

    sub = add("add", "Put a training at the end; the same options as for train.")
    _add_training(sub)
    _add_out(sub)
    for name, does in {
        "again": "Put a run that is there already at the end, such as one that was stopped.",
        "remove": "Take a run out; its folder stays as it is.",
        "up": "Let a run wait one place less.",
        "down": "Let a run wait one place longer.",
    }.items():
        add(name, does).add_argument("run", type=Path, metavar="RUN")
    sub = add("run", "Train what waits, one run after the other.")
    sub.set_defaults(command=commands_training.work_queue, told=told_turns, failed=any_failed)


def _add_out(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--out", type=Path, required=True, metavar="RUN", help="new folder for the run")


def _add_training(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("dataset", type=Path, metavar="DATASET")
    _add_base(sub)
    sub.add_argument("--preset", default=presets.DEFAULT, help=f"one of: {', '.join(presets.names())}")
    sub.add_argument("--settings", type=Path, metavar="FILE.toml", help="a file with [settings], on top of the preset's")
    sub.add_argument("--set", action="append", default=[], metavar="name=value", help="one setting; may be repeated")
    sub.formatter_class = argparse.RawDescriptionHelpFormatter
    sub.epilog = _settings_help()


@cache
def _settings_help() -> str:
    """Every setting with its default, what it takes, and its help, under the titles of the groups, from the schema."""
    lines = ["settings, for --set and --settings, with their defaults, over which a preset's values go:"]
    for group in GROUPS:
        lines += ["", f"{str(group.__doc__).rstrip('.')}:"]
        for name, about in group.model_fields.items():
            default = "|".join(map(str, about.default)) if isinstance(about.default, tuple) else str(about.default)
            takes = f"{name} = {default or '(empty)'}: {wanted(name)}"
            lines += textwrap.wrap(takes, 100, initial_indent="  ", subsequent_indent=" " * 6)
            lines += textwrap.wrap(about.description or "", 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def _add_base(sub: argparse.ArgumentParser) -> None:
    told = "starter, a diffusers folder, a .safetensors file, or a Hub id"
    sub.add_argument("--base", default="starter", metavar="SOURCE", help=told)


def _add_drawn_base(sub: argparse.ArgumentParser) -> None:
    _add_base(sub)
    sub.add_argument("--prediction", choices=("auto", *get_args(Prediction)), default="auto", help=_PREDICTION)
