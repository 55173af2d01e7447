"""What is counted is kept, under a name for everything that it depends on."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.bases.layout import FOLDERS
from trainer.bases.source import facts_of
from trainer.home import shipped
from trainer.lora.shape import Shape
from trainer.sdxl import counts
from trainer.sdxl.counts import Count, Counts, Subject, configs_of

STARTER = Subject(shipped("assets", "starter"), ("unet",), Shape(4, 1.0), side=64, half=False)


def asked(subject: Subject, folder: Path) -> tuple[Count, int]:
    found = Counts(subject, folder)
    return found.step("none"), found.parameters()


def test_the_second_time_nothing_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = asked(STARTER, tmp_path)
    monkeypatch.setattr(counts, "_counting", None)
    assert asked(STARTER, tmp_path) == first
    with pytest.raises(TypeError):
        asked(replace(STARTER, shape=Shape(8, 1.0)), tmp_path)


def test_two_who_count_at_once_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Counts(STARTER, tmp_path), Counts(STARTER, tmp_path)
    lora, guided = one.lora(), other.guided()
    monkeypatch.setattr(counts, "_counting", None)
    assert (Counts(STARTER, tmp_path).lora(), Counts(STARTER, tmp_path).guided()) == (lora, guided)


def test_figures_that_cannot_be_kept_are_told_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder would be")
    assert asked(STARTER, tmp_path / "taken") == asked(STARTER, tmp_path)


def test_a_damaged_file_is_counted_anew(tmp_path: Path) -> None:
    first = asked(STARTER, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text()[:20])
    assert asked(STARTER, tmp_path) == first


@pytest.mark.parametrize(
    "change",
    [
        {"shape": Shape(8, 1.0)},
        {"shape": Shape(4, 1.0, targets="everything")},
        {"shape": Shape(4, 1.0, conv_rank=2)},
        {"shape": Shape(4, 1.0, style_blocks_only=True)},
        {"shape": Shape(4, 1.0, block_ranks={"mid_block": 0})},
        {"shape": Shape(4, 1.0, block_rates={"mid_block": 0})},
        {"side": 96},
        {"half": True},
        {"fused": False},
        {"trained": ("unet", "te1")},
    ],
)
def test_the_name_tells_subjects_apart(change: dict[str, object]) -> None:
    assert replace(STARTER, **change).name != STARTER.name  # type: ignore[arg-type]


def test_the_name_is_of_the_configs_not_of_their_folder(tmp_path: Path) -> None:
    copy = tmp_path / "moved"
    for folder in FOLDERS.values():
        (copy / folder).mkdir(parents=True)
        (copy / folder / "config.json").write_bytes((STARTER.configs / folder / "config.json").read_bytes())
    assert replace(STARTER, configs=copy).name == STARTER.name
    (copy / "unet" / "config.json").write_text("{}")
    assert replace(STARTER, configs=copy).name != STARTER.name


def test_what_is_not_here_yet_has_the_shapes_of_sdxl(toy_base: Path) -> None:
    assert configs_of(facts_of("somebody/some-sdxl")) == shipped("assets", "sdxl")
    assert configs_of(facts_of(str(toy_base))) == toy_base


def test_pictures_grow_a_count_and_another_follows_it() -> None:
    count = Count(saved=10, peak=20, flops=30, traffic=40, launches=50)
    assert count.times(2.5) == Count(25, 50, 75, 100, 50)
    assert count.then(Count(1, 100, 3, 4, 5), times=2) == Count(10, 100, 36, 48, 60)


def test_what_is_kept_is_read_without_torch(tmp_path: Path) -> None:
    asked(STARTER, tmp_path)
    code = (
        "import sys; from pathlib import Path; from trainer.sdxl.counts import Counts, Subject;"
        "from trainer.lora.shape import Shape;"
        "subject = Subject(Path(sys.argv[1]), ('unet',), Shape(4, 1.0), 64, False);"
        "print(Counts(subject, Path(sys.argv[2])).parameters(), 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(STARTER.configs), str(tmp_path)]
    root = Path(__file__).resolve().parents[2]
    told = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split()
    assert told == [str(asked(STARTER, tmp_path)[1]), "False"]
