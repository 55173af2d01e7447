import json
import os
import struct
from pathlib import Path

import pytest

from app import shelf
from trainer.errors import LoraFileError
from trainer.home import Home
from trainer.settings_text import validated
from trainer.training.run import Run


def write_header(path: Path, **metadata: str) -> Path:
    """A safetensors file with no layers."""
    header = json.dumps({"__metadata__": metadata}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return path


def test_the_librarys_files_and_the_runs_are_offered_newest_first(home: Home) -> None:
    older = write_header(home.loras / "ink.safetensors")
    os.utime(older, (1, 1))
    run = Run.create(home.runs / "wash", home.datasets, "some/sdxl", "balanced", validated({}))
    write_header(run.lora)
    write_header(run.checkpoints / "000100" / "adapter.safetensors")
    Run.create(home.runs / "unfinished", home.datasets, "starter", "balanced", validated({}))
    assert [(entry.key, entry.label) for entry in shelf.entries(home)] == [
        ("runs/wash/wash.safetensors", "wash (run)"),
        ("loras/ink.safetensors", "ink"),
    ]
    assert shelf.entries(home)[0].base == "some/sdxl"
    assert shelf.entries(home)[1].base == ""


def test_what_a_file_tells(home: Home) -> None:
    metadata = {"modelspec.trigger_phrase": "vellorn", "ss_base_model_version": "impasto_starter"}
    write_header(home.loras / "ink.safetensors", **metadata)
    entry = shelf.find(home, "loras/ink.safetensors")
    assert (entry.trigger, entry.only_starter, entry.base) == ("vellorn", True, "starter")


@pytest.mark.parametrize(
    "key", ["", "../secret.safetensors", "/etc/passwd", "loras/../runs/x.safetensors", "loras/gone.safetensors"]
)
def test_only_what_is_offered_can_be_had(home: Home, key: str) -> None:
    write_header(home.root.parent / "secret.safetensors")
    with pytest.raises(LoraFileError, match="There is no LoRA"):
        shelf.find(home, key)


def test_nothing_is_offered_in_an_empty_home(home: Home) -> None:
    assert shelf.entries(home) == []
