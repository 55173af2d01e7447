"""What a LoRA file tells about its training, in the words that other tools read."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from tests.tiny import save_dataset, short_run
from trainer.data.dataset import Dataset
from trainer.settings import Family
from trainer.training.metadata import describe
from trainer.training.plan import Plan


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return save_dataset(tmp_path / "glass windows")


def told(
    dataset: Path, tmp_path: Path, family: Family = "sdxl", base: str = "name/model", prediction: str = "epsilon"
) -> dict[str, str]:
    run = short_run(tmp_path / "my style", dataset, Path(base), trigger="glassy")
    plan = Plan.of(Dataset.open(dataset), run.settings)
    version = "impasto_starter" if family == "starter" else "sdxl_base_v1-0"
    return describe(run, plan, family, version, prediction, step=3)


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


def test_the_date_is_one(dataset: Path, tmp_path: Path) -> None:
    assert datetime.fromisoformat(told(dataset, tmp_path)["modelspec.date"]).tzinfo is not None


@pytest.mark.parametrize(("prediction", "word"), [("epsilon", "epsilon"), ("v_prediction", "v")])
def test_the_prediction_is_named(dataset: Path, tmp_path: Path, prediction: str, word: str) -> None:
    assert told(dataset, tmp_path, prediction=prediction)["modelspec.prediction_type"] == word


def test_nothing_in_it_makes_diffusers_refuse_the_file(dataset: Path, tmp_path: Path) -> None:
    assert "lora_adapter_metadata" not in told(dataset, tmp_path)


def test_a_lora_for_the_starter_says_so_and_is_not_taken_for_sdxls(dataset: Path, tmp_path: Path) -> None:
    texts = told(dataset, tmp_path, family="starter")
    assert texts["ss_base_model_version"] == "impasto_starter"
    assert "stable-diffusion-xl" not in texts["modelspec.architecture"]
    assert "starter" in texts["modelspec.usage_hint"]


def test_a_hub_id_is_named_whole(dataset: Path, tmp_path: Path) -> None:
    assert told(dataset, tmp_path, base="name/model")["ss_sd_model_name"] == "name/model"


def test_where_the_base_lies_on_this_machine_is_nobodys_business(dataset: Path, tmp_path: Path, toy_base: Path) -> None:
    texts = told(dataset, tmp_path, base=str(toy_base))
    assert texts["ss_sd_model_name"] == toy_base.name
    assert not any(str(toy_base.parent) in text or str(tmp_path) in text for text in texts.values())
