"""A base is known again in whatever form it comes, and read only once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import checkpoint
from trainer.bases import fingerprint as module
from trainer.bases.fingerprint import MEMORY, NO_FILE, fingerprint, identify, origin_of, recall, remarks, short_hash
from trainer.bases.origin import Identity, Origin
from trainer.bases.source import Facts
from trainer.errors import BaseModelError
from trainer.home import Home

Change = Callable[[str, torch.Tensor], torch.Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scaled SDXL in float32 as a diffusers folder, made by diffusers' own converters."""
    home = tmp_path_factory.mktemp("forms")
    configs = checkpoint.write_configs(home / "configs")
    return checkpoint.write_folder(home / "folder", checkpoint.tensors(torch.float32), configs)


@pytest.fixture
def cache(home: Home) -> Path:
    return home.cache


def single(path: Path, dtype: torch.dtype = torch.float32, change: Change = lambda name, tensor: tensor) -> Path:
    """The same model as a single file."""
    state = {name: change(name, tensor) for name, tensor in checkpoint.tensors(torch.float32).items()}
    return checkpoint.write_file(path, {name: tensor.to(dtype) for name, tensor in state.items()}, {"a": "title"})


def halved(folder: Path, copy: Path) -> Path:
    """A folder that has only float16 weights, under the names that those have."""
    shutil.copytree(folder, copy)
    for whole in copy.glob("*/*.safetensors"):
        halves = {name: tensor.half() for name, tensor in load_file(whole).items()}
        save_file(halves, whole.with_suffix(".fp16.safetensors"))
        whole.unlink()
    return copy


def renamed(folder: Path, copy: Path) -> Path:
    """A folder whose text encoders are called the other way: with `text_model.`, or without, as versions differ."""
    shutil.copytree(folder, copy)
    for part in ("text_encoder", "text_encoder_2"):
        file = copy / part / "model.safetensors"
        named = {}
        for name, tensor in load_file(file).items():
            bare = name.removeprefix("text_model.")
            other = bare if bare != name or name.startswith("text_projection") else f"text_model.{name}"
            named[other] = tensor
        named["text_model.embeddings.position_ids"] = torch.arange(77)[None]
        save_file(named, file)
    return copy


def in_shards(folder: Path, copy: Path) -> Path:
    """A folder whose U-Net is in two files."""
    shutil.copytree(folder, copy)
    whole = copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = list(load_file(whole).items())
    half = len(tensors) // 2
    for number, piece in enumerate((tensors[half:], tensors[:half]), start=1):
        save_file(dict(piece), whole.with_name(f"diffusion_pytorch_model-{number:05d}-of-00002.safetensors"))
    whole.with_name("diffusion_pytorch_model.safetensors.index.json").write_text("{}", encoding="utf-8")
    whole.unlink()
    return copy


def test_all_forms_of_a_model_have_one_fingerprint(folder: Path, tmp_path: Path) -> None:
    forms = {
        "folder": folder,
        "float16 folder": halved(folder, tmp_path / "halved"),
        "other names": renamed(folder, tmp_path / "renamed"),
        "shards": in_shards(folder, tmp_path / "shards"),
        "single file": single(tmp_path / "a.safetensors"),
        "float16 file": single(tmp_path / "b.safetensors", torch.float16),
    }
    found = {form: fingerprint(path) for form, path in forms.items()}
    assert set(found.values()) == {found["folder"]}, found
    assert len(found["folder"]) == 64


@pytest.mark.parametrize(
    ("start", "same"),
    [
        ("first_stage_model.decoder.conv_in.weight", True),
        ("conditioner.embedders.1.model.logit_scale", True),
        ("model.diffusion_model.output_blocks.0.1.transformer_blocks.9.attn2.to_v.weight", False),
        ("conditioner.embedders.0.transformer.text_model.encoder.layers.11.mlp.fc1.bias", False),
        ("conditioner.embedders.1.model.transformer.resblocks.31.attn.in_proj_weight", False),
        ("conditioner.embedders.1.model.text_projection", False),
    ],
)
def test_it_changes_with_the_unet_and_the_text_encoders_and_not_with_the_vae(
    folder: Path, tmp_path: Path, start: str, same: bool
) -> None:
    assert start in checkpoint.narrow_shapes()

    def nudge(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name == start:
            tensor = tensor.clone()
            tensor.view(-1)[-1] += 1.0
        return tensor

    assert (fingerprint(single(tmp_path / "a.safetensors", change=nudge)) == fingerprint(folder)) is same


def test_two_weights_that_trade_places_are_another_model(folder: Path, tmp_path: Path) -> None:
    layer = "conditioner.embedders.0.transformer.text_model.encoder.layers.0.self_attn"
    state = checkpoint.tensors(torch.float32)
    swapped = {f"{layer}.q_proj.weight": f"{layer}.k_proj.weight", f"{layer}.k_proj.weight": f"{layer}.q_proj.weight"}
    file = single(tmp_path / "a.safetensors", change=lambda name, tensor: state[swapped[name]] if name in swapped else tensor)
    assert fingerprint(file) != fingerprint(folder)


def test_a_copy_in_bfloat16_has_lost_bits_and_is_another_one(folder: Path, tmp_path: Path) -> None:
    assert fingerprint(single(tmp_path / "a.safetensors", torch.bfloat16)) != fingerprint(folder)


def test_the_fields_hashes_are_those_of_the_file(tmp_path: Path, cache: Path) -> None:
    file = single(tmp_path / "a.safetensors")
    content = file.read_bytes()
    found = identify(file, cache)
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert found.short == hashlib.sha256(content[2**20 : 2**20 + 2**16]).hexdigest()[:8]


def test_the_older_hash_of_a_small_file_is_that_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"less than a MiB")
    assert short_hash(tmp_path / "small") == "e3b0c442"


