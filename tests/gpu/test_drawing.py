"""Drawing on a card: parts that come and go, tiles, memory. Skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from tests.preview.test_previewer import save_lora
from trainer.home import shipped
from trainer.preview import previewer as module
from trainer.preview.previewer import Previewer
from trainer.recipe import LoraChoice, Request
from trainer.sdxl import vae
from trainer.sdxl.base import load_base
from trainer.sdxl.vae import decode, encode, needed_bytes

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")]

CPU, CARD = torch.device("cpu"), torch.device("cuda")
ASKED = Request(prompt="a (red:1.2) house, on grass", seed=3, steps=4, cfg=4.0, width=128, height=128, negative="a dog")


@pytest.fixture(params=[False, True], ids=["roomy", "short"])
def drawing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Previewer]:
    if request.param:
        monkeypatch.setattr(module, "free_bytes", lambda _: 0)
    yield Previewer(load_base("starter", CPU, torch.float16), CARD)
    torch.cuda.empty_cache()


def test_only_the_unet_stays_on_a_short_card(drawing: Previewer, request: pytest.FixtureRequest) -> None:
    drawing.picture(ASKED)
    base, home = drawing.base, "cpu" if "short" in request.node.callspec.id else "cuda"
    assert base.unet.device.type == "cuda"
    assert {model.device.type for model in (base.te1, base.te2, base.vae)} == {home}


def test_a_short_card_draws_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = np.asarray(Previewer(load_base("starter", CARD, torch.float16)).picture(ASKED), dtype=int)
    monkeypatch.setattr(module, "free_bytes", lambda _: 0)
    got = np.asarray(Previewer(load_base("starter", CPU, torch.float16), CARD).picture(ASKED), dtype=int)
    assert abs(got - expected).max() <= 1


def test_weight_zero_restores_every_bit_after_journeys(drawing: Previewer, tmp_path: Path) -> None:
    lora = save_lora(Path(str(shipped("assets", "starter"))), tmp_path / "style.safetensors")
    models = (drawing.base.unet, drawing.base.te1, drawing.base.te2)
    before = [weight.detach().cpu().clone() for model in models for weight in model.parameters()]
    for strength in (1.0, 0.5, 0.0):
        drawing.picture(replace(ASKED, loras=(LoraChoice(lora, strength, strength),)))
        after = [weight.detach().cpu() for model in models for weight in model.parameters()]
        assert all(map(torch.equal, before, after)) is (strength == 0)


def test_sdxls_vae_takes_the_memory_that_is_counted_on_and_tiles_take_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights of the true sizes; within what is counted on, whole at 1024 px and in tiles of 512."""
    torch.manual_seed(0)
    config = AutoencoderKL.load_config(shipped("assets", "sdxl", "vae"))
    model = AutoencoderKL.from_config(config).to(CARD).eval().requires_grad_(False)
    latents, pixels = torch.randn(1, 4, 128, 128, device=CARD), torch.rand(1, 3, 1024, 1024, device=CARD) * 2 - 1
    for side in (1024, 512):
        need = needed_bytes(model, side, side)
        monkeypatch.setattr(vae, "free_bytes", lambda _, need=need: need)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        decode(model, latents)
        encode(model, pixels)
        taken = torch.cuda.max_memory_allocated() - before
        assert 0.4 * need < taken <= need + 64 * 2**20
