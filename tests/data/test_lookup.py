"""Which dataset a person means."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.data.lookup import folder_of
from trainer.errors import DatasetError
from trainer.home import Home


def test_a_folder_here_comes_before_one_at_home(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (home.datasets / "ink").mkdir(parents=True)
    assert folder_of(Path("ink"), home) == home.datasets / "ink"
    (tmp_path / "ink").mkdir()
    assert folder_of(Path("ink"), home) == Path("ink")


def test_only_a_name_is_looked_for_at_home(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (home.datasets / "ink" / "masks").mkdir(parents=True)
    assert folder_of(Path("ink/masks"), home) == Path("ink/masks")
    assert folder_of(Path("chalk"), home, new=True) == Path("chalk")
    with pytest.raises(DatasetError, match=r"^The dataset folder chalk does not exist, nor is there .* in .*datasets: "):
        folder_of(Path("chalk"), home)
