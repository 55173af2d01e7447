"""The board, read back with TensorBoard's own reader."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.errors import RunError, StorageError
from trainer.training.board import SIDE, Board
from trainer.training.events import Event, Resumed, Sampled, Started, Stepped, Validated

STEPPED = Stepped(
    step=1, steps=9, loss=0.5, smoothed=0.4, rates={"unet": 1e-4, "te1": 1e-5}, gradient=2.0, gradients={"unet": 1.5},
    change={"unet": 0.25}, speed=3.0, eta=1.0, memory=2**31,
)  # fmt: skip


def stepped(*steps: int, loss: float = 0.5) -> list[Event]:
    return [replace(STEPPED, step=step, loss=loss) for step in steps]


def shown(run: Path, events: list[Event]) -> None:
    """A board that one process shows `events` on."""
    board = Board(run)
    for event in events:
        board.show(event)
    board.close()


def read(run: Path) -> Any:
    """The board as TensorBoard understands it."""
    reader = EventAccumulator(str(run / "board"))
    reader.Reload()
    return reader


def test_every_number_of_a_step_is_there(tmp_path: Path) -> None:
    shown(tmp_path, [replace(STEPPED, time=1000.0)])
    found = read(tmp_path)
    numbers = {tag: found.Scalars(tag)[0].value for tag in found.Tags()["scalars"]}
    assert numbers == pytest.approx(
        {
            "loss/step": 0.5, "loss/smoothed": 0.4, "rate/unet": 1e-4, "rate/te1": 1e-5, "gradient/all": 2.0,
            "gradient/unet": 1.5, "change/unet": 0.25, "machine/steps per second": 3.0, "machine/memory in GiB": 2.0,
        }
    )  # fmt: skip
    assert found.Scalars("loss/step")[0].wall_time == 1000.0


def test_the_held_out_loss_stands_beside_the_others(tmp_path: Path) -> None:
    shown(tmp_path, [Validated(step=4, loss=0.75, best=4)])
    assert [(point.step, point.value) for point in read(tmp_path).Scalars("loss/validation")] == [(4, 0.75)]


def test_samples_are_there_as_small_pictures(tmp_path: Path) -> None:
    Image.new("RGB", (2 * SIDE, SIDE), (200, 40, 40)).save(tmp_path / "a.png")
    shown(tmp_path, [Sampled(step=3, prompt="a red house", path="a.png"), Sampled(step=6, prompt="gone", path="b.png")])
    found = read(tmp_path)
    assert found.Tags()["images"] == ["samples/a red house"]
    (sample,) = found.Images("samples/a red house")
    with Image.open(io.BytesIO(sample.encoded_image_string)) as picture:
        assert (sample.step, picture.size) == (3, (SIDE, SIDE // 2))
        assert picture.getpixel((9, 9)) == pytest.approx((200, 40, 40), abs=4)


def test_a_run_that_goes_on_continues_its_curve(tmp_path: Path) -> None:
    shown(tmp_path, stepped(1, 2, 3, 4))
    shown(tmp_path, [Resumed(step=2), *stepped(3, loss=0.25)])
    points = read(tmp_path).Scalars("loss/step")
    assert [(point.step, point.value) for point in points] == [(1, 0.5), (2, 0.5), (3, 0.25)]
    assert len(list((tmp_path / "board").iterdir())) == 2


def test_a_run_that_goes_back_in_one_process_does_too(tmp_path: Path) -> None:
    shown(tmp_path, [*stepped(1, 2, 3, 4), Resumed(step=2), *stepped(3, loss=0.25)])
    assert [point.step for point in read(tmp_path).Scalars("loss/step")] == [1, 2, 3]


def test_a_run_that_begins_anew_forgets_what_was(tmp_path: Path) -> None:
    shown(tmp_path, stepped(1, 2, 3))
    shown(tmp_path, stepped(1, loss=0.25))
    assert [(point.step, point.value) for point in read(tmp_path).Scalars("loss/step")] == [(1, 0.25)]


def test_what_a_killed_process_showed_last_is_there(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.show(Validated(step=4, loss=0.75, best=4))
    assert read(tmp_path).Tags()["scalars"] == ["loss/validation"], "though the board was never closed"
    board.close()


def test_nothing_to_show_makes_no_folder(tmp_path: Path) -> None:
    shown(tmp_path, [Started(steps=3, pictures=2, base="starter", device="cpu", buckets={})])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "board").touch()
    with pytest.raises(StorageError, match="board"):
        shown(tmp_path, stepped(1))


def test_a_package_that_is_missing_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX.proto.event_pb2", None)
    with pytest.raises(RunError, match="python -m pip install tensorboard tensorboardx, or"):
        Board(tmp_path)


def test_who_wants_no_board_loads_nothing_for_it() -> None:
    look = "import sys, trainer.training.board; print([name for name in ('torch', 'tensorboardX') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.strip() == "[]"
