"""Loading a base, and what is said of one that cannot be loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.tiny import starter_like
from trainer.errors import BaseModelError
from trainer.sdxl.base import Base, load_base

CPU = torch.device("cpu")


def loaded(folder: Path) -> Base:
    return load_base(str(folder), CPU, torch.float32)


@pytest.fixture
def copy(toy_base: Path, tmp_path: Path) -> Path:
    """A base to be spoilt."""
    return Path(shutil.copytree(toy_base, tmp_path / "copy"))


def test_the_models_are_frozen_and_quiet(toy_base: Path) -> None:
    base = loaded(toy_base)
    models = [*base.parts.values(), base.vae]
    assert not any(parameter.requires_grad for model in models for parameter in model.parameters())
    assert not any(model.training for model in models)


def test_what_is_told_of_an_sdxl_base(toy_base: Path) -> None:
    base = loaded(toy_base)
    assert (base.family, base.version, base.prediction, base.resolution) == ("sdxl", "sdxl_base_v1-0", "epsilon", 64)


def test_the_starters_family_names_itself_in_files(toy_base: Path, tmp_path: Path) -> None:
    base = loaded(starter_like(toy_base, tmp_path / "copy"))
    assert (base.family, base.version) == ("starter", "impasto_starter")


def test_v_prediction_is_read_from_the_scheduler(copy: Path) -> None:
    path = copy / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "v_prediction"}))
    assert loaded(copy).prediction == "v_prediction"


def test_only_the_vae_keeps_float32(toy_base: Path) -> None:
    base = load_base(str(toy_base), CPU, torch.bfloat16)
    assert {base.unet.dtype, base.te1.dtype, base.te2.dtype} == {torch.bfloat16}
    assert base.vae.dtype == torch.float32


def test_encoding_gives_the_scaled_posterior(toy_base: Path) -> None:
    base, pixels = loaded(toy_base), torch.rand(2, 3, 64, 96) * 2 - 1
    mean, deviation = base.encode(pixels)
    with torch.no_grad():
        posterior = base.vae.encode(pixels).latent_dist
    assert mean.shape == (2, 4, 8, 12)
    torch.testing.assert_close(mean / 0.13025, posterior.mean)
    torch.testing.assert_close(deviation / 0.13025, posterior.logvar.mul(0.5).exp())


def test_the_vaes_fingerprint_is_of_its_weights(toy_base: Path) -> None:
    one, same = loaded(toy_base), loaded(toy_base)
    with torch.no_grad():
        next(same.vae.parameters()).view(-1)[0] += 1e-3
    other = same.vae_fingerprint
    assert one.vae_fingerprint == loaded(toy_base).vae_fingerprint
    assert one.vae_fingerprint != other


@pytest.mark.parametrize("encoder", ["te1", "te2"])
def test_the_texts_fingerprint_is_of_both_encoders(toy_base: Path, encoder: str) -> None:
    one, same = loaded(toy_base), loaded(toy_base)
    with torch.no_grad():
        next(getattr(same, encoder).parameters()).view(-1)[0] += 1e-3
    assert one.text_fingerprint == loaded(toy_base).text_fingerprint
    assert one.text_fingerprint != same.text_fingerprint


def test_the_texts_fingerprint_is_of_their_type_and_tokenizers(toy_base: Path) -> None:
    one, other = loaded(toy_base), loaded(toy_base)
    other.tokenizer2.pad_token = "<|endoftext|>"
    half = load_base(str(toy_base), CPU, torch.bfloat16)
    packed = load_base(str(toy_base), CPU, torch.bfloat16, "int8")
    assert len({base.text_fingerprint for base in (one, other, half, packed)}) == 4


def spoil(folder: Path, how: str) -> None:
    """Make a base that cannot be loaded."""
    match how:
        case "no weights":
            (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
        case "weights cut off":
            path = folder / "unet" / "diffusion_pytorch_model.safetensors"
            path.write_bytes(path.read_bytes()[:-100])
        case "text weights cut off":
            path = folder / "text_encoder_2" / "model.safetensors"
            path.write_bytes(path.read_bytes()[:1000])
        case "no vae":
            shutil.rmtree(folder / "vae")
        case "no text encoder":
            shutil.rmtree(folder / "text_encoder_2")
        case "no tokenizer":
            shutil.rmtree(folder / "tokenizer")
        case "no scheduler":
            shutil.rmtree(folder / "scheduler")
        case "damaged config":
            (folder / "unet" / "config.json").write_text('{"in_channels": ')
        case "weights of another size":
            path = folder / "unet" / "config.json"
            path.write_text(path.read_text().replace('"addition_time_embed_dim": 8', '"addition_time_embed_dim": 16').replace(
                '"projection_class_embeddings_input_dim": 72', '"projection_class_embeddings_input_dim": 120'))  # fmt: skip
        case _:
            raise AssertionError(how)


@pytest.mark.parametrize(
    "how",
    [
        "no weights", "weights cut off", "text weights cut off", "no vae", "no text encoder", "no tokenizer", "no scheduler",
        "damaged config", "weights of another size",
    ],
)  # fmt: skip
def test_a_base_that_cannot_be_loaded_is_told_of_in_a_sentence(copy: Path, how: str) -> None:
    spoil(copy, how)
    with pytest.raises(BaseModelError, match=r"missing or damaged|is damaged|is not whole") as caught:
        loaded(copy)
    assert "\n" not in str(caught.value)


def test_a_base_of_another_kind_is_refused(copy: Path) -> None:
    from diffusers import UNet2DConditionModel

    UNet2DConditionModel(
        block_out_channels=(8, 8), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), norm_num_groups=4,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=8, attention_head_dim=4, layers_per_block=1,
    ).save_pretrained(copy / "unet")  # fmt: skip
    with pytest.raises(BaseModelError, match="is not SDXL but a model for"):
        loaded(copy)


def test_a_hub_id_that_cannot_be_reached_is_told_of() -> None:
    with pytest.raises(BaseModelError, match="nobody/nothing"):
        load_base("nobody/nothing", CPU, torch.float32)
