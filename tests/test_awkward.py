"""The awkward pictures train: every size, ratio and format that a person's folder holds."""

from pathlib import Path

import pytest

from trainer import cli
from trainer.data.dataset import Dataset
from trainer.lora.file import LoraFile
from trainer.training.events import Started, Stepped, Warned
from trainer.training.run import Run

AWKWARD = Path(__file__).parent / "awkward"


def test_they_are_upright() -> None:
    sizes = {picture.path.name: (picture.width, picture.height) for picture in Dataset.open(AWKWARD).pictures}
    assert sizes["turned.jpg"] == (384, 512)
    assert sizes["IMG_0001.JPG"] == (4000, 3000)
    assert len(sizes) == 8


@pytest.mark.slow
def test_they_train_on_the_starter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", str(AWKWARD), "--out", str(tmp_path / "run"), "--json"]
    assert cli.main([*arguments, "--set", "steps=12", "--set", "batch=1", "--set", "sample_every=12"]) == 0
    events = list(Run.open(tmp_path / "run").events())
    started = next(event for event in events if isinstance(event, Started))
    assert started.pictures == 8
    assert len(started.buckets) >= 3
    assert sum(isinstance(event, Stepped) for event in events) == 12
    assert not any(isinstance(event, Warned) for event in events)
    lora = LoraFile.read(tmp_path / "run" / "run.safetensors")
    assert lora.base_version == "impasto_starter"
    assert all(float(factors.up.abs().max()) > 0 for factors in lora.factors.values())
