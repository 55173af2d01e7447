"""What the tests of memory and time share."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.home import Home


@pytest.fixture(scope="session")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home in which what SDXL takes is counted once for all tests."""
    return Home(Path(tmp_path_factory.mktemp("counted")))
