"""What a training does when it is asked for something between two steps, and when it has to wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import save_dataset, short_run
from trainer.errors import RunError
from trainer.home import Home
from trainer.lora.file import LoraFile
from trainer.training.events import Event, Finished, Paused, Resumed, Sampled, Saved, Stepped, Stopped, Warned
from trainer.training.loop import train
from trainer.training.progress import fold
from trainer.training.run import Run, Wish

Act = Callable[[Event], None]


def story(run: Run, home: Home, act: Act) -> list[str]:
    """Train; after each event do something. What was told, in short."""
    told = []
    for event in run.recorded(train(run, home)):
        told.append(f"{event.kind} {getattr(event, 'step', '')}".strip())
        act(event)
    return told


def asking(run: Run, wish: Wish, after: int) -> Act:
    """Ask for something when this step is told of."""
    return lambda event: run.ask(wish) if isinstance(event, Stepped) and event.step == after else None


def matrices(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.lora)


@pytest.fixture(scope="module")
def alone(toy_base: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What a run learns that nobody asks for anything."""
    folder = tmp_path_factory.mktemp("alone")
    run = short_run(folder / "run", dataset, toy_base)
    story(run, Home(folder / "home"), lambda event: None)
    return matrices(run)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(matrix, other[name]) for name, matrix in one.items())


def test_a_pause_lasts_as_long_as_it_is_wanted_and_changes_nothing(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: dict[str, torch.Tensor]
) -> None:
    run, blinks = short_run(tmp_path / "run", dataset, toy_base), []

    def sleep(seconds: float) -> None:
        blinks.append(seconds)
        if len(blinks) == 3:
            assert fold(run.events()).state == "paused"
            run.granted("pause")

    monkeypatch.setattr(time, "sleep", sleep)
    told = story(run, home, asking(run, "pause", 1))
    assert told[told.index("stepped 1") :] == [
        "stepped 1", "paused 1", "resumed 1", "stepped 2", "saved 2", "stepped 3", "stepped 4", "saved 4", "finished 4",
    ]  # fmt: skip
    assert len(blinks) == 3
    assert same(matrices(run), alone)


def test_while_it_waits_it_can_be_stopped(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base)
    monkeypatch.setattr(time, "sleep", lambda _: run.ask("stop"))
    assert story(run, home, asking(run, "pause", 1))[-4:] == ["paused 1", "resumed 1", "saved 1", "stopped 1"]


def test_the_time_of_a_pause_does_not_count(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, clock = short_run(tmp_path / "run", dataset, toy_base), time.monotonic
    late = [0.0]

    def sleep(_: float) -> None:
        late[0] += 1000
        run.granted("pause")

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: clock() + late[0])
    story(run, home, asking(run, "pause", 1))
    progress = fold(run.events())
    assert progress.last is not None
    assert progress.seconds < 500
    assert progress.last.speed > 0.01


def test_a_cancelled_run_writes_no_lora_and_can_be_gone_on_with(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, alone: dict[str, torch.Tensor]
) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base)
    assert story(run, home, asking(run, "cancel", 3))[-2:] == ["stepped 3", "stopped 3"]
    assert not run.lora.exists()
    last = [*run.events()][-1]
    assert isinstance(last, Stopped)
    assert not last.lora
    assert story(run, home, lambda event: None)[-4:] == ["stepped 3", "stepped 4", "saved 4", "finished 4"]
    assert same(matrices(run), alone)


def test_a_checkpoint_that_was_asked_for_is_written_once(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, alone: dict[str, torch.Tensor]
) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, checkpoint_every=100)
    told = story(run, home, asking(run, "save", 1))
    assert told[told.index("stepped 1") :] == [
        "stepped 1", "saved 1", "stepped 2", "stepped 3", "stepped 4", "saved 4", "finished 4",
    ]  # fmt: skip
    early = LoraFile.read(run.checkpoints / "000001" / "run-000001.safetensors")
    assert early.metadata["ss_steps"] == "1"
    assert any(layer.up.any() for layer in early.factors.values()), "a checkpoint is a LoRA that works elsewhere"
    assert same(matrices(run), alone)


def test_samples_that_were_asked_for_are_drawn_once_and_change_nothing(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, alone: dict[str, torch.Tensor]
) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, sample_prompts=("a sea",))
    told = story(run, home, asking(run, "sample", 3))
    assert [line for line in told if line.startswith("sampled")] == ["sampled 3"]
    assert (run.samples / "000003-0.png").is_file()
    assert same(matrices(run), alone)


def test_a_picture_deleted_meanwhile_is_skipped_and_counted(toy_base: Path, home: Home, tmp_path: Path) -> None:
    folder = save_dataset(tmp_path / "set", ((64, 64),) * 4)
    run = short_run(tmp_path / "run", folder, toy_base, steps=6, batch=2)

    def delete(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 2:
            (folder / "01.png").unlink()

    story(run, home, delete)
    warned = [event.message for event in run.events() if isinstance(event, Warned)]
    assert warned == ["No longer in its folder, and skipped: 01.png. So far 1 in all."]
    assert fold(run.events()).state == "finished"


def test_where_all_pictures_are_deleted_it_ends_with_a_sentence_and_a_checkpoint(
    toy_base: Path, home: Home, tmp_path: Path
) -> None:
    folder = save_dataset(tmp_path / "set", ((64, 64),) * 2)
    run = short_run(tmp_path / "run", folder, toy_base, steps=6)

    def delete(event: Event) -> None:
        if isinstance(event, Saved) and event.step == 2:
            for path in folder.glob("*.png"):
                path.unlink()

    with pytest.raises(RunError, match="None of the pictures is there any more"):
        story(run, home, delete)
    assert (run.checkpoints / "000002" / "state.json").is_file()


def test_what_pauses_and_samples_are_told_as(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    """Every kind of event that a run can tell of here is folded into its state."""
    run = short_run(tmp_path / "run", dataset, toy_base)
    events: list[Any] = [Paused(step=2, message="why"), Resumed(step=2), Sampled(step=2, prompt="a sea", path="x.png")]
    assert fold(events[:1]).state == "paused"
    assert fold(events[:1]).message == "why"
    assert fold(events).state == "training"
    story(run, home, lambda event: None)
    assert isinstance([*run.events()][-1], Finished)
