"""What lists tell: as the layers themselves tell it, and quickly."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.lora.test_contents import UNET, header, shapes, sparse
from trainer.errors import LoraFileError
from trainer.lora.facts import facts_of
from trainer.lora.file import LoraFile


def test_a_file_is_told_of_by_its_header(tmp_path: Path) -> None:
    texts = {"modelspec.title": 'Gl"ass', "modelspec.trigger_phrase": "gläsern", "ss_base_model_version": "sdxl_base_v1-0"}
    head, size = header(shapes(32), texts)
    assert size > 100_000_000
    facts = facts_of(sparse(tmp_path / "glass.safetensors", head, size))
    assert (facts.name, facts.title, facts.trigger, facts.base) == ("glass", 'Gl"ass', "gläsern", "sdxl_base_v1-0")
    assert facts.size == len(head) + size
    assert (facts.kinds, facts.ranks) == (("lora",), (32,))


CONV = "lora_unet_input_blocks_4_0_in_layers_2"
PATH = "unet.down_blocks.1.attentions.0.proj_in"
KINDS: dict[str, dict[str, tuple[int, ...]]] = {
    "lora": {f"{UNET}.lora_down.weight": (2, 4), f"{UNET}.lora_up.weight": (5, 2)},
    "PEFT": {f"{PATH}.lora_A.weight": (2, 4), f"{PATH}.lora_B.weight": (5, 2)},
    "diffusers": {f"{PATH}.lora.down.weight": (2, 4), f"{PATH}.lora.up.weight": (5, 2)},
    "old diffusers": {f"{PATH}_lora.down.weight": (2, 4), f"{PATH}_lora.up.weight": (5, 2)},
    "locon": {f"{CONV}.lora_down.weight": (3, 4, 3, 3), f"{CONV}.lora_up.weight": (5, 3, 1, 1)},
    "loha": {f"{UNET}.hada_w{one}_{side}": (4, 2) if side == "a" else (2, 5) for one in (1, 2) for side in "ab"},
    "lokr": {f"{UNET}.lokr_w1": (2, 2), f"{UNET}.lokr_w2_a": (2, 7), f"{UNET}.lokr_w2_b": (7, 2)},
    "lokr whole": {f"{UNET}.lokr_w1": (2, 2), f"{UNET}.lokr_w2": (2, 7)},
    "full": {f"{UNET}.diff": (2, 2)},
}


@pytest.mark.parametrize("what", KINDS)
def test_kind_and_rank_are_those_of_the_layer(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.safetensors"
    save_file({key: torch.ones(shape) for key, shape in KINDS[what].items()}, path)
    (layer,) = LoraFile.read(path).layers.values()
    facts = facts_of(path)
    assert facts.kinds == (layer.kind,)
    assert facts.ranks == ((layer.rank,) if layer.rank else ())


def test_a_dora_is_told_of_with_the_kind_that_it_is_made_of(tmp_path: Path) -> None:
    save_file(
        {key: torch.ones(shape) for key, shape in {**KINDS["lora"], f"{UNET}.dora_scale": (5, 1)}.items()}, tmp_path / "a"
    )
    assert facts_of(tmp_path / "a").kinds == ("dora", "lora")


def test_what_is_no_safetensors_file_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_text("This is a letter.")
    with pytest.raises(LoraFileError, match="not a safetensors file"):
        facts_of(tmp_path / "a.safetensors")


def test_a_header_that_is_made_to_be_slow_is_not(tmp_path: Path) -> None:
    text = b'{"a' + b'lora_down.weight":{' * 50_000 + b'"}'
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    start = time.process_time()
    assert facts_of(tmp_path / "a.safetensors").ranks == ()
    assert time.process_time() - start <= 0.5


LIST = """
import sys, time
from pathlib import Path
start = time.process_time()
from trainer.lora.facts import facts_of
sizes = [facts_of(path).size for path in Path(sys.argv[1]).iterdir()]
print(len(sizes), min(sizes), time.process_time() - start, "torch" in sys.modules)
"""


def test_500_loras_of_100_mb_are_listed_in_two_seconds(tmp_path: Path) -> None:
    head, size = header(shapes(32))
    for number in range(500):
        sparse(tmp_path / f"{number:03d}.safetensors", head, size)
    told = subprocess.run([sys.executable, "-c", LIST, str(tmp_path)], capture_output=True, text=True, check=True)
    count, smallest, seconds, torch_is_there = told.stdout.split()
    assert (int(count), torch_is_there) == (500, "False")
    assert int(smallest) > 100_000_000
    assert float(seconds) <= 2
