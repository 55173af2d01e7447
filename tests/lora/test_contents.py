"""What a LoRA file's header tells: every key has its place, and wrong files are cheap to refuse."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.lora.test_keys import GOLDEN
from trainer.errors import LoraFileError
from trainer.lora.contents import contents_of
from trainer.lora.file import LoraFile, summary

UNET = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
SAME = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
NORM = "diffusion_model.input_blocks.4.1.norm.diff"
"""As ComfyUI's own node names what it extracts from a checkpoint beside matrices."""
OTHER = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_k"


def plain(name: str) -> dict[str, torch.Tensor]:
    return {f"{name}.lora_down.weight": torch.ones(2, 6), f"{name}.lora_up.weight": torch.ones(5, 2)}


def test_every_key_is_used_or_left_aside_with_a_reason_or_unknown(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    strange = {
        f"{UNET}.diff_b": torch.ones(5), NORM: torch.ones(4), "bundle_emb.token.clip_l": torch.ones(1, 768),
        "lora_unet_out_2.alpha": torch.ones(()),
        "lora_te1_text_model_embeddings_token_embedding.alpha": torch.ones(()), "hello": torch.ones(1),
    }  # fmt: skip
    save_file({**plain(UNET), **plain(OTHER), **strange}, path)
    lora, contents = LoraFile.read(path), contents_of(path)
    used = {key for parts in contents.parts.values() for key in parts.values()}
    assert used == {*plain(UNET), *plain(OTHER)}
    assert set(lora.layers) == {UNET, UNET.replace("to_q", "to_k")}
    assert set(lora.ignored) == {f"{UNET}.diff_b", NORM, "bundle_emb.token.clip_l", "lora_unet_out_2.alpha"}
    assert all(lora.ignored.values())
    assert set(lora.unknown) == {"lora_te1_text_model_embeddings_token_embedding.alpha", "hello"}
    assert used | set(lora.ignored) | set(lora.unknown) == set(contents.header.tensors)
    told = summary(lora)
    assert told["kinds"] == {"lora": 2}
    assert sum(told["ignored"].values()) == 4
    assert set(told["unknown"]) == set(lora.unknown)
    json.dumps(told)


def test_of_many_unknown_keys_all_are_counted(tmp_path: Path, impasto: Any) -> None:
    save_file({**plain(UNET), **{f"hello.{number}": torch.ones(1) for number in range(30)}}, tmp_path / "a.safetensors")
    assert "unknown  and 10 more" in impasto("inspect", tmp_path / "a.safetensors").out
    assert len(summary(LoraFile.read(tmp_path / "a.safetensors"))["unknown"]) == 30


def test_numbers_of_what_is_left_aside_do_not_matter(tmp_path: Path) -> None:
    save_file({**plain(UNET), f"{UNET}.diff_b": torch.full((5,), torch.nan)}, tmp_path / "a.safetensors")
    assert list(LoraFile.read(tmp_path / "a.safetensors").layers) == [UNET]


def test_both_names_of_one_layer_in_a_file_are_refused(tmp_path: Path) -> None:
    save_file({**plain(UNET), **plain(SAME)}, tmp_path / "a.safetensors")
    with pytest.raises(LoraFileError, match=rf"^a\.safetensors cannot be used: it holds {UNET} twice"):
        LoraFile.read(tmp_path / "a.safetensors")


REFUSED = {
    "OFT": ({f"{UNET}.oft_blocks": torch.ones(2, 2, 2)}, "the kind OFT"),
    "IA3": ({f"{UNET}.weight": torch.ones(2), f"{UNET}.on_input": torch.tensor(0)}, "the kind IA3"),
    "Stable Diffusion 1.5 without text": (plain("lora_unet_down_blocks_0_attentions_0_proj_in"), "Stable Diffusion 1.5"),
    "one name of Stable Diffusion 1.5": ({**plain(UNET), **plain("lora_te_text_model_encoder_layers_0_mlp_fc1")}, "1.5"),
    "Stable Diffusion 3": (plain("lora_unet_joint_blocks_0_x_block_attn_qkv"), "Stable Diffusion 3"),
    "norms alone": ({NORM: torch.ones(4)}, "nothing in it can be mixed"),
    "biases alone": ({f"{UNET}.diff_b": torch.ones(2)}, "nothing in it can be mixed"),
    "alphas alone": ({f"{UNET}.alpha": torch.ones(())}, "no matrices"),
    "an embedding": ({"clip_l": torch.ones(1, 768), "clip_g": torch.ones(1, 1280)}, "embedding"),
    "a text encoder": ({"text_model.encoder.layers.0.mlp.fc1.weight": torch.ones(2, 2)}, "text encoder"),
    "a U-Net": ({"down_blocks.1.attentions.0.proj_in.weight": torch.ones(2, 2)}, "U-Net"),
    "whole numbers of a byte": (
        {f"{UNET}.lora_down.weight": torch.ones(2, 6, dtype=torch.uint8)},
        "type that is not read (U8)",
    ),
    "nothing known": ({"hello": torch.ones(1)}, "such as hello"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_used_is_refused_by_its_header(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, word = REFUSED[what]
    save_file(tensors, tmp_path / "a.safetensors")
    monkeypatch.setattr(torch, "frombuffer", None)
    with pytest.raises(LoraFileError, match=r"^a\.safetensors cannot be used: .*\.$") as caught:
        LoraFile.read(tmp_path / "a.safetensors")
    assert word in str(caught.value)


def test_a_tensor_that_is_not_as_large_as_its_shape_is_damage(tmp_path: Path) -> None:
    entry = {f"{UNET}.lora_down.weight": {"dtype": "F16", "shape": [100_000, 100_000], "data_offsets": [0, 4]}}
    text = json.dumps(entry).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"1234")
    with pytest.raises(LoraFileError, match="damaged"):
        LoraFile.read(tmp_path / "a.safetensors")


# Time and memory --------------------------------------------------------------------------------------------------------


def header(entries: Mapping[str, tuple[int, ...]], metadata: dict[str, str] | None = None) -> tuple[bytes, int]:
    """The header of a float16 file of these shapes, and the bytes that its tensors take."""
    table: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for key, shape in entries.items():
        begin, end = end, end + 2 * torch.Size(shape).numel()
        table[key] = {"dtype": "F16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text, end


def sparse(path: Path, head: bytes, size: int) -> Path:
    """A file that is large and takes no room."""
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
    return path


def shapes(rank: int) -> dict[str, tuple[int, ...]]:
    """A LoRA of all of SDXL's linear layers."""
    found: dict[str, tuple[int, ...]] = {}
    for name, (inward, out) in GOLDEN.items():
        found |= {f"{name}.lora_down.weight": (rank, inward), f"{name}.lora_up.weight": (out, rank), f"{name}.alpha": ()}
    return found


def wrong(folder: Path, what: str) -> Path:
    """A file that cannot be used, as large as such files are."""
    path = folder / "given.safetensors"
    foreign = {"Stable Diffusion 1.5": "lora_te_text_model_encoder_layers_{}", "Flux": "lora_unet_double_blocks_{}_img_mod_lin"}
    match what:
        case "Stable Diffusion 1.5" | "Flux":
            many = {f"{foreign[what].format(number)}.lora_down.weight": (16, 4000) for number in range(1500)}
            return sparse(path, *header(many))
        case "truncated":
            head, size = header(shapes(16))
            return sparse(path, head, size - 1)
        case "header of 2^63":
            path.write_bytes(struct.pack("<Q", 2**63) + b"{}")
        case "300,000 tensors":
            return sparse(path, *header({f"{number}.alpha": () for number in range(300_000)}))
        case "lists in lists" | "numbers in a list":
            text = b'{"a": [' + (b"[]," if "lists" in what else b"300,") * 8_000_000 + b"0]}"
            path.write_bytes(struct.pack("<Q", len(text)) + text)
        case "NaN":
            head, size = header(shapes(16))
            with sparse(path, head, size - 2).open("ab") as file:
                file.write(b"\xff\x7f")
        case "pickle":
            path.write_bytes(pickle.dumps({"lora": list(range(1_000_000))}))
        case "text":
            sparse(path, b"This is a letter.\n" * 10_000, 100_000_000)
    return path


WRONG = (
    "Stable Diffusion 1.5", "Flux", "truncated", "header of 2^63", "300,000 tensors", "lists in lists", "numbers in a list",
    "NaN", "pickle", "text",
)  # fmt: skip

MEASURE = """
import json, os, sys, time
from pathlib import Path
from trainer.errors import LoraFileError
from trainer.lora.file import LoraFile
import torch

def most():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000

torch.ones(2).aminmax()
for folder in Path(sys.argv[1]).iterdir():
    if os.fork():  # a process for each, just as it was when it had started
        os.wait()
        continue
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, start = most(), time.process_time()
    try:
        LoraFile.read(folder / "given.safetensors")
    except LoraFileError as error:
        print(json.dumps([folder.name, time.process_time() - start, most() - before, str(error)]), flush=True)
    os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process' peak of memory is asked for in another way")
def test_a_wrong_file_costs_little_time_and_memory(tmp_path: Path) -> None:
    """In a process of their own: at most half a second and 100 MB each, beyond the process as it stood before."""
    for what in WRONG:
        (tmp_path / "files" / what).mkdir(parents=True)
        wrong(tmp_path / "files" / what, what)
    measured = subprocess.run([sys.executable, "-c", MEASURE, str(tmp_path / "files")], capture_output=True, check=True)
    told = [json.loads(line) for line in measured.stdout.splitlines()]
    assert {what for what, *_ in told} == set(WRONG)
    for what, seconds, megabytes, sentence in told:
        assert sentence.startswith("given.safetensors"), what
        assert sentence.endswith("."), what
        assert seconds <= 0.5, what
        assert megabytes <= 100, what
