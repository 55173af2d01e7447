"""Which files of a diffusers folder are taken, from their names alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.bases.layout import missing, names_in, needed, refusal, weights

CONFIGS = [
    "model_index.json", "scheduler/scheduler_config.json",
    *(f"{part}/config.json" for part in ("unet", "vae", "text_encoder", "text_encoder_2")),
    *(f"{part}/{name}" for part in ("tokenizer", "tokenizer_2") for name in ("vocab.json", "merges.txt")),
]  # fmt: skip
PLAIN = [
    "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors", "text_encoder_2/model.safetensors",
]  # fmt: skip
UNET = "unet/diffusion_pytorch_model"


def test_a_whole_base_lacks_nothing_and_what_else_is_there_is_not_needed() -> None:
    beside = ["README.md", "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.non_ema.safetensors",
              "text_encoder/flax_model.msgpack", "vae_1_0/config.json", "safety_checker/config.json"]  # fmt: skip
    assert missing([*CONFIGS, *PLAIN, *beside]) == []
    assert sorted(needed([*CONFIGS, *PLAIN, *beside])) == sorted([*CONFIGS, *PLAIN])


@pytest.mark.parametrize("gone", [*CONFIGS, *PLAIN])
def test_every_one_of_them_is_missed(gone: str) -> None:
    lacking = missing([name for name in (*CONFIGS, *PLAIN) if name != gone])
    assert lacking == [gone.replace("merges.txt", "vocab.json")]


def test_a_tokenizer_may_be_one_file() -> None:
    names = [name for name in (*CONFIGS, *PLAIN) if not name.startswith("tokenizer/")]
    assert missing([*names, "tokenizer/tokenizer.json"]) == []


@pytest.mark.parametrize(
    ("files", "taken"),
    [
        ([".safetensors"], [".safetensors"]),
        ([".safetensors", ".fp16.safetensors"], [".fp16.safetensors"]),
        ([".bin", ".fp16.bin"], []),
        (
            ["-00001-of-00002.safetensors", "-00002-of-00002.safetensors", ".safetensors.index.json"],
            [".safetensors.index.json", "-00001-of-00002.safetensors", "-00002-of-00002.safetensors"],
        ),
        (
            [".fp16-00001-of-00001.safetensors", ".safetensors.index.fp16.json", ".safetensors"],
            [".safetensors.index.fp16.json", ".fp16-00001-of-00001.safetensors"],
        ),
        (["-00001-of-00002.safetensors", ".safetensors.index.json"], []),
        (["-00001-of-00001.safetensors"], []),
        ([".fp16-00001-of-00002.safetensors", ".safetensors.index.fp16.json", ".safetensors"], [".safetensors"]),
    ],
)
def test_one_variant_is_taken_and_only_if_it_is_whole(files: list[str], taken: list[str]) -> None:
    assert weights([UNET + file for file in files], "unet") == tuple(UNET + file for file in taken)


def test_a_folder_is_listed_as_the_hub_lists_it(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "README.md").write_text("", encoding="utf-8")
    assert names_in(tmp_path) == {"unet/config.json", "README.md"}
    assert names_in(tmp_path / "nowhere") == set()


def test_an_sdxl_base_is_not_refused() -> None:
    unet = {"in_channels": 4, "addition_embed_type": "text_time"}
    assert refusal({"text_encoder": ["transformers", "CLIPTextModel"]}, unet) == ""
    assert refusal({}, unet) == "", "model_index.json is not there, and says nothing"
    assert "refiner" in refusal({"text_encoder": [None, None]}, unet)
