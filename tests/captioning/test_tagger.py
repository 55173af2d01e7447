"""Tags by an ONNX model of the taggers' form."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.captioners import save_tagger
from trainer.captioning import captioner
from trainer.captioning.tagger import Tagger, chosen, prepared, read_tags, spoken
from trainer.errors import CaptionerError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tagger(tmp_path_factory.mktemp("models") / "tagger")


@pytest.mark.parametrize(
    ("colour", "tags"),
    [
        ((0, 0, 255), "long hair"),  # blue comes first: 0.36 is above 0.35, 0.34 and a character's 0.84 are below
        ((0, 255, 0), "miku (cat), ^_^"),  # a character first, although it is less sure; a face keeps its mouth
        ((255, 0, 0), "red hat, long hair"),  # the surest first
        ((0, 0, 0), ""),
    ],
)
def test_tags_are_those_above_their_threshold_and_the_rating_is_left_out(
    folder: Path, colour: tuple[int, int, int], tags: str
) -> None:
    written = captioner.load(folder).caption("a.png", lambda: Image.new("RGB", (60, 40), colour))
    assert written == tags


def test_a_picture_is_padded_on_white_and_given_as_blue_green_red() -> None:
    picture = Image.new("RGB", (8, 4), (10, 20, 30))
    values = prepared(picture, 8)
    assert values.shape == (1, 8, 8, 3)
    assert values.dtype == np.float32
    assert values[0, 2:6].reshape(-1, 3).tolist() == [[30, 20, 10]] * 32
    assert (values[0, :2] == 255).all()
    assert (values[0, 6:] == 255).all()


def test_a_large_picture_is_scaled_by_bicubic() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    expected = np.asarray(Image.fromarray(noise).resize((16, 16), Image.Resampling.BICUBIC))[:, :, ::-1]
    assert np.array_equal(prepared(Image.fromarray(noise), 16)[0], expected.astype(np.float32))


@pytest.mark.parametrize(("tag", "said"), [("long_hair", "long hair"), ("^_^", "^_^"), ("||_||", "||_||"), ("o_o", "o_o")])
def test_underscores_are_blanks_but_in_faces(tag: str, said: str) -> None:
    assert spoken(tag) == said


def test_each_category_has_its_threshold() -> None:
    scores = np.array([0.34, 0.36, 0.84, 0.86, 0.9], np.float32)
    assert chosen([("a", 0), ("b", 0), ("c", 4), ("d", 4), ("e", 9)], scores) == ["d", "b"]


def test_without_onnxruntime_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        CaptionerError, match="onnxruntime, which is not installed: install it with python -m pip install onnxruntime"
    ):
        Tagger(folder)


def test_damaged_files_are_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    (tmp_path / "selected_tags.csv").write_bytes((folder / "selected_tags.csv").read_bytes())
    with pytest.raises(CaptionerError, match=r"model\.onnx could not be loaded"):
        Tagger(tmp_path)
    (tmp_path / "selected_tags.csv").write_text("id,tag\n1,cat\n", encoding="utf-8")
    with pytest.raises(CaptionerError, match=r"selected_tags\.csv cannot be read"):
        read_tags(tmp_path / "selected_tags.csv")


def test_a_list_that_does_not_fit_its_model_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    (tmp_path / "selected_tags.csv").write_text("name,category\ncat,0\n", encoding="utf-8")
    with pytest.raises(CaptionerError, match=r"gives 7 numbers, but its selected_tags\.csv has 1 tags"):
        Tagger(tmp_path).caption("a.png", lambda: Image.new("RGB", (20, 20)))
