"""Sample pictures: what they show, and those that cannot be drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import save_dataset, short_run
from trainer.data.dataset import Dataset
from trainer.errors import DrawingError
from trainer.home import Home
from trainer.training import samples
from trainer.training.events import Finished, Sampled, Warned
from trainer.training.loop import train
from trainer.training.plan import Plan

FAULTS = {
    "memory ran out while it was drawn": RuntimeError("CUDA out of memory. Tried to allocate 2 GiB."),
    "its latents are not numbers": DrawingError("its latents are not numbers."),
}


@pytest.mark.parametrize("told", FAULTS)
def test_a_sample_that_cannot_be_drawn_is_told_of_and_the_training_goes_on(
    told: str, toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise FAULTS[told]

    monkeypatch.setattr(samples, "sample", fail)
    events = list(train(short_run(tmp_path / "run", dataset, toy_base, sample_every=4), home))
    warned = [event.message for event in events if isinstance(event, Warned)]
    assert len(warned) == 4  # two prompts, at the beginning and at the end
    assert all(message.startswith("A sample was left out: ") and told in message for message in warned)
    assert not any(isinstance(event, Sampled) for event in events)
    assert isinstance(events[-1], Finished)


def test_a_fault_of_ours_is_not_taken_for_lack_of_memory(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(samples, "sample", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        list(train(short_run(tmp_path / "run", dataset, toy_base, sample_every=4), home))


def test_of_wildcards_the_samples_always_show_the_same(tmp_path: Path) -> None:
    folder = save_dataset(tmp_path / "set", ((64, 64),))
    (folder / "00.txt").write_text("a {red|blue|green} (old) sea")
    shown = {}
    for wildcards in (False, True):
        run = short_run(tmp_path / str(wildcards), folder, tmp_path, wildcards=wildcards, trigger="glassy")
        plan = Plan.of(Dataset.open(folder), run.settings)
        shown[wildcards] = samples.sample_prompts(run, plan)
        assert shown[wildcards] == samples.sample_prompts(run, plan)
    assert shown[False] == [(r"glassy, a {red|blue|green} \(old\) sea", 1)]
    assert shown[True][0] in {(rf"glassy, a {hue} \(old\) sea", 1) for hue in ("red", "blue", "green")}


def test_samples_with_and_without_the_trigger_have_the_same_seeds(tmp_path: Path) -> None:
    folder = save_dataset(tmp_path / "set", ((64, 64),))
    asked = {"trigger": "glassy", "sample_prompts": ("a sea", "glassy, a hut"), "seed": 5}
    run = short_run(tmp_path / "run", folder, tmp_path, **asked, sample_untriggered=True)
    plan = Plan.of(Dataset.open(folder), run.settings)
    assert samples.sample_prompts(run, plan) == [("glassy, a sea", 5), ("glassy, a hut", 6), ("a sea", 5)]


def test_samples_at_a_weight_have_the_bases_picture_beside_them(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path
) -> None:
    drawn = {}
    for weight in (0.0, 1.0):
        asked = {"sample_every": 4, "sample_prompts": ("a sea",), "sample_weight": weight}
        run = short_run(tmp_path / f"{weight}", dataset, toy_base, **asked)
        events = [event for event in train(run, home) if isinstance(event, Sampled)]
        assert [(event.step, event.weight, event.base) for event in events] == [
            (0, weight, ""), (4, weight, "samples/000000-0.png"),
        ]  # fmt: skip
        drawn[weight] = [(run.folder / event.path).read_bytes() for event in events]
    assert drawn[0.0][1] == drawn[0.0][0] == drawn[1.0][0], "at weight 0 it is the base's picture, bit for bit"
    assert drawn[1.0][1] != drawn[1.0][0]
