"""LoRA files: what is written, what is refused, and the hashes that other tools look for."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from lycoris.modules.locon import LoConModule
from safetensors.torch import load_file, save_file

from trainer.errors import LoraFileError, StorageError
from trainer.lora.file import Factors, LoraFile, serialise, summary, write

UNET = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
CONV = "lora_unet_input_blocks_4_0_in_layers_2"
TE1 = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"


def factors(rank: int = 4, alpha: float = 3.0, inward: int = 6, outward: int = 5, seed: int = 0) -> Factors:
    """Random matrices that float16 holds exactly."""
    random = torch.Generator().manual_seed(seed)
    down, up = (torch.randn(shape, generator=random).half().float() for shape in ((rank, inward), (outward, rank)))
    return Factors(down, up, alpha)


def windows(rank: int = 2, alpha: float = 3.0) -> Factors:
    """Those of a 3 x 3 convolution from 6 to 5 channels."""
    flat = factors(rank, alpha, inward=6 * 9)
    return Factors(flat.down.view(rank, 6, 3, 3), flat.up.view(5, rank, 1, 1), alpha)


def tensors_of(name: str, **changed: torch.Tensor) -> dict[str, torch.Tensor]:
    """The three tensors of one layer."""
    layer = factors()
    return {
        f"{name}.lora_down.weight": layer.down, f"{name}.lora_up.weight": layer.up, f"{name}.alpha": torch.tensor(3.0),
        **{f"{name}.{part.replace('__', '.')}": tensor for part, tensor in changed.items()},
    }  # fmt: skip


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    layers = {UNET: factors(), TE1: factors(seed=1, alpha=2.0), CONV: windows()}
    texts = {"modelspec.trigger_phrase": "glassy", "ss_base_model_version": "sdxl_base_v1-0"}
    write(tmp_path / "style.safetensors", layers, texts)
    lora = LoraFile.read(tmp_path / "style.safetensors")
    assert (lora.name, lora.trigger, lora.base_version) == ("style", "glassy", "sdxl_base_v1-0")
    assert lora.layers.keys() == lora.factors.keys() == layers.keys()
    for name, layer in layers.items():
        assert torch.equal(lora.factors[name].down.float(), layer.down)
        assert torch.equal(lora.factors[name].up.float(), layer.up)
        assert lora.factors[name].alpha == layer.alpha


def test_the_tensors_are_kohyas(tmp_path: Path) -> None:
    write(tmp_path / "style.safetensors", {UNET: factors(rank=4, inward=6, outward=5, alpha=3.0)}, {})
    tensors = load_file(tmp_path / "style.safetensors")
    assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == {
        f"{UNET}.lora_down.weight": (4, 6),
        f"{UNET}.lora_up.weight": (5, 4),
        f"{UNET}.alpha": (),
    }


def test_the_tensors_of_a_convolution_are_locons(tmp_path: Path) -> None:
    write(tmp_path / "style.safetensors", {CONV: windows(rank=2)}, {})
    tensors = load_file(tmp_path / "style.safetensors")
    assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == {
        f"{CONV}.lora_down.weight": (2, 6, 3, 3),
        f"{CONV}.lora_up.weight": (5, 2, 1, 1),
        f"{CONV}.alpha": (),
    }


def test_the_change_of_a_convolution_is_lycoris() -> None:
    layer, peer = windows(rank=2, alpha=3.0), LoConModule("", torch.nn.Conv2d(6, 5, 3), lora_dim=2, alpha=3.0)
    peer.lora_down.weight.data.copy_(layer.down)
    peer.lora_up.weight.data.copy_(layer.up)
    expected = peer.get_diff_weight()[0].detach()
    torch.testing.assert_close(layer.change(), expected, rtol=1e-5, atol=1e-5)
    assert layer.shape == expected.shape
    assert layer.size() == pytest.approx(float(expected.double().norm()), rel=1e-5)


def test_a_small_alpha_keeps_its_value(tmp_path: Path) -> None:
    write(tmp_path / "style.safetensors", {UNET: factors(alpha=0.1)}, {})
    assert LoraFile.read(tmp_path / "style.safetensors").factors[UNET].alpha == pytest.approx(0.1, rel=1e-6)


def test_a_file_without_alpha_means_alpha_is_the_rank(tmp_path: Path) -> None:
    tensors = tensors_of(UNET)
    del tensors[f"{UNET}.alpha"]
    save_file(tensors, tmp_path / "style.safetensors")
    assert LoraFile.read(tmp_path / "style.safetensors").factors[UNET].alpha == 4


def header_and_body(content: bytes) -> tuple[dict[str, Any], bytes]:
    """A safetensors file taken apart by hand."""
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def test_the_model_hash_is_that_of_the_tensor_bytes() -> None:
    header, body = header_and_body(serialise({UNET: factors()}, {"ss_seed": "1"}))
    assert header["__metadata__"]["sshs_model_hash"] == hashlib.sha256(body).hexdigest()


def test_the_model_hash_does_not_depend_on_the_metadata() -> None:
    one, other = (header_and_body(serialise({UNET: factors()}, {"ss_seed": seed}))[0] for seed in ("1", "a longer one"))
    assert one["__metadata__"]["sshs_model_hash"] == other["__metadata__"]["sshs_model_hash"]


def test_the_legacy_hash_is_of_64_kib_at_1_mib(tmp_path: Path) -> None:
    large = {f"{UNET}_{number}": factors(rank=64, inward=1024, outward=1024, seed=number) for number in range(8)}
    header, _ = header_and_body(serialise(large, {"ss_seed": "1", "modelspec.title": "not hashed"}))
    tensors = {}
    for name, layer in large.items():
        tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = layer.down.half(), layer.up.half()
        tensors[f"{name}.alpha"] = torch.tensor(layer.alpha)
    save_file(tensors, tmp_path / "plain.safetensors", {"ss_seed": "1"})
    content = (tmp_path / "plain.safetensors").read_bytes()
    assert len(content) > 0x110000
    assert header["__metadata__"]["sshs_legacy_hash"] == hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8]


def test_the_same_layers_give_the_same_file() -> None:
    one, other = (header_and_body(serialise({UNET: factors(), TE1: factors()}, {"ss_seed": "1"})) for _ in range(2))
    assert one == other


@pytest.mark.parametrize("length", [0x280, 0x480, 0x4B50], ids=hex)
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path, length: int) -> None:
    path = tmp_path / "style.safetensors"
    save_file(tensors_of(UNET), path)
    header, body = header_and_body(path.read_bytes())
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", length) + text.ljust(length) + body)
    assert list(LoraFile.read(path).layers) == [UNET]


# Files that are refused -------------------------------------------------------------------------------------------------


def a_file(path: Path, what: str) -> None:
    """Write one that cannot be used."""
    whole = tensors_of(UNET)
    match what:
        case "nan":
            save_file(tensors_of(UNET, lora_up__weight=torch.full((5, 4), torch.nan)), path)
        case "infinite":
            save_file(tensors_of(UNET, lora_up__weight=torch.full((5, 4), torch.inf)), path)
        case "rank zero":
            save_file(tensors_of(UNET, lora_down__weight=torch.zeros(0, 6), lora_up__weight=torch.zeros(5, 0)), path)
        case "matrices that do not fit":
            save_file(tensors_of(UNET, lora_up__weight=torch.zeros(5, 3)), path)
        case "convolution that does not fit":
            save_file(
                tensors_of(UNET, lora_down__weight=torch.zeros(4, 6, 3, 3), lora_up__weight=torch.zeros(5, 3, 1, 1)), path
            )
        case "window in both":
            save_file(
                tensors_of(UNET, lora_down__weight=torch.zeros(4, 6, 3, 3), lora_up__weight=torch.zeros(5, 4, 3, 3)), path
            )
        case "window in one":
            save_file(tensors_of(UNET, lora_down__weight=torch.zeros(4, 6, 3, 3)), path)
        case "half a layer":
            del whole[f"{UNET}.lora_up.weight"]
            save_file(whole, path)
        case "alpha with two values":
            save_file(tensors_of(UNET, alpha=torch.ones(2)), path)
        case "no layers":
            save_file({}, path)
        case "Stable Diffusion 1.5":
            save_file(tensors_of("lora_te_text_model_encoder_layers_0_self_attn_q_proj"), path)
        case "Flux":
            save_file(tensors_of("lora_unet_double_blocks_0_img_attn_proj"), path)
        case "checkpoint":
            save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(2)}, path)
        case "vae":
            save_file({"encoder.conv_in.weight": torch.zeros(2)}, path)
        case "another form":
            save_file({"unet.down_blocks.1.attn1.to_q.lora_A.weight": torch.zeros(2, 2)}, path)
        case "cut off":
            save_file(whole, path)
            path.write_bytes(path.read_bytes()[:-7])
        case "cut off in its header":
            save_file(whole, path)
            path.write_bytes(path.read_bytes()[:40])
        case "pickle":
            path.write_bytes(pickle.dumps({"lora": [1.0]}))
        case "torch file":
            torch.save(whole, path)
        case "huge header":
            path.write_bytes(struct.pack("<Q", 2**40) + b"{}")
        case "large header":
            path.write_bytes(struct.pack("<Q", 50_000_000) + b" " * 50_000_000)
        case "header that is no JSON":
            path.write_bytes(struct.pack("<Q", 8) + b"{'a': 1}")
        case "header that is no table":
            path.write_bytes(struct.pack("<Q", 8) + b"[1, 2]  ")
        case "header of brackets":
            path.write_bytes(struct.pack("<Q", 100_000) + b"[" * 100_000)
        case "metadata that is no text":
            path.write_bytes(struct.pack("<Q", 24) + b'{"__metadata__": [1, 2]}')
        case "layers outside the file":
            entry = {f"{UNET}.alpha": {"dtype": "F32", "shape": [], "data_offsets": [0, 4000]}}
            text = json.dumps(entry).encode()
            path.write_bytes(struct.pack("<Q", len(text)) + text + b"1234")
        case "empty":
            path.touch()
        case "text":
            path.write_text("This is a letter.")
        case "folder":
            path.mkdir()
        case "missing":
            pass
        case _:
            raise AssertionError(what)


REFUSED = {
    "nan": "not numbers", "infinite": "not numbers", "rank zero": "", "matrices that do not fit": "do not fit",
    "convolution that does not fit": "do not fit", "window in both": "do not fit", "window in one": "do not fit",
    "half a layer": "lacks one of its two matrices", "alpha with two values": "", "no layers": "no LoRA layers",
    "Stable Diffusion 1.5": "Stable Diffusion 1.5", "Flux": "Flux", "checkpoint": "whole checkpoint", "vae": "VAE",
    "another form": "form that is not read here", "cut off": "again", "cut off in its header": "again", "pickle": "pickle",
    "torch file": "pickle", "huge header": "again", "large header": "again", "header that is no JSON": "again",
    "header that is no table": "not a safetensors file", "header of brackets": "again", "metadata that is no text": "",
    "layers outside the file": "again", "empty": "again", "text": "again",
    "folder": "is a folder", "missing": "There is no file",
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_used_is_refused_in_a_sentence(tmp_path: Path, what: str) -> None:
    path = tmp_path / "given.safetensors"
    a_file(path, what)
    with pytest.raises(LoraFileError) as caught:
        LoraFile.read(path)
    sentence = str(caught.value)
    assert "given.safetensors" in sentence
    assert REFUSED[what] in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_a_flux_lora_is_called_one(tmp_path: Path) -> None:
    a_file(tmp_path / "given.safetensors", "Flux")
    with pytest.raises(LoraFileError, match="LoRA for Flux"):
        LoraFile.read(tmp_path / "given.safetensors")


# Writing and telling ----------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_older_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "style.safetensors"
    write(path, {UNET: factors()}, {})
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        write(path, {UNET: factors(seed=1)}, {})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["style.safetensors"]


def test_summary_tells_what_the_file_holds(tmp_path: Path) -> None:
    layers = {UNET: factors(rank=4, alpha=3.0), TE1: factors(rank=2, alpha=3.0), CONV: windows(rank=2)}
    write(tmp_path / "style.safetensors", layers, {"modelspec.title": "Glass"})
    told = summary(LoraFile.read(tmp_path / "style.safetensors"))
    assert told["modules"] == {"unet": 2, "te1": 1, "te2": 0}
    assert told["ranks"] == {"2": 2, "4": 1}
    assert told["alphas"] == {"3": 3}
    assert told["title"] == "Glass"
    json.dumps(told)
