"""What a file is, told from its header alone: an SDXL base, or one of many others, refused by name."""

from __future__ import annotations

import json
import pickle
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests import checkpoint
from trainer.bases.source import facts_of
from trainer.errors import BaseModelError

Table = dict[str, tuple[int, ...]]


def write_header(path: Path, shapes: Table, dtype: str = "F16") -> Path:
    """A safetensors file whose tensors are a hole in the disk: to read one would give zeros, at no cost in space."""
    table, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * torch.Size(shape).numel()
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(table).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


def without(table: Table, *starts: str) -> Table:
    return {name: shape for name, shape in table.items() if not name.startswith(starts)}


def renamed(table: Table, start: str, new: str) -> Table:
    return {new + name.removeprefix(start) if name.startswith(start) else name: shape for name, shape in table.items()}


UNET, VAE, TE1, TE2 = (
    "model.diffusion_model.", "first_stage_model.", "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model.",
)  # fmt: skip


def refiner(table: Table) -> Table:
    found = renamed(without(table, TE1), TE2, "conditioner.embedders.0.model.")
    return {**found, f"{UNET}label_emb.0.0.weight": (1536, 2560), f"{UNET}input_blocks.0.0.weight": (384, 4, 3, 3)}


def inpainting(table: Table) -> Table:
    return {**table, f"{UNET}input_blocks.0.0.weight": (320, 9, 3, 3)}


def sd1(table: Table) -> Table:
    found = {name: shape for name, shape in without(table, "conditioner.").items() if "label_emb" not in name}
    query = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    return {**found, query: (320, 768), "cond_stage_model.transformer.text_model.final_layer_norm.weight": (768,)}


def sd2(table: Table) -> Table:
    found = {name: shape for name, shape in without(table, "conditioner.").items() if "label_emb" not in name}
    query = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    return {**found, query: (320, 1024), "cond_stage_model.model.ln_final.weight": (1024,)}


def only(*names: str) -> Callable[[Table], Table]:
    return lambda _: dict.fromkeys(names, (16, 16))


def part(start: str) -> Callable[[Table], Table]:
    return lambda table: {name: shape for name, shape in table.items() if name.startswith(start)}


KINDS: dict[str, tuple[Callable[[Table], Table], str]] = {
    "refiner": (refiner, "the SDXL refiner"),
    "inpainting": (inpainting, "inpainting"),
    "sd1": (sd1, "Stable Diffusion 1.x"),
    "sd2": (sd2, "Stable Diffusion 2.x"),
    "sd3": (only("model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight"), "Stable Diffusion 3"),
    "flux": (only("double_blocks.0.img_attn.qkv.weight"), "a Flux model"),
    "flux in a checkpoint": (only("model.diffusion_model.single_blocks.0.linear1.weight"), "a Flux model"),
    "lora of kohya": (only("lora_unet_input_blocks_4_1_proj_in.lora_down.weight"), "a LoRA"),
    "lora of diffusers": (only("unet.down_blocks.1.attentions.0.proj_in.lora_A.weight"), "a LoRA"),
    "lokr": (only("lora_unet_input_blocks_4_1_proj_in.lokr_w1"), "a LoRA"),
    "vae of sdxl": (part(VAE), "a VAE"),
    "vae alone": (only("encoder.down.0.block.0.conv1.weight", "decoder.up.0.block.0.conv1.weight"), "a VAE"),
    "unet alone": (part(UNET), "without its text encoders"),
    "no vae": (lambda table: without(table, VAE), "without its VAE"),
    "text encoder": (only("text_model.encoder.layers.0.mlp.fc1.weight"), "a text encoder alone"),
    "unet of a folder": (only("down_blocks.0.resnets.0.conv1.weight", "conv_in.weight"), "part of a diffusers folder"),
    "controlnet": (only("controlnet_cond_embedding.conv_in.weight", "down_blocks.0.resnets.0.conv1.weight"), "a ControlNet"),
    "embedding": (only("clip_g", "clip_l"), "an embedding"),
    "something": (only("layer.weight"), "a model that Impasto does not know"),
}


