"""A file's texts changed: every tensor byte stays, and so does the whole file if anything goes wrong."""

from __future__ import annotations

import base64
import errno
import io
import json
import os
import struct
from pathlib import Path

import pytest
import torch
from PIL import ExifTags, Image
from safetensors.torch import load_file, save_file

from tests.lora.test_file import CONV, UNET, factors, windows
from trainer.errors import ImpastoError, LoraFileError, PictureError, StorageError, UsageError
from trainer.lora import edit as module
from trainer.lora.edit import PREFERRED_WEIGHT, Edit, edit
from trainer.lora.file import LoraFile, write
from trainer.lora.thumbnail import LARGEST, SIDE


@pytest.fixture
def style(tmp_path: Path) -> Path:
    path = tmp_path / "style.safetensors"
    texts = {"modelspec.title": "Ink", "modelspec.trigger_phrase": "inky", "ss_tag_frequency": '{"a": {"b": 1}}'}
    write(path, {UNET: factors(), CONV: windows()}, texts)
    return path


def header_and_body(path: Path) -> tuple[dict[str, object], bytes]:
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    assert length % 8 == 0
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def test_texts_change_and_tensors_do_not(style: Path, tmp_path: Path) -> None:
    before, body = header_and_body(style)
    known = LoraFile.read(style).metadata
    edit(style, Edit(title="Glaß, 絵", trigger="", description="thin lines", weight=0.7).texts())
    after, same = header_and_body(style)
    told = LoraFile.read(style).metadata
    assert same == body
    assert {key: entry for key, entry in after.items() if key != "__metadata__"} == {
        key: entry for key, entry in before.items() if key != "__metadata__"
    }
    assert told["modelspec.title"] == "Glaß, 絵"
    assert told["modelspec.description"] == "thin lines"
    assert told[PREFERRED_WEIGHT] == "0.7"
    assert "modelspec.trigger_phrase" not in told
    assert told["sshs_model_hash"] == known["sshs_model_hash"]
    assert told["ss_tag_frequency"] == known["ss_tag_frequency"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["style.safetensors"]


def test_a_file_of_another_program_is_edited(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    tensors = {f"{UNET}.lora_down.weight": torch.randn(3, 7), f"{UNET}.lora_up.weight": torch.randn(5, 3).bfloat16()}
    save_file(tensors, path)
    edit(path, {"modelspec.title": "Other"})
    assert LoraFile.read(path).metadata == {"modelspec.title": "Other"}
    for key, tensor in load_file(path).items():
        assert torch.equal(tensor, tensors[key])


def test_a_body_of_many_blocks_is_copied_whole(style: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, body = header_and_body(style)
    monkeypatch.setattr(module, "_BLOCK", 7)
    edit(style, {"modelspec.title": "x"})
    assert header_and_body(style)[1] == body


def test_the_thumbnail_is_a_small_jpeg(style: Path, tmp_path: Path) -> None:
    noise = Image.effect_noise((900, 600), 90).convert("RGB")
    noise.save(tmp_path / "noise.png")
    edit(style, Edit(thumbnail=tmp_path / "noise.png").texts())
    kind, _, text = LoraFile.read(style).metadata["modelspec.thumbnail"].partition(",")
    content = base64.b64decode(text)
    assert kind == "data:image/jpeg;base64"
    assert len(content) <= LARGEST
    with Image.open(io.BytesIO(content)) as picture:
        assert max(picture.size) == SIDE


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_what_goes_wrong_leaves_the_file_as_it_was(style: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    before = style.read_bytes()

    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync" if number == errno.ENOSPC else "replace", refused)
    with pytest.raises(StorageError, match=r"style\.safetensors"):
        edit(style, {"modelspec.title": "x"})
    assert style.read_bytes() == before
    assert [entry.name for entry in style.parent.iterdir()] == ["style.safetensors"]


def test_a_photograph_stands_upright(style: Path, tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (300, 100), "red").save(tmp_path / "photo.jpg", exif=turned)
    edit(style, Edit(thumbnail=tmp_path / "photo.jpg").texts())
    content = base64.b64decode(LoraFile.read(style).metadata["modelspec.thumbnail"].partition(",")[2])
    with Image.open(io.BytesIO(content)) as picture:
        assert (picture.width, picture.height) == (85, SIDE)


@pytest.mark.parametrize("what", ["a letter", "cut off", "too large"])
def test_what_is_no_picture_is_told_of(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "given.png"
    Image.effect_noise((200, 200), 90).save(path)
    match what:
        case "a letter":
            path.write_text("This is a letter.")
        case "cut off":
            path.write_bytes(path.read_bytes()[:5000])
        case "too large":
            monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(PictureError, match=r"given\.png cannot be read as a picture: choose a PNG or JPEG\.$"):
        Edit(thumbnail=path).texts()


def test_texts_that_are_no_unicode_do_not_stop_an_edit(style: Path) -> None:
    edit(style, {"modelspec.title": "odd \udcff"})
    assert LoraFile.read(style).metadata["modelspec.title"] == "odd ?"


def test_texts_that_no_header_holds_are_refused(style: Path) -> None:
    before = style.read_bytes()
    with pytest.raises(LoraFileError, match="shorten"):
        edit(style, {"modelspec.description": "x" * 2**25})
    assert style.read_bytes() == before


def test_a_picture_that_is_none_and_a_weight_that_is_none_are_refused(style: Path) -> None:
    refusals: list[tuple[type[ImpastoError], dict[str, object]]] = [
        (PictureError, {"thumbnail": style}), (UsageError, {"weight": float("nan")}), (UsageError, {"weight": 11.0}),
    ]  # fmt: skip
    for refusal, given in refusals:
        with pytest.raises(refusal):
            Edit(**given).texts()  # type: ignore[arg-type]
