"""The choice of a base, and the panel of folders."""

from pathlib import Path

import pytest

from app.desk import Desk
from app.tabs.bases import OFFERED_FIRST, BasesPanel, base_choice, offered, typed
from tests.app.conftest import in_blocks
from tests.bases.test_source import header_only
from trainer.errors import UsageError


@pytest.fixture
def panel(desk: Desk) -> BasesPanel:
    return in_blocks(lambda: BasesPanel(desk))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "check points"
    folder.mkdir()
    header_only(folder / "pony_*v6*.safetensors")
    header_only(folder / "noob-vpred.safetensors", markers=("v_pred", "ztsnr"))
    (folder / "old.ckpt").write_bytes(b"PK\x03\x04" + bytes(100))
    return folder


def test_the_starter_is_always_offered(desk: Desk) -> None:
    assert offered(desk.home) == [OFFERED_FIRST]
    choice = in_blocks(lambda: base_choice("a"))
    assert (choice.value, choice.allow_custom_value) == ("starter", True)


def test_what_a_named_folder_holds_is_offered_and_listed(panel: BasesPanel, desk: Desk, folder: Path) -> None:
    listed, first, second = panel.look_there(f'"{folder}"')
    labels = [label for label, _ in first["choices"]]
    assert labels == ["starter (comes with Impasto)", "noob-vpred (noobai, v-prediction)", "pony_*v6* (pony)"]
    assert second == first
    assert dict(first["choices"])["pony_*v6* (pony)"] == str(folder / "pony_*v6*.safetensors")
    assert r"**pony\_\*v6\*** pony" in listed, "a file's name is shown as it is"
    assert "is a pickle" in listed
    assert panel.look_there_no_more(str(folder))[1]["choices"] == [OFFERED_FIRST]


@pytest.mark.parametrize(("given", "words"), [("", "Type the folder"), ("gone", "There is no folder")])
def test_a_wrong_folder_is_told_of(panel: BasesPanel, given: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        panel.look_there(given)


def test_a_damaged_list_still_offers_the_starter(desk: Desk) -> None:
    desk.home.root.mkdir(parents=True, exist_ok=True)
    (desk.home.root / "bases.toml").write_text("folders = [")
    assert offered(desk.home) == [OFFERED_FIRST]


@pytest.mark.parametrize(
    ("given", "meant"),
    [(None, "starter"), ("  ", "starter"), ('"C:\\models\\a b.safetensors"', "C:\\models\\a b.safetensors"), (" x/y ", "x/y")],
)
def test_what_is_typed_is_a_source(given: str | None, meant: str) -> None:
    assert typed(given) == meant
