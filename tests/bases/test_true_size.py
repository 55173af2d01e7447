"""A single file of SDXL's true size: memory and time of its loading, a picture, a step. Takes 20 GB of memory and disk."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import checkpoint, tiny

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.full, pytest.mark.skipif(sys.platform == "win32", reason="peak memory is read as Unix tells it")]


def write_true_size(path: Path) -> int:
    """A checkpoint of true shapes in bfloat16, random, written tensor by tensor; its bytes."""
    shapes = {name: shape for name, shape in checkpoint.golden_shapes().items() if not name.endswith(checkpoint.LEFT_OUT)}
    table, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * torch.Size(shape).numel()
        table[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)
    generator = torch.Generator().manual_seed(1)
    pool = torch.randn(2**24, generator=generator)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            values = pool.repeat(-(-torch.Size(shape).numel() // len(pool)))[: torch.Size(shape).numel()].view(shape)
            file.write(checkpoint.scaled(name, values).to(torch.bfloat16).view(torch.int16).numpy().tobytes())
    return path.stat().st_size


LOADED = """
import json, os, resource, sys, time
import torch
from trainer.sdxl.base import load_base
def forget():
    "The system keeps nothing of the file in memory, where it lets itself be asked."
    with open(sys.argv[1], "rb") as file:
        if hasattr(os, "posix_fadvise"): os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
def reading():
    began, buffer = time.perf_counter(), bytearray(2**24)
    with open(sys.argv[1], "rb", buffering=0) as file:
        while file.readinto(buffer): pass
    return time.perf_counter() - began
forget()
read = reading()
forget()
began = time.perf_counter()
base = load_base(sys.argv[1], torch.device("cpu"), torch.bfloat16)
made = time.perf_counter() - began
for model in base.models.values():
    for weight in model.parameters():
        weight.view(-1)[:: 2048 // weight.element_size()].float().sum()  # touches every page
loaded = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"read": read, "made": made, "loaded": loaded, "peak": peak}))
"""


def run(command: list[str], **environment: str) -> str:
    settled = {**os.environ, "HF_HUB_OFFLINE": "1", "IMPASTO_DEVICE": "cpu", **environment}
    done = subprocess.run(command, cwd=ROOT, env=settled, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_single_file_of_the_true_size(tmp_path: Path) -> None:
    file = tmp_path / "sd_xl_random.safetensors"
    size = write_true_size(file)
    told = json.loads(run([sys.executable, "-c", LOADED, str(file)]))
    print(f"\n{size / 1e9:.2f} GB; {told}; peak {told['peak'] / size:.3f} of the file")
    assert told["peak"] <= 1.15 * size
    assert told["loaded"] <= 1.5 * told["read"]

    dataset = tiny.save_dataset(tmp_path / "dataset", ((256, 256), (300, 256)))
    home, threads = str(tmp_path / "home"), str(os.cpu_count() or 1)
    impasto = [sys.executable, "-m", "trainer", "--home", home]
    settings = {"steps": 1, "resolution": 256, "sample_every": 1, "sample_steps": 2, "precision": "bf16", "rank": 4}
    given = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    out = tmp_path / "run"
    trained = run(
        [*impasto, "train", str(dataset), "--base", str(file), "--out", str(out), *given, "--json"], OMP_NUM_THREADS=threads
    )
    result = json.loads(trained)
    print(result)
    assert result["state"] == "finished"
    assert all(result["change"][part] > 0 for part in ("unet", "te1", "te2"))
    samples = sorted((out / "samples").glob("*.png"))
    assert samples, "a picture of 256 px was drawn before and after the step"