def test_a_folder_has_no_hash_of_a_file(folder: Path, cache: Path) -> None:
    found = identify(folder, cache)
    assert (found.sha256, found.short, found.fingerprint) == (NO_FILE, NO_FILE, fingerprint(folder))


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The bases whose weights were read."""
    read: list[Path] = []
    monkeypatch.setattr(module, "fingerprint", lambda place: read.append(place) or "f" * 64)  # type: ignore[func-returns-value]
    return read


def test_what_was_read_is_remembered_until_the_file_changes(
    folder: Path, tmp_path: Path, cache: Path, readings: list[Path]
) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"weights")
    assert recall(file, cache) is None
    first = identify(file, cache)
    assert identify(folder, cache).fingerprint == "f" * 64
    assert identify(file, cache) == recall(file, cache) == first
    assert readings == [file, folder]
    os.utime(file, (1, 1))
    assert recall(file, cache) is None
    file.write_bytes(b"other weights")
    assert identify(file, cache).sha256 == hashlib.sha256(b"other weights").hexdigest()
    assert readings == [file, folder, file]


def test_a_folder_is_read_again_when_one_of_its_files_changes(
    folder: Path, tmp_path: Path, cache: Path, readings: list[Path]
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    identify(copy, cache)
    os.utime(copy / "vae" / "diffusion_pytorch_model.safetensors", (1, 1))
    identify(copy, cache)
    assert len(readings) == 1, "the VAE is not a part of it"
    os.utime(copy / "text_encoder_2" / "model.safetensors", (1, 1))
    identify(copy, cache)
    assert len(readings) == 2


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"%s": 1}', '{"%s": {"stamp": []}}', '{"%s": {"identity": {"x": 1}}}'])
def test_a_damaged_memory_is_written_anew(tmp_path: Path, cache: Path, readings: list[Path], damage: str) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"weights")
    cache.mkdir(parents=True)
    (cache / MEMORY).write_text(damage.replace("%s", json.dumps(str(file.resolve()))[1:-1]), encoding="utf-8")
    found = identify(file, cache)
    assert found == recall(file, cache) == Identity("f" * 64, hashlib.sha256(b"weights").hexdigest(), "e3b0c442")
    assert readings == [file]


def test_what_cannot_be_remembered_is_told_all_the_same(tmp_path: Path, readings: list[Path]) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"weights")
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the cache should be", encoding="utf-8")
    assert identify(file, blocked) == identify(file, blocked)
    assert readings == [file, file]


def test_a_base_that_cannot_be_read_says_so(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(BaseModelError, match=r"gone\.safetensors could not be read"):
        identify(tmp_path / "gone.safetensors", cache)
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(BaseModelError, match=r"cut\.safetensors"):
        identify(tmp_path / "cut.safetensors", cache)


def test_what_is_said_of_loras_on_a_base(tmp_path: Path, cache: Path, readings: list[Path]) -> None:
    file = tmp_path / "ponyXL.safetensors"
    file.write_bytes(b"weights")
    facts = Facts(str(file), file, "ponyXL", "pony", "epsilon", False, 1024)
    told = {"ss_sd_model_name": "sd_xl_base_1.0", "modelspec.prediction_type": "epsilon"}
    assert remarks(facts, [], cache) == []
    assert [remark.level for remark in remarks(facts, [("a", told), ("b", {})], cache)] == ["warning"]
    assert not readings, "nothing tells by what its base is known"
    same, other = ({**told, "impasto.base_fingerprint": letter * 64} for letter in "fe")
    said = remarks(facts, [("same", same), ("other", other)], cache)
    assert [remark.sentence.split()[0] for remark in said] == ["other"]
    assert readings == [file]


def test_a_lora_is_worth_more_than_what_is_known_of_its_base(tmp_path: Path, cache: Path) -> None:
    gone = tmp_path / "gone.safetensors"
    facts = Facts(str(gone), gone, "gone", "pony", "epsilon", False, 1024)
    assert origin_of(facts, cache) == Origin("gone", "pony", "epsilon", False)
