"""What pixels tell: each answer follows what was done to a picture, and says nothing of flat ones."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.data.photographs import blurred, compressed, enlarged, photograph
from trainer.data.checkup.looks import Traces, Values, sharpness, traces


def grey(picture: Image.Image) -> Values:
    return np.asarray(picture.convert("L"), dtype=np.float32)


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return photograph(3, (640, 512))


def test_the_more_it_is_blurred_the_less_sharp_it_is(picture: Image.Image) -> None:
    found = [sharpness(grey(blurred(picture, sigma))) for sigma in (0, 1, 2, 4)]
    assert found[0] == 1
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 4


def test_a_sharp_subject_before_a_blurred_background_is_sharp(picture: Image.Image) -> None:
    soft = blurred(picture, 4)
    assert sharpness(grey(soft)) < 0.2
    soft.paste(picture.crop((0, 0, 256, 384)))
    assert sharpness(grey(soft)) > 0.9


def test_contrast_does_not_matter(picture: Image.Image) -> None:
    faint = grey(blurred(picture, 2)) * 0.5
    assert sharpness(faint) == pytest.approx(sharpness(grey(blurred(picture, 2))), abs=0.03)


def test_blocks_are_not_taken_for_detail(picture: Image.Image) -> None:
    assert sharpness(grey(compressed(blurred(picture, 2), 60))) < 0.35


@pytest.mark.parametrize("shape", [(40, 40), (20, 900), (300, 300), (513, 129)])
def test_of_what_is_flat_or_tiny_nothing_is_told(shape: tuple[int, int]) -> None:
    flat = np.full(shape, 120, np.float32)
    assert sharpness(flat) == 1
    assert traces(flat, 1) == Traces(0, 1)


@pytest.mark.parametrize("times", [2, 2.5, 3, 3.4, 4])
def test_an_enlargement_leaves_a_trace(picture: Image.Image, times: float) -> None:
    values = grey(enlarged(picture, times))
    found = traces(values, sharpness(values)).enlarged
    assert found in (pytest.approx(times, rel=0.02), pytest.approx(times / (times - 1), rel=0.02))


@pytest.mark.parametrize("share", [0.37, 0.5, 0.75, 0.9])
def test_what_was_made_smaller_has_none(picture: Image.Image, share: float) -> None:
    small = picture.resize((round(picture.width * share), round(picture.height * share)), Image.Resampling.LANCZOS)
    assert traces(grey(small), 1).enlarged == 1


@pytest.mark.parametrize("quality", [95, 85, 75, 50, 25])
@pytest.mark.parametrize("sigma", [0, 2])
def test_blocks_are_not_taken_for_an_enlargement(picture: Image.Image, quality: int, sigma: float) -> None:
    values = grey(compressed(blurred(picture, sigma), quality))
    assert traces(values, sharpness(values)).enlarged == 1


def test_blocks_stand_out_the_more_the_harder_it_was_compressed(picture: Image.Image) -> None:
    found = [traces(grey(compressed(picture, quality)), 1).blocks for quality in (95, 75, 45, 20)]
    assert found == sorted(found)
    assert found[0] < 0.15 < 0.4 < found[-1]


def test_blocks_are_found_wherever_they_begin(picture: Image.Image) -> None:
    hard = compressed(picture, 20)
    cut = hard.crop((3, 5, hard.width, hard.height))
    assert traces(grey(cut), 1).blocks == pytest.approx(traces(grey(hard), 1).blocks, rel=0.15)


def test_edges_of_a_drawing_are_no_blocks() -> None:
    drawing = np.full((320, 512), 200, np.float32)
    drawing[16:80:16, 64:400] = drawing[40:300, 64::96] = 20
    assert traces(drawing, 1).blocks < 0.1


def test_an_enlargement_has_no_blocks(picture: Image.Image) -> None:
    assert max(traces(grey(enlarged(picture, times)), 1).blocks for times in (2, 4)) < 0.1
