"""Captions by Florence-2 and BLIP, against transformers used by hand, on tiny random models in the real form."""

from __future__ import annotations

import json
import shutil
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.captioners import save_blip, save_florence
from trainer.captioning import captioner, vision
from trainer.captioning.blip import Blip, without_slips
from trainer.captioning.florence import Florence
from trainer.captioning.models import LENGTHS, Length
from trainer.errors import CaptionerError


@pytest.fixture(scope="module")
def florence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_florence(tmp_path_factory.mktemp("models") / "florence")


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_blip(tmp_path_factory.mktemp("models") / "blip")


def pictures(count: int) -> list[Image.Image]:
    noise = np.random.default_rng(0)
    return [Image.fromarray(noise.integers(0, 256, (6, 9, 3), np.uint8)).resize((90, 60)) for _ in range(count)]


def by_hand(folder: Path, classes: tuple[Any, Any], picture: Image.Image, tokens: int, **text: str) -> str:
    model = classes[0].from_pretrained(folder, dtype=torch.float32).eval()
    processor = classes[1].from_pretrained(folder)
    inputs = processor(images=picture, return_tensors="pt", **text)
    written = model.generate(**inputs, max_new_tokens=tokens, num_beams=3, do_sample=False)
    return " ".join(processor.batch_decode(written, skip_special_tokens=True)[0].split())


@pytest.mark.parametrize("length", LENGTHS)
def test_florence_says_what_transformers_makes_it_say(florence: Path, length: Length) -> None:
    from transformers import Florence2ForConditionalGeneration, Florence2Processor

    task = {"short": "<CAPTION>", "long": "<DETAILED_CAPTION>", "longest": "<MORE_DETAILED_CAPTION>"}[length]
    (picture,) = pictures(1)
    expected = by_hand(florence, (Florence2ForConditionalGeneration, Florence2Processor), picture, 256, text=task)
    written = captioner.load(florence, length).caption("a.png", lambda: picture)
    assert written == expected
    assert written
    assert not any(token in written for token in ("<s>", "</s>", "<pad>", "<image>"))


def test_what_florence_says_depends_on_the_picture_and_on_the_length(florence: Path) -> None:
    lengths: tuple[Length, ...] = ("short", "long")
    said = {Florence(florence, length).caption("", partial(copy, look)) for length in lengths for look in pictures(2)}
    assert len(said) > 2


def test_blip_says_what_transformers_makes_it_say(blip: Path) -> None:
    from transformers import BlipForConditionalGeneration, BlipProcessor

    writer = captioner.load(blip)
    said = [writer.caption("a.png", partial(copy, look)) for look in pictures(3)]
    assert said == [by_hand(blip, (BlipForConditionalGeneration, BlipProcessor), look, 50) for look in pictures(3)]
    assert len(set(said)) == 3
    assert any(said)


def published(folder: Path, place: Path, image_processor: str) -> Path:
    """The same model as repositories have it that were made with transformers 4: the parts' configs in files of their own."""
    shutil.copytree(folder, place)
    joint = json.loads((place / "processor_config.json").read_text(encoding="utf-8"))
    pictures = {
        **joint.pop("image_processor"),
        "image_processor_type": image_processor,
        "processor_class": joint["processor_class"],
    }
    (place / "preprocessor_config.json").write_text(json.dumps({**pictures, "do_convert_rgb": None}), encoding="utf-8")
    (place / "processor_config.json").unlink()
    if "Florence2" in joint["processor_class"]:
        (place / "processor_config.json").write_text(json.dumps(joint), encoding="utf-8")
    return place


@pytest.mark.parametrize("image_processor", ["CLIPImageProcessor", "CLIPImageProcessorFast"])
def test_a_florence_in_the_older_layout_says_the_same(florence: Path, tmp_path: Path, image_processor: str) -> None:
    (picture,) = pictures(1)
    older = captioner.load(published(florence, tmp_path / "older", image_processor))
    assert older.caption("", lambda: picture) == captioner.load(florence).caption("", lambda: picture)


