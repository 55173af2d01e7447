"""The choice of a base, and the panel of folders."""

import shutil
from pathlib import Path

import pytest

from app.desk import Desk
from app.tabs.bases import OFFERED_FIRST, BasesPanel, base_choice, offered, typed
from tests.app.conftest import in_blocks
from tests.bases.test_source import header_only
from trainer.errors import BaseModelError, UsageError


@pytest.fixture
def panel(desk: Desk) -> BasesPanel:
    """The panel with two inputs that offer bases, as the page has them."""

    def build() -> BasesPanel:
        panel = BasesPanel(desk)
        panel.connect([base_choice("one"), base_choice("other")])
        return panel

    return in_blocks(build)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "check points"
    folder.mkdir()
    header_only(folder / "pony_*v6*.safetensors")
    header_only(folder / "noob-vpred.safetensors", markers=("v_pred", "ztsnr"))
    (folder / "old.ckpt").write_bytes(b"PK\x03\x04" + bytes(100))
    return folder


def test_the_starter_is_always_offered() -> None:
    assert offered([]) == [OFFERED_FIRST]
    choice = in_blocks(lambda: base_choice("a"))
    assert (choice.value, choice.allow_custom_value) == ("starter", True)


def test_what_a_named_folder_holds_is_offered_and_listed(panel: BasesPanel, folder: Path) -> None:
    listed, first, second = panel.look_there(f'"{folder}"')
    labels = [label for label, _ in first["choices"]]
    assert labels == ["starter (comes with Impasto)", "noob-vpred (noobai, v-prediction)", "pony_*v6* (pony)"]
    assert second == first
    assert dict(first["choices"])["pony_*v6* (pony)"] == str(folder / "pony_*v6*.safetensors")
    assert r"**pony\_\*v6\*** pony" in listed, "a file's name is shown as it is"
    assert "is a pickle" in listed
    assert panel.look_there_no_more(str(folder))[1]["choices"] == [OFFERED_FIRST]


def test_a_dot_in_a_folders_name_is_no_suffix(panel: BasesPanel, toy_base: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_base, tmp_path / "mine" / "sdxl-base-1.0")
    listed, choice, _ = panel.look_there(str(tmp_path / "mine"))
    assert choice["choices"][1][0] == "sdxl-base-1.0 (sdxl)"
    assert r"**sdxl\-base\-1\.0**" in listed


def test_two_bases_of_one_name_are_told_apart(panel: BasesPanel, tmp_path: Path) -> None:
    for folder in ("new", "old"):
        (tmp_path / "mine" / folder).mkdir(parents=True)
        header_only(tmp_path / "mine" / folder / "ponyXL.safetensors")
    labels = [label for label, _ in panel.look_there(str(tmp_path / "mine"))[1]["choices"]]
    assert labels[1:] == ["ponyXL (pony, in new)", "ponyXL (pony, in old)"]


def test_of_many_other_files_only_some_are_named(panel: BasesPanel, tmp_path: Path) -> None:
    for number in range(23):
        (tmp_path / f"{number}.ckpt").write_bytes(b"")
    listed = panel.look_there(str(tmp_path))[0]
    assert listed.count("is empty") == 20
    assert listed.endswith("- and 3 more files")


@pytest.mark.parametrize(
    ("given", "words"), [("", "Type the folder"), (None, "Type the folder"), (' "" ', "Type"), ("gone", "There is no folder")]
)
def test_a_wrong_folder_is_told_of(panel: BasesPanel, given: str | None, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        panel.look_there(given)


def test_a_damaged_list_is_told_of(panel: BasesPanel, desk: Desk) -> None:
    desk.home.root.mkdir(parents=True, exist_ok=True)
    (desk.home.root / "bases.toml").write_text("folders = [")
    with pytest.raises(BaseModelError, match=r"bases\.toml is damaged"):
        panel.show()


@pytest.mark.parametrize(
    ("given", "meant"),
    [(None, "starter"), ("  ", "starter"), ('"C:\\models\\a b.safetensors"', "C:\\models\\a b.safetensors"), (" x/y ", "x/y")],
)
def test_what_is_typed_is_a_source(given: str | None, meant: str) -> None:
    assert typed(given) == meant
