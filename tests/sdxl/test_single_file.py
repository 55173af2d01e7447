"""A base as a single file: with SDXL's true names, offline, it draws what the same weights draw as a diffusers folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import checkpoint
from trainer.bases.source import facts_of
from trainer.preview.previewer import Previewer
from trainer.recipe import Request
from trainer.sdxl import base as module
from trainer.sdxl.base import Base, load_base
from trainer.training.diffusion import alphas_cumprod

pytestmark = pytest.mark.usefixtures("narrow")
CPU = torch.device("cpu")
REQUEST = Request(prompt="a watercolor painting of a cat", seed=3, steps=2, cfg=4.0, width=64, height=64)
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def pixels(base: Base) -> torch.Tensor:
    """What the base draws, before it is rounded to 8 bits."""
    made: list[torch.Tensor] = []
    decode = base.decode
    base.decode = lambda latents: made.append(decode(latents)) or made[-1]  # type: ignore[method-assign, func-returns-value]
    Previewer(base).picture(REQUEST)
    return made[0]


@pytest.mark.parametrize("lean", [True, False], ids=["lean", "with extras"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_picture_is_that_of_the_same_weights_as_a_folder(tmp_path: Path, configs: Path, dtype: str, lean: bool) -> None:
    state = checkpoint.tensors(DTYPES[dtype])
    folder = checkpoint.write_folder(tmp_path / "folder", state, configs)
    if lean:
        state = {name: tensor for name, tensor in state.items() if not name.endswith(checkpoint.LEFT_OUT)}
    else:
        extra = (
            "denoiser.sigmas", "model_ema.decay", "alphas_cumprod", "model_ema.diffusion_modelinput_blocks00weight",
            "first_stage_model.decoder.mid.attn_1.to_q.weight", "first_stage_model.encoder.odd", "first_stage_model.x",
            "model.diffusion_model.middle_block.7.weight", "model.diffusion_model.input_blocks.0.1.in_layers.0.weight",
            "conditioner.embedders.0.transformer.odd", "conditioner.embedders.1.model.transformer.resblocks.0.odd.weight",
        )  # fmt: skip
        state |= {name: torch.ones(3) for name in extra}
    file = checkpoint.write_file(tmp_path / "merged.safetensors", state)
    from_folder, from_file = (load_base(str(path), CPU, torch.float32) for path in (folder, file))
    wanted, got = pixels(from_folder), pixels(from_file)
    assert wanted.std() > 0.05, "the two pictures are of something"
    assert (got - wanted).abs().max() <= 1e-5
    assert from_file.scheduler["prediction_type"] == "epsilon"


@pytest.mark.parametrize(
    ("markers", "zero", "last"),
    [(("v_pred", "ztsnr"), True, 0.0), (("v_pred",), False, 0.00466)],
    ids=["zero terminal SNR", "v alone"],
)
def test_markers_decide_what_is_predicted(tmp_path: Path, markers: tuple[str, ...], zero: bool, last: float) -> None:
    state = {**checkpoint.tensors(torch.float16), **{name: torch.tensor([]) for name in markers}}
    file = checkpoint.write_file(tmp_path / "m.safetensors", state)
    assert (facts_of(str(file)).prediction, facts_of(str(file)).zero_terminal_snr) == ("v_prediction", zero)
    base = load_base(str(file), CPU, torch.float32)
    assert base.prediction == base.scheduler["prediction_type"] == "v_prediction"
    assert base.scheduler["timestep_spacing"] == ("trailing" if zero else "leading")
    assert float(alphas_cumprod(base.scheduler)[-1]) == pytest.approx(last, abs=1e-5)
    assert pixels(base).isfinite().all()


WITHOUT_A_ROUTE = """
import socket, sys
def refuse(*_, **__): raise AssertionError("the network was asked")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
from pathlib import Path
import torch
from trainer.bases import source
from trainer.sdxl.base import load_base
source.CONFIGS = Path(sys.argv[2])
base = load_base(sys.argv[1], torch.device("cpu"), torch.float32)
ids = [tokenizer("a watercolor painting of a cat", padding="max_length", max_length=10).input_ids
       for tokenizer in (base.tokenizer1, base.tokenizer2)]
print(ids)
"""


def test_a_file_loads_with_no_network_and_the_true_token_ids(tmp_path: Path, configs: Path) -> None:
    file = checkpoint.write_file(tmp_path / "a.safetensors", checkpoint.tensors(torch.float16))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}
    root = Path(module.__file__).parents[2]
    command = [sys.executable, "-c", WITHOUT_A_ROUTE, str(file), str(configs)]
    told = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True).stdout
    cat = [49406, 320, 14211, 3086, 539, 320, 2368, 49407]
    assert told.strip() == str([[*cat, 49407, 49407], [*cat, 0, 0]])
