"""What many tests need: small random bases and a dataset, made once a session; nothing reaches the network."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["IMPASTO_DEVICE"] = "cpu"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small models are quicker on one thread

import pytest

from trainer.home import Home


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
