"""Imports run one way, and what the page may load is free of torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LEVELS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "home"}),
    frozenset({"tensorfile", "children", "kohya_file"}),
    frozenset({"settings"}),
    frozenset({"settings_text"}),
    frozenset({"recipe", "kohya_entries"}),
    frozenset({"kohya_network"}),
    frozenset({"presets", "kohya"}),
    frozenset({"data", "lora", "bases", "sdxl"}),
    frozenset({"training", "preview", "captioning"}),
    frozenset({"bars", "bench"}),
    frozenset({"commands_training", "commands_lora", "commands_captions", "told"}),
    frozenset({"commands", "commands_data"}),
    frozenset({"commands_generate"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
"""Rooms of `trainer/` from the ground up: each may import from those below it, and those of one level as said next."""

BESIDE = {("bases", "lora"), ("sdxl", "lora"), ("sdxl", "bases")}
"""Rooms of one level of which the first may import the second."""

WITHOUT_TORCH = (
    "errors", "home", "tensorfile", "settings", "settings_text", "presets", "recipe", "bars", "commands", "commands_training",
    "commands_lora", "commands_generate", "commands_captions", "told", "cli", "kohya", "kohya_entries", "kohya_file",
    "kohya_network", "children", "data.editing.bulk", "data.editing.edits", "data.editing.journal", "data.naming",
    "data.editing.steps", "data.tokens", "data.editing.turns", "data.variety", "data.intake", "data.captions", "data.dataset",
    "data.buckets", "data.crops", "data.masks", "data.doubts", "data.seeds", "data.shown", "data.arrival.about",
    "data.arrival.adding", "data.arrival.archive", "data.colours", "data.arrival.listings", "data.arrival.pile",
    "data.arrival.placing", "data.arrival.strangers", "data.checkup.caption_findings", "data.checkup.finding",
    "data.checkup.findings", "data.checkup.likeness", "data.checkup.looks", "data.checkup.margins", "data.checkup.measures",
    "data.checkup.mending", "data.checkup.picture_findings", "data.lookup", "commands_data", "lora.contents", "lora.facts",
    "lora.forms", "lora.keys", "lora.shape", "lora.sidecar", "lora.ways", "lora.paths", "lora.edit", "lora.thumbnail",
    "bases.kinds", "bases.library", "bases.names", "bases.source", "bases.hub", "bases.remote", "bases.layout",
    "bases.origin", "captioning.captioner", "captioning.events", "captioning.models", "captioning.place",
    "data.style_vocabulary", "data.style_words", "captioning.tagger", "captioning.work", "sdxl.prompt", "sdxl.counts",
    "sdxl.memory", "training.fit", "training.moments", "training.spill", "training.machine", "training.outlook",
    "training.run", "training.shaping", "training.interrupts", "training.pace", "training.processes", "training.board",
    "training.metadata", "training.events", "training.progress", "training.guard", "training.plan", "training.record",
    "training.queue",
)  # fmt: skip


def level(room: str) -> int:
    """How high a room lies."""
    return next(number for number, rooms in enumerate(LEVELS) if room in rooms)


def imported(path: Path) -> set[str]:
    """The modules of this project that a file imports anywhere in it, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they go"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("app", "trainer", "tests")}


def files() -> list[Path]:
    return sorted((ROOT / "trainer").rglob("*.py"))


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_run_one_way(path: Path) -> None:
    here = path.relative_to(ROOT / "trainer").parts[0].removesuffix(".py")
    for name in imported(path):
        top, *rest = name.split(".")
        assert top == "trainer", f"the engine imports {name}"
        there = rest[0]
        if here in ("__init__", there) or there.startswith("__version"):
            continue
        assert level(there) < level(here) or (here, there) in BESIDE, f"{here} imports {name}"


def test_only_commands_print() -> None:
    calls = {
        (path.name, node.func.id)
        for path in files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "exit", "quit", "input")
    }
    printing = {"cli.py", "commands.py", "commands_captions.py", "commands_lora.py", "commands_training.py"}
    assert {name for name, _ in calls} == printing


def test_what_the_page_loads_is_free_of_torch() -> None:
    modules = ", ".join(f"trainer.{name}" for name in WITHOUT_TORCH)
    look = f"import sys, {modules}; print([name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_no_function_of_the_training_is_longer_than_a_screen() -> None:
    for path in sorted((ROOT / "trainer" / "training").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                assert lines <= 60, f"{path.name}: {node.name} has {lines} lines"