@pytest.mark.parametrize("image_processor", ["BlipImageProcessor", "BlipImageProcessorFast"])
def test_a_blip_in_the_older_layout_says_the_same(blip: Path, tmp_path: Path, image_processor: str) -> None:
    (picture,) = pictures(1)
    older = captioner.load(published(blip, tmp_path / "older", image_processor))
    assert older.caption("", lambda: picture) == captioner.load(blip).caption("", lambda: picture)


@pytest.mark.parametrize("tied", ["text_decoder.cls.predictions.decoder.weight", "text_decoder.cls.predictions.decoder.bias"])
def test_a_weight_that_is_another_one_too_may_be_there_under_either_name(blip: Path, tmp_path: Path, tied: str) -> None:
    from safetensors.torch import load_file, save_file

    (picture,) = pictures(1)
    folder = Path(shutil.copytree(blip, tmp_path / "model"))
    other = {"weight": "text_decoder.bert.embeddings.word_embeddings.weight", "bias": "text_decoder.cls.predictions.bias"}
    whole = load_file(folder / "model.safetensors")
    there = other[tied.rsplit(".", 1)[1]]
    assert (there in whole) != (tied in whole)
    renamed = {({there: tied, tied: there}).get(name, name): value for name, value in whole.items()}
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    assert captioner.load(folder).caption("", lambda: picture) == captioner.load(blip).caption("", lambda: picture)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("arafed woman in a red dress", "a woman in a red dress"), ("arafed image of a cat", "an image of a cat"),
        ("there are two arafed dogs", "there are two dogs"), ("a giraffe in a field", "a giraffe in a field"), ("arafed", ""),
        ("a cat", "a cat"),
    ],
)  # fmt: skip
def test_a_word_that_there_is_not_is_left_out(text: str, said: str) -> None:
    assert without_slips(text) == said


def test_weights_that_are_cut_off_or_missing_are_told_of(blip: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(blip, tmp_path / "model"))
    whole = load_file(folder / "model.safetensors")
    name = "vision_model.encoder.layers.0.mlp.fc1.weight"
    save_file({key: value for key, value in whole.items() if key != name}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CaptionerError, match=rf"lacks 1 of its weights, such as {name}"):
        captioner.load(folder)
    content = (blip / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])
    with pytest.raises(CaptionerError, match=r"model\.safetensors is cut off"):
        captioner.load(folder)


def test_a_config_that_makes_no_sense_is_told_of(blip: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(blip, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["text_config"]["hidden_size"] = "wide"
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CaptionerError, match=r"could not be loaded \(.*\): delete the folder .*model and get"):
        captioner.load(folder)


class Card:
    """Stands for a card that is full: whatever is to run there says so, in torch's words."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, message: str) -> None:
        self.full, generate = True, vision.Vision._text

        def run(there: vision.Vision, *given: Any) -> str:
            if there.device.type == "meta" or (self.full and message.startswith("[enforce")):
                raise RuntimeError(message)
            return generate(there, *given)

        monkeypatch.setattr(vision.Vision, "_text", run)


def test_when_the_card_is_full_it_goes_on_without(blip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (picture,) = pictures(1)
    Card(monkeypatch, "CUDA out of memory. Tried to allocate 2.00 GiB")
    writer = Blip(blip)
    writer._vision.device = torch.device("meta")
    writer._vision.model.to(torch.bfloat16)
    assert writer.caption("", lambda: picture)
    assert writer.remarks == [
        "The card has too little free memory for the model: it goes on without the card, which is slower."
    ]
    assert writer._vision.device.type == "cpu"
    assert writer._vision.model.dtype == torch.float32


def test_when_the_computer_is_full_too_it_says_what_to_do(blip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Card(monkeypatch, "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
    with pytest.raises(CaptionerError, match="too little memory for this model: close other programs, or choose a smaller"):
        Blip(blip).caption("", lambda: pictures(1)[0])


def test_another_fault_is_not_taken_for_a_lack_of_memory(blip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(there: vision.Vision, *given: Any) -> str:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(vision.Vision, "_text", run)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        Blip(blip).caption("", lambda: pictures(1)[0])
