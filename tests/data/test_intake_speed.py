"""How many photographs of 12 megapixels are taken in a second, on two cores."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from trainer.data.arrival.adding import Added, add
from trainer.data.intake import normalised

COUNT = 6
SIZE = (4000, 3000)


def photographs(folder: Path, form: str, **options: object) -> list[Path]:
    """Broad tones with fine noise, as a camera's: every one another."""
    random = np.random.default_rng(1)
    tones = Image.fromarray(random.integers(0, 255, (75, 100, 3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    noise = random.normal(0, 6, (SIZE[1], SIZE[0], 3)).astype(np.int16)
    paths = []
    for number in range(COUNT):
        values = np.asarray(tones, dtype=np.int16) + np.roll(noise, number * 50, axis=0)
        paths.append(folder / f"{number:02}.{form.lower()}")
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(paths[-1], form, **options)
    return paths


def a_second(folder: Path, paths: list[Path]) -> float:
    """How many two cores add in a second; by the time that they work on it, for something else may run here too."""
    start, work = time.perf_counter(), time.process_time()
    added = [each for each in add(folder, paths) if isinstance(each, Added)]
    assert len(added) == COUNT
    work, waited = time.process_time() - work, time.perf_counter() - start
    print(f"\n{paths[0].suffix}: {COUNT / waited:.1f} a second here and now, {2 * COUNT / work:.1f} by the work of two cores")
    return 2 * COUNT / work


@pytest.mark.slow
def test_photographs_that_stay_as_they_are(tmp_path: Path) -> None:
    assert a_second(tmp_path / "set", photographs(tmp_path, "JPEG", quality=92)) >= 8


@pytest.mark.slow
def test_photographs_that_are_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    assert a_second(tmp_path / "set", photographs(tmp_path, "JPEG", quality=92, exif=exif)) >= 1.5


@pytest.mark.slow
def test_photographs_that_become_png(tmp_path: Path) -> None:
    assert a_second(tmp_path / "set", photographs(tmp_path, "TIFF")) >= 1.5


def test_decoding_and_encoding_let_the_other_thread_work(tmp_path: Path) -> None:
    """Else two threads would be no faster than one."""
    Image.effect_noise((3000, 2000), 60).convert("RGB").save(tmp_path / "a.tif")
    worker = threading.Thread(target=normalised, args=(tmp_path / "a.tif",))
    turns = 0
    worker.start()
    while worker.is_alive():
        time.sleep(0.002)
        turns += 1
    assert turns > 10
