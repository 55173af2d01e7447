"""Tags by the WD taggers of SmilingWolf (v2 and v3), as on Danbooru, through onnxruntime; runs on the CPU, knows no torch.

Prepared as the models' own demonstration does it (huggingface.co/spaces/SmilingWolf/wd-tagger): padded to a square on white,
448 x 448 by bicubic, channels blue, green, red, values 0 to 255.
"""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.captioning.captioner import Look
from trainer.captioning.place import ONNX, TAGS, again
from trainer.errors import CaptionerError

GENERAL, CHARACTER = 0, 4
"""Categories of `selected_tags.csv`; 9, the rating, and others are left out."""

THRESHOLDS = {GENERAL: 0.35, CHARACTER: 0.85}

KAOMOJI = frozenset((
    "0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3", "6_9", ">_o", "@_@", "^_^", "o_o", "u_u",
    "x_x", "|_|", "||_||",
))  # fmt: skip
"""Tags whose underscores are a mouth."""

Values = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def check_installed() -> None:
    """Raise `CaptionerError` if onnxruntime, the optional extra `tag`, is not there."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise CaptionerError(
            "Tags need onnxruntime, which is not installed: install it with python -m pip install onnxruntime."
        )


class Tagger:
    """See `Captioner`."""

    def __init__(self, folder: Path) -> None:
        """Raises `CaptionerError`."""
        check_installed()
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        self.remarks: list[str] = []
        self._tags = read_tags(folder / TAGS)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # what it says of its own optimisations concerns nobody here
        try:
            self._session = onnxruntime.InferenceSession(str(folder / ONNX), options, providers=["CPUExecutionProvider"])
        except (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented) as error:
            why = str(error).splitlines()[0]
            raise CaptionerError(f"{folder / ONNX} could not be loaded ({why.rstrip('.')}): {again(folder)}.") from None
        self._input = self._session.get_inputs()[0]
        side = self._input.shape[1] if len(self._input.shape) == 4 else None
        if not isinstance(side, int) or self._input.shape[3] != 3:
            raise CaptionerError(
                f"{folder / ONNX} is no WD tagger: it does not take pictures of a fixed size in three colours."
            )
        self._side = side

    def caption(self, name: str, look: Look) -> str:
        """See `Captioner`."""
        scores = self._session.run(None, {self._input.name: prepared(look(), self._side)})[0][0]
        if len(scores) != len(self._tags):
            raise CaptionerError(
                f"The tagger gives {len(scores)} numbers, but its {TAGS} has {len(self._tags)} tags: get the model again."
            )
        return ", ".join(chosen(self._tags, scores))


def read_tags(path: Path) -> list[tuple[str, int]]:
    """The tags of a model with their categories, in the order of its numbers. Raises `CaptionerError`."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [(spoken(row["name"]), int(row["category"])) for row in csv.DictReader(file)]
    except (OSError, KeyError, TypeError, ValueError, csv.Error):
        raise CaptionerError(
            f"{path} cannot be read as a list of tags with names and categories: get the model again."
        ) from None


def spoken(tag: str) -> str:
    """A tag with blanks in the place of underscores, unless it is a face."""
    return tag if tag in KAOMOJI else tag.replace("_", " ")


def prepared(picture: Image.Image, side: int) -> Values:
    """A picture in RGB as the models take it, (1, side, side, 3)."""
    longest = max(picture.size)
    square = Image.new("RGB", (longest, longest), (255, 255, 255))
    square.paste(picture, ((longest - picture.width) // 2, (longest - picture.height) // 2))
    if longest != side:
        square = square.resize((side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(square, np.float32)[None, :, :, ::-1])


def chosen(tags: list[tuple[str, int]], scores: Values) -> list[str]:
    """The tags above their category's threshold, characters first, the surest first among each."""
    found = [
        (category != CHARACTER, -float(score), tag)
        for (tag, category), score in zip(tags, scores, strict=True)
        if score > THRESHOLDS.get(category, np.inf)
    ]
    return [tag for _, _, tag in sorted(found)]
