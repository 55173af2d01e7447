"""What a merged or resized file tells of where it comes from."""

from __future__ import annotations

import json
from pathlib import Path

from tests.lora.test_merge import LINEAR, MIX, layer, made
from trainer.lora.file import LoraFile, write
from trainer.lora.lineage import Source, model_hash, of_merge, of_resize
from trainer.lora.ways import Keep, Merging
from trainer.lora.weights import Weighted


def test_the_recipe_is_in_the_header(tmp_path: Path) -> None:
    files = [tmp_path / "glass.safetensors", tmp_path / "ink.safetensors"]
    for number, path in enumerate(files):
        texts = {"ss_base_model_version": "sdxl_base_v1-0", "ss_sd_model_name": f"base{number}", "impasto.base_family": "sdxl"}
        write(path, {LINEAR: layer(number, 2, 1.0)}, {**texts, "modelspec.trigger_phrase": f"word{number}"})
    loras = [LoraFile.read(path) for path in files]
    digests = [one.metadata["sshs_model_hash"] for one in loras]
    assert [model_hash(path) for path in files] == digests
    sources = [Source(loras[0], digests[0], 0.8, 0.4), Source(loras[1], digests[1], -0.5, -0.5)]
    how = Merging("dare", Keep(rank=4), density=0.3, seed=7, equal_strength=True)
    layers = made([Weighted(loras[0], 0.8, 0.4), Weighted(loras[1], -0.5, -0.5)])
    write(tmp_path / "both.safetensors", layers, of_merge(sources, how, "both", layers))
    told = LoraFile.read(tmp_path / "both.safetensors").metadata
    assert json.loads(told["impasto.recipe"]) == {
        "method": "dare", "rank": 4, "density": 0.3, "seed": 7, "equal_strength": True,
        "inputs": [
            {"name": "glass", "hash": digests[0], "unet": 0.8, "text": 0.4},
            {"name": "ink", "hash": digests[1], "unet": -0.5, "text": -0.5},
        ],
    }  # fmt: skip
    assert told["modelspec.merged_from"] == "glass, ink"
    assert told["modelspec.trigger_phrase"] == "word0, word1"
    assert (told["ss_base_model_version"], told["impasto.base_family"]) == ("sdxl_base_v1-0", "sdxl")
    assert "ss_sd_model_name" not in told
    assert (told["ss_network_dim"], told["ss_network_alpha"]) == ("4", "4")
    assert model_hash(tmp_path / "both.safetensors") == told["sshs_model_hash"]


def test_a_smaller_lora_tells_what_it_told_and_how_it_was_made() -> None:
    form = {"ss_network_dim": "64", "ss_network_args": "{}", "lora_adapter_metadata": "{}"}
    source = Source(LoraFile("ink", {}, {"modelspec.title": "Ink", **form}), "abc")
    layers = made(MIX, "svd", Keep(energy=0.9))
    told = of_resize(source, Merging("svd", Keep(energy=0.9)), "small", layers)
    assert (told["modelspec.title"], told["ss_network_dim"], told["ss_output_name"]) == ("Ink", "Dynamic", "small")
    assert not {"ss_network_args", "lora_adapter_metadata"} & told.keys(), "they are of the form that it had"
    assert json.loads(told["impasto.recipe"])["energy"] == 0.9
