"""The choice of a base model, and the panel that names the folders in which bases are looked for.

Knows what `trainer.bases.library` tells of files; loads none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from app.desk import Desk
from app.notice import literal, told
from trainer.bases.library import Bases, Found
from trainer.bases.source import STARTER, Facts, facts_of, kept_as
from trainer.errors import UsageError

OFFERED_FIRST = (f"{STARTER} (comes with Impasto)", STARTER)
MOST_TOLD = 20
"""Of how many files that are no bases it is said why."""


def base_choice(elem_id: str) -> gr.Dropdown:
    """An input for a base: one of those that were found, or any path or Hub id that is typed in."""
    return gr.Dropdown(
        [OFFERED_FIRST], value=STARTER, label="Base model", elem_id=elem_id, allow_custom_value=True, filterable=True,
        info="starter, one of your models, a path (.safetensors file or diffusers folder), or a Hub id",
    )  # fmt: skip


def typed(base: str | None) -> str:
    """The source that such an input names; the starter where it is empty."""
    return (base or "").strip().strip('"') or STARTER


def chosen(base: str | None) -> str:
    """The same for another process, which works in another folder. Raises `BaseModelError` where there is no such base."""
    source = typed(base)
    facts_of(source)
    return kept_as(source)


def offered(found: Sequence[Found]) -> list[tuple[str, str]]:
    """The bases to choose from, each under a label of its own."""
    bases = [(base.path, base.facts) for base in found if base.facts]
    called = Counter(facts.name for _, facts in bases)
    offers = [OFFERED_FIRST]
    for path, facts in bases:
        where = f", in {path.parent.name}" if called[facts.name] > 1 else ""
        offers.append((f"{facts.name} ({_kind(facts)}{where})", str(path)))
    return offers


class BasesPanel:
    """A folded panel: the folders, one more to name, and what was found in them."""

    def __init__(self, desk: Desk) -> None:
        """Build the panel where the page is being built."""
        self.desk = desk
        self.choices: list[gr.Dropdown] = []
        with gr.Accordion("Your base models", open=False, elem_id="bases"):
            self.folder = gr.Textbox(
                label="Folder with base models", max_lines=1, elem_id="bases-folder",
                info="Named once; for example models/Stable-diffusion of A1111 or Forge, models/checkpoints of ComfyUI.",
            )  # fmt: skip
            with gr.Row():
                self.add = gr.Button("Look there", size="sm", elem_id="bases-add")
                self.remove = gr.Button("Look there no more", size="sm", elem_id="bases-remove")
            self.list = gr.Markdown(elem_id="bases-list", latex_delimiters=[])

    def connect(self, choices: list[gr.Dropdown]) -> None:
        """Wire the events; `choices` are the inputs that offer what is found."""
        self.choices = choices
        shown = [self.list, *choices]
        self.add.click(told(self.look_there), self.folder, shown)
        self.folder.submit(told(self.look_there), self.folder, shown)
        self.remove.click(told(self.look_there_no_more), self.folder, shown)

    def show(self) -> list[Any]:
        """What there is now: for the list, and for the inputs. Raises `BaseModelError`."""
        bases = Bases(self.desk.home)
        found = bases.found()
        return [_listed(bases.folders, found), *[gr.update(choices=offered(found))] * len(self.choices)]

    def look_there(self, folder: str | None) -> list[Any]:
        """Name a folder. Raises `UsageError`, `StorageError`, `BaseModelError`."""
        Bases(self.desk.home).add(_path(folder))
        return self.show()

    def look_there_no_more(self, folder: str | None) -> list[Any]:
        """Take a folder back. Raises `UsageError`, `StorageError`, `BaseModelError`."""
        Bases(self.desk.home).remove(_path(folder))
        return self.show()


def _path(folder: str | None) -> Path:
    given = (folder or "").strip().strip('"')  # as Explorer copies a path
    if not given:
        raise UsageError("Type the folder that your base models lie in.")
    return Path(given)


def _listed(folders: list[Path], found: list[Found]) -> str:
    """The folders, the bases in them, and why other files are none."""
    lines = ["Folders: " + ", ".join(literal(str(folder)) for folder in folders), ""]
    lines += [f"- **{literal(base.facts.name)}** {literal(_kind(base.facts))}" for base in found if base.facts]
    others = [other for other in found if other.facts is None]
    if others:
        lines += ["", "No bases, but found there too:", *(f"- {literal(other.refusal)}" for other in others[:MOST_TOLD])]
    if len(others) > MOST_TOLD:
        lines.append(f"- and {len(others) - MOST_TOLD} more files")
    if not found:
        lines.append("Nothing was found there.")
    return "\n".join(lines)


def _kind(facts: Facts) -> str:
    """The family, and what is unusual about the prediction."""
    return facts.family if facts.prediction == "epsilon" else f"{facts.family}, v-prediction"
