"""What a LoRA file tells about its training, in the words that other tools read."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import save_dataset, short_run
from trainer.bases.fingerprint import fingerprint, recall
from trainer.bases.origin import Identity, Origin
from trainer.bases.source import facts_of
from trainer.data.dataset import Dataset
from trainer.errors import LoraFileError
from trainer.home import Home
from trainer.tensorfile import read_header
from trainer.training.loop import train
from trainer.training.metadata import describe
from trainer.training.plan import Plan

BASE = Origin("name/model", "pony", "epsilon", False, Identity("a" * 64, "b" * 64, "12345678"))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return save_dataset(tmp_path / "glass windows")


def told(dataset: Path, tmp_path: Path, origin: Origin = BASE, **settings: Any) -> dict[str, str]:
    run = short_run(tmp_path / "my style", dataset, Path("name/model"), trigger="glassy", **settings)
    plan = Plan.of(Dataset.open(dataset), run.settings)
    return describe(run, plan, origin, step=3)


def test_everything_is_text(dataset: Path, tmp_path: Path) -> None:
    assert all(isinstance(text, str) and text for text in told(dataset, tmp_path).values())


def test_other_tools_know_it_for_an_sdxl_lora(dataset: Path, tmp_path: Path) -> None:
    texts = told(dataset, tmp_path)
    assert texts["ss_base_model_version"] == "sdxl_base_v1-0"
    assert texts["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert texts["ss_network_module"] == "networks.lora"


def test_it_names_its_title_trigger_rank_and_alpha(dataset: Path, tmp_path: Path) -> None:
    texts = told(dataset, tmp_path)
    assert texts["modelspec.title"] == texts["ss_output_name"] == "my-style"
    assert texts["modelspec.trigger_phrase"] == "glassy"
    assert (float(texts["ss_network_dim"]), float(texts["ss_network_alpha"])) == (4, 2.0)
    assert texts["ss_steps"] == "3"


def test_it_counts_the_captions_tags(dataset: Path, tmp_path: Path) -> None:
    tags = json.loads(told(dataset, tmp_path)["ss_tag_frequency"])
    assert tags["glass windows"]["on paper"] == 4
    assert tags["glass windows"]["a picture of number 2"] == 1


def test_it_tells_how_captions_and_pictures_were_varied(dataset: Path, tmp_path: Path) -> None:
    names = ("ss_shuffle_caption", "ss_keep_tokens", "ss_caption_tag_dropout_rate", "ss_flip_aug")
    assert not set(names) & told(dataset, tmp_path / "plain").keys()
    texts = told(dataset, tmp_path, shuffle_tags=True, keep_tags=2, tag_dropout=0.1, flip=True)
    assert [texts[name] for name in names] == ["True", "2", "0.1", "True"]


def test_the_date_is_one(dataset: Path, tmp_path: Path) -> None:
    assert datetime.fromisoformat(told(dataset, tmp_path)["modelspec.date"]).tzinfo is not None


def test_it_tells_all_that_is_known_of_its_base(dataset: Path, tmp_path: Path) -> None:
    noob = Origin("noob", "noobai", "v_prediction", True, BASE.identity)
    for base in (BASE, noob):
        texts = told(dataset, tmp_path, base)
        assert Origin.told_by(texts) == base
        shutil.rmtree(tmp_path / "my style")
    assert texts["modelspec.prediction_type"] == "v"
    assert (texts["ss_v2"], texts["ss_zero_terminal_snr"]) == ("False", "True")


def test_nothing_in_it_makes_diffusers_refuse_the_file(dataset: Path, tmp_path: Path) -> None:
    assert "lora_adapter_metadata" not in told(dataset, tmp_path)


def test_a_lora_for_the_starter_says_so_and_is_not_taken_for_sdxls(dataset: Path, tmp_path: Path) -> None:
    texts = told(dataset, tmp_path, Origin("starter", "starter", "epsilon"))
    assert texts["ss_base_model_version"] == "impasto_starter"
    assert "stable-diffusion-xl" not in texts["modelspec.architecture"]
    assert "starter" in texts["modelspec.usage_hint"]


def test_where_the_base_lies_on_this_machine_is_nobodys_business(dataset: Path, tmp_path: Path, toy_base: Path) -> None:
    texts = told(dataset, tmp_path, Origin.of(facts_of(str(toy_base))))
    assert texts["ss_sd_model_name"] == toy_base.name
    assert not any(str(toy_base.parent) in text or str(tmp_path) in text for text in texts.values())


def test_a_trained_lora_tells_by_what_its_base_is_known(dataset: Path, tmp_path: Path, toy_base: Path, home: Home) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, steps=1)
    list(train(run, home))
    texts = read_header(run.lora, LoraFileError).metadata
    assert texts["impasto.base_fingerprint"] == fingerprint(toy_base)
    assert (texts["impasto.base_family"], texts["ss_sd_model_hash"]) == ("sdxl", "IsADirectory")
    assert recall(toy_base, home.cache) == Origin.told_by(texts).identity
