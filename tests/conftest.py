"""What many tests need: small random bases and a dataset, made once a session; nothing reaches the network."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["IMPASTO_DEVICE"] = "cpu"
os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = os.path.join(tempfile.gettempdir(), "hypothesis")  # its tables of Unicode
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small models are quicker on one thread

import pytest
from hypothesis import settings

from trainer.home import Home

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home of the test's own."""
    monkeypatch.setenv("IMPASTO_HOME", str(tmp_path / "home"))
    return Home(tmp_path / "home")


@pytest.fixture(scope="session")
def toy_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quick random base, as a diffusers folder."""
    from tests.tiny import save_base

    return save_base(tmp_path_factory.mktemp("bases") / "toy")


@pytest.fixture(scope="session")
def full_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random base with every block and layer of SDXL, as a diffusers folder."""
    from tests.tiny import FULL, save_base

    return save_base(tmp_path_factory.mktemp("bases") / "full", FULL)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures with captions."""
    from tests.tiny import save_dataset

    return save_dataset(tmp_path_factory.mktemp("datasets") / "stripes")


@pytest.fixture
def impasto(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command in this process."""
    from tests.command_line import Told
    from trainer import cli

    def run(*arguments: object) -> Told:
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        return Told(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def finished(toy_base: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that is over."""
    from tests.command_line import SHORT
    from trainer import cli

    folder = tmp_path_factory.mktemp("finished") / "style"
    arguments = ["--home", folder.parent / "home", "train", dataset, "--base", toy_base, *SHORT, "--out", folder]
    assert cli.main([str(argument) for argument in arguments]) == 0
    return folder


@pytest.fixture
def lora(finished: Path) -> Path:
    """Its LoRA."""
    from trainer.training.run import Run

    return Run.open(finished).lora


@pytest.fixture(scope="session")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SDXL's configs at a sixteenth of the widths, for the checkpoints of `tests/checkpoint.py`."""
    from tests.checkpoint import write_configs

    return write_configs(tmp_path_factory.mktemp("configs"))


@pytest.fixture
def narrow(configs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program takes the narrow configs for SDXL's."""
    from trainer.bases import source

    monkeypatch.setattr(source, "CONFIGS", configs)
