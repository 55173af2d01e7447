"""What the name of a base means."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import starter_like
from trainer.errors import BaseModelError
from trainer.home import shipped
from trainer.sdxl.source import check_source, family_of, folder_of


def test_starter_is_the_base_that_ships() -> None:
    assert folder_of("starter") == shipped("assets", "starter")
    assert family_of("starter") == "starter"
    check_source("starter")


def test_a_diffusers_folder_is_sdxl(toy_base: Path) -> None:
    assert folder_of(str(toy_base)) == toy_base
    assert family_of(str(toy_base)) == "sdxl"
    check_source(str(toy_base))


def test_a_folder_with_the_starters_mark_is_of_its_family(toy_base: Path, tmp_path: Path) -> None:
    assert family_of(str(starter_like(toy_base, tmp_path / "copy"))) == "starter"


def test_a_hub_id_is_taken_for_sdxl() -> None:
    assert folder_of("some-one/a_model.v1") is None
    assert family_of("some-one/a_model.v1") == "sdxl"
    check_source("some-one/a_model.v1")


@pytest.mark.parametrize("source", ["nowhere", "a/b/c", "C:\\models\\gone", "", "two words/x"])
def test_what_can_be_no_base_is_refused_in_a_sentence(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BaseModelError):
        check_source(source)


def test_a_folder_without_a_unet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"not a diffusers folder of SDXL: it has no unet/config\.json\."):
        check_source(str(tmp_path))