def refused(path: Path) -> str:
    with pytest.raises(BaseModelError) as caught:
        facts_of(str(path))
    return str(caught.value)


def is_a_sentence(text: str, path: Path) -> bool:
    """It names the file, ends, and is one line with something to do in it."""
    return path.name in text and text.endswith(".") and "\n" not in text and (":" in text or "Download" in text)


@pytest.mark.parametrize("name", KINDS)
def test_each_other_kind_is_refused_by_name(name: str, tmp_path: Path) -> None:
    make, what = KINDS[name]
    path = write_header(tmp_path / "model.safetensors", make(checkpoint.narrow_shapes()))
    sentence = refused(path)
    assert what in sentence
    assert "choose" in sentence
    assert is_a_sentence(sentence, path)


def test_eight_bits_are_refused(tmp_path: Path) -> None:
    path = write_header(tmp_path / "fp8.safetensors", checkpoint.narrow_shapes(), "F8_E4M3")
    assert "8 bits" in refused(path)


def content(name: str) -> bytes:
    match name:
        case "pickle":
            return pickle.dumps({"state_dict": list(range(1000))})
        case "torch file":
            return b"PK\x03\x04" + bytes(4000)
        case "web page":
            return b"<!DOCTYPE html><html><body>Please log in</body></html>" * 100
        case "pointer":
            return b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 6938040682\n"
        case "gguf":
            return b"GGUF\x03\x00\x00\x00" + bytes(100)
        case "png":
            return b"\x89PNG\r\n\x1a\n" + bytes(100)
        case "jpeg":
            return b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(100)
        case "webp":
            return b"RIFF\x24\x00\x00\x00WEBPVP8 " + bytes(100)
        case "empty":
            return b""
        case _:
            return bytes(range(256)) * 16


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("pickle", "is a pickle"), ("torch file", "is a pickle"), ("web page", "web page"), ("pointer", "git LFS"),
        ("gguf", "GGUF"), ("empty", "is empty"), ("noise", "not a safetensors file"),
        *((name, "is a picture: choose a .safetensors file") for name in ("png", "jpeg", "webp")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_what_is_no_safetensors_file_is_told_by_its_content(name: str, what: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content(name))
    sentence = refused(path)
    assert what in sentence
    assert is_a_sentence(sentence, path)


def test_a_download_that_was_cut_off_is_told_of(tmp_path: Path) -> None:
    path = write_header(tmp_path / "half.safetensors", checkpoint.narrow_shapes())
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    sentence = refused(path)
    assert "is cut off" in sentence
    assert is_a_sentence(sentence, path)


def read_bytes_of(path: Path, work: Callable[[], object]) -> int:
    """How much of a file is read while `work` goes on, as the system counts it (Linux only)."""
    counter = Path("/proc/self/io")
    if not counter.is_file():
        pytest.skip("the system does not count what is read")

    def count() -> int:
        return int(dict(line.split(": ") for line in counter.read_text().splitlines())["rchar"])

    before = count()
    work()
    return count() - before


def test_a_base_of_the_true_size_is_known_from_its_header_in_an_instant(tmp_path: Path) -> None:
    path = write_header(tmp_path / "sd_xl_base_1.0.safetensors", checkpoint.golden_shapes())
    assert path.stat().st_size > 6.9e9
    assert read_bytes_of(path, lambda: facts_of(str(path))) < 2**20
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        facts_of(str(path))
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.05


def test_a_layer_cut_out_of_the_middle_is_not_the_headers_business(tmp_path: Path) -> None:
    """Completeness is checked against the configs when the file is loaded; the header decides the kind alone."""
    table = without(checkpoint.narrow_shapes(), f"{UNET}middle_block.1.proj_in.")
    assert facts_of(str(write_header(tmp_path / "a.safetensors", table))).family == "sdxl"
