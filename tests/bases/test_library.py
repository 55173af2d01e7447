"""The folders of bases: named once, listed with what everything in them is."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from tests.bases.test_source import header_only
from trainer.bases.library import Bases
from trainer.errors import BaseModelError, UsageError
from trainer.home import Home


@pytest.fixture
def folder(tmp_path: Path, toy_base: Path) -> Path:
    """Another program's folder: two bases at different depths, a diffusers folder, and what is none."""
    folder = tmp_path / "Stable-diffusion"
    (folder / "v").mkdir(parents=True)
    header_only(folder / "ponyDiffusionV6XL.safetensors")
    header_only(folder / "v" / "NoobAI-XL-Vpred.safetensors", markers=("v_pred", "ztsnr"))
    shutil.copytree(toy_base, folder / "toy")
    (folder / "old.ckpt").write_bytes(b"PK\x03\x04" + bytes(100))
    (folder / "notes.txt").write_text("nothing")
    return folder


def test_nothing_is_there_at_first(home: Home) -> None:
    assert Bases(home).folders == [home.bases]
    assert Bases(home).found() == []


def test_what_is_in_a_named_folder_is_listed_with_what_it_is(home: Home, folder: Path) -> None:
    Bases(home).add(folder)
    found = Bases(home).found()
    assert [(each.path.name, each.facts.family if each.facts else None) for each in found] == [
        ("NoobAI-XL-Vpred.safetensors", "noobai"),
        ("ponyDiffusionV6XL.safetensors", "pony"),
        ("toy", "sdxl"),
        ("old.ckpt", None),
    ]
    assert found[0].facts is not None
    assert found[0].facts.prediction == "v_prediction"
    assert "is a pickle" in found[-1].refusal


def test_a_folder_is_named_once_and_can_be_taken_back(home: Home, folder: Path) -> None:
    bases = Bases(home)
    bases.add(folder)
    bases.add(folder)
    assert Bases(home).folders == [home.bases, folder]
    bases.remove(folder)
    assert Bases(home).folders == [home.bases]
    assert (folder / "old.ckpt").exists()


def test_the_homes_own_folder_counts(home: Home) -> None:
    home.bases.mkdir(parents=True)
    header_only(home.bases / "mine.safetensors")
    assert [each.path.name for each in Bases(home).found()] == ["mine.safetensors"]


def test_a_file_that_changed_is_looked_at_again(home: Home, folder: Path) -> None:
    bases = Bases(home)
    bases.add(folder)
    bases.found()
    path = folder / "ponyDiffusionV6XL.safetensors"
    header_only(path, {"modelspec.title": "NoobAI in disguise"})
    facts = {each.path: each.facts for each in bases.found()}[path]
    assert facts is not None
    assert facts.family == "noobai"


def test_a_folder_that_is_gone_is_passed_over(home: Home, folder: Path) -> None:
    Bases(home).add(folder)
    shutil.rmtree(folder)
    assert Bases(home).found() == []


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder that only links to others, one of which leads back."""
    folder, elsewhere = tmp_path / "models", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    header_only(elsewhere / "ponyXL.safetensors")
    try:
        (folder / "sdxl").symlink_to(elsewhere, target_is_directory=True)
        (elsewhere / "back").symlink_to(folder, target_is_directory=True)
    except OSError:
        pytest.skip("links are not permitted here")
    return folder


def test_linked_folders_are_looked_into_and_nothing_is_listed_twice(home: Home, linked: Path) -> None:
    bases = Bases(home)
    bases.add(linked)
    assert [each.path for each in bases.found()] == [linked / "sdxl" / "ponyXL.safetensors"]
    bases.add(linked.parent / "elsewhere")
    assert [each.path.name for each in bases.found()] == ["ponyXL.safetensors"]


def test_a_diffusers_folder_is_looked_at_again_when_it_has_come_whole(home: Home, toy_base: Path) -> None:
    copy = Path(shutil.copytree(toy_base, home.bases / "copy"))
    status, config = copy.stat(), (copy / "unet" / "config.json").read_bytes()
    (copy / "unet" / "config.json").unlink()
    assert "has no unet/config.json" in Bases(home).found()[0].refusal
    (copy / "unet" / "config.json").write_bytes(config)
    assert copy.stat().st_mtime_ns == status.st_mtime_ns
    assert Bases(home).found()[0].facts


def test_one_odd_file_does_not_hide_the_others(home: Home) -> None:
    home.bases.mkdir(parents=True)
    header_only(home.bases / "ponyXL.safetensors")
    table = b'{"a": {"dtype": "F16", "shape": [%s], "data_offsets": [0, 0]}}' % (b"9" * 5000)
    (home.bases / "odd.safetensors").write_bytes(len(table).to_bytes(8, "little") + table)
    (home.bases / "gone.safetensors").mkdir()
    with suppress(OSError):  # a file system may take letters only
        home.bases.joinpath(os.fsdecode(b"caf\xe9.ckpt")).write_bytes(b"PK")
    found = Bases(home).found()
    assert [each.path.name for each in found] == ["ponyXL.safetensors", "odd.safetensors"]
    assert "damaged header" in found[1].refusal


@pytest.mark.parametrize("folder", ["gone", "~no-such-person/models", "long" * 1000])
def test_a_folder_that_is_not_there_is_refused(home: Home, folder: str) -> None:
    with pytest.raises(UsageError, match="There is no folder"):
        Bases(home).add(Path(folder))
    with pytest.raises(UsageError, match="is not one of your folders"):
        Bases(home).remove(Path(folder))


def test_wrong_folders_are_refused(home: Home, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not one of your folders"):
        Bases(home).remove(tmp_path)


def test_a_damaged_list_is_told_of(home: Home) -> None:
    home.root.mkdir(parents=True)
    (home.root / "bases.toml").write_text("folders = [")
    with pytest.raises(BaseModelError, match=r"bases\.toml is damaged"):
        Bases(home).found()
