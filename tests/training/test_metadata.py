"""What a LoRA file tells about its training, in the words that other tools read."""

from __future__ import annotations

import base64
import io
import json
import shutil
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any, get_args

import pytest
from PIL import Image

from tests.tiny import save_dataset, short_run
from trainer.bases.fingerprint import fingerprint, recall
from trainer.bases.origin import Identity, Origin
from trainer.bases.source import facts_of
from trainer.data.dataset import Dataset
from trainer.errors import LoraFileError
from trainer.home import Home
from trainer.settings import OptimizerName
from trainer.settings_text import validated
from trainer.tensorfile import read_header
from trainer.training import metadata
from trainer.training.events import Sampled, to_line
from trainer.training.loop import train
from trainer.training.metadata import describe
from trainer.training.plan import Plan
from trainer.training.shaping import SHAPING

BASE = Origin("name/model", "pony", "epsilon", False, Identity("a" * 64, "b" * 64, "12345678"))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return save_dataset(tmp_path / "glass windows")


def told(dataset: Path, tmp_path: Path, origin: Origin = BASE, **settings: Any) -> dict[str, str]:
    run = short_run(tmp_path / "my style", dataset, Path("name/model"), **{"trigger": "glassy", **settings})
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
    names = ("ss_shuffle_caption", "ss_keep_tokens", "ss_caption_tag_dropout_rate", "ss_flip_aug", "ss_random_crop")
    assert not set(names) & told(dataset, tmp_path / "plain").keys()
    texts = told(dataset, tmp_path, shuffle_tags=True, keep_tags=2, tag_dropout=0.1, flip=True, crops=3)
    assert [texts[name] for name in names] == ["True", "2", "0.1", "True", "True"]
    assert texts["impasto.crops"] == "3"


def test_it_tells_of_the_noise_in_the_fields_words(dataset: Path, tmp_path: Path) -> None:
    texts = told(dataset, tmp_path, loss="huber", huber_c=0.2, multires_noise=4, ip_noise_gamma=0.05, timestep_max=899)
    names = ("loss_type", "huber_c", "huber_schedule", "multires_noise_iterations", "multires_noise_discount", "ip_noise_gamma")
    assert [texts[f"ss_{name}"] for name in names] == ["huber", "0.2", "snr", "4", "0.3", "0.05"]
    assert texts["modelspec.timestep_range"] == "0,900"
    plain = told(dataset, tmp_path / "plain")
    assert (plain["ss_loss_type"], plain["ss_debiased_estimation"], plain["ss_min_snr_gamma"]) == ("l2", "False", "5.0")
    assert not {"ss_huber_c", "ss_ip_noise_gamma", "ss_multires_noise_discount", "modelspec.timestep_range"} & plain.keys()
    debiased = told(dataset, tmp_path / "debiased", debiased=True)
    assert (debiased["ss_debiased_estimation"], debiased["ss_min_snr_gamma"]) == ("True", "0.0"), "one goes before the other"


def test_alpha_over_dim_is_the_scale_that_a_reader_finds(dataset: Path, tmp_path: Path) -> None:
    texts = told(dataset, tmp_path, rank=16, alpha=8, rslora=True, targets="everything", conv_rank=4, lora_plus=16)
    scale = 8 / 16**0.5
    assert float(texts["ss_network_alpha"]) / float(texts["ss_network_dim"]) == pytest.approx(scale)
    arguments = json.loads(texts["ss_network_args"])
    assert float(arguments["conv_alpha"]) / float(arguments["conv_dim"]) == pytest.approx(scale)
    assert (arguments["conv_dim"], arguments["loraplus_lr_ratio"], texts["impasto.rslora"]) == ("4", "16", "True")
    assert "ss_network_args" not in told(dataset, tmp_path / "plain")


def test_it_counts_epochs_of_all_that_is_shown(dataset: Path, tmp_path: Path) -> None:
    run = short_run(tmp_path / "run", dataset, Path("name/model"), steps=40, batch=2, accumulation=3)
    plan = Plan.of(Dataset.open(dataset), run.settings)
    texts = describe(run, plan, BASE, step=10, processes=2)
    batches = int(texts["ss_num_batches_per_epoch"])
    seen = [plan.indices(micro) for micro in range(batches)]
    assert {index for indices in seen for index in indices} == set(range(len(plan.pictures)))
    assert sum(map(len, seen)) < 2 * len(plan.pictures)
    assert int(texts["ss_epoch"]) == 10 * 3 * 2 // batches
    assert int(texts["ss_num_epochs"]) == -(-40 * 3 * 2 // batches)
    assert (texts["ss_total_batch_size"], texts["ss_gradient_accumulation_steps"]) == ("12", "3")


def test_prior_and_held_out_pictures_are_counted_apart(dataset: Path, tmp_path: Path) -> None:
    prior = save_dataset(tmp_path / "others")
    run = short_run(tmp_path / "run", dataset, Path("name/model"), prior_dataset=str(prior), validation_share=0.5)
    opened = Dataset.open(dataset)
    count = len(opened.pictures)
    texts = describe(run, Plan.of(opened, run.settings, prior=Dataset.open(prior)), BASE, step=3)
    counts = {name: int(texts[f"ss_num_{name}_images"]) for name in ("train", "reg", "validation")}
    assert counts == {"train": count - count // 2, "reg": count, "validation": count // 2}
    assert (texts["ss_prior_loss_weight"], texts["ss_validation_split"]) == ("1.0", "0.5")
    assert not any(str(tmp_path) in text for text in texts.values())


OTHERWISE: dict[str, Any] = {
    "trigger": "other", "optimizer": "lion", "lr_schedule": "constant", "loss": "huber", "targets": "everything",
    "block_ranks": ("mid_block=2",), "block_rates": ("mid_block=2",), "resolutions": (96,), "timestep_sampling": "logit_normal",
    "huber_schedule": "constant", "timestep_min": 5, "timestep_max": 900, "huber_c": 0.2, "cache_text": False,
    "validation_share": 0.5, "resolution": 96, "batch": 3, "lora_plus": 16,
}  # fmt: skip
"""Another value for settings that are no plain numbers and no switches."""

WITH: dict[str, dict[str, Any]] = {
    "huber_c": {"loss": "huber"}, "huber_schedule": {"loss": "huber"}, "multires_discount": {"multires_noise": 3},
    "conv_rank": {"targets": "everything"}, "lr_cycles": {"lr_schedule": "cosine_restarts"},
}  # fmt: skip
"""What a setting needs to have an effect at all."""


def otherwise(name: str) -> Any:
    """Another value than the usual one."""
    value = validated({}).model_dump()[name]
    if name in OTHERWISE:
        return OTHERWISE[name]
    return not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else value / 2 + 0.1


@pytest.mark.parametrize("name", sorted(set(SHAPING) - {"family", "prediction", "prior_dataset", "prior_weight"}))
def test_every_setting_that_shapes_a_lora_shows_in_its_header(name: str, dataset: Path, tmp_path: Path) -> None:
    before = told(dataset, tmp_path / "before", **WITH.get(name, {}))
    after = told(dataset, tmp_path / "after", **{**WITH.get(name, {}), name: otherwise(name)})
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed - {"modelspec.date"}


def test_the_names_that_need_no_words_of_ours_are_settings() -> None:
    assert set(SHAPING) > metadata.TOLD_OTHERWISE
    assert set(metadata.OPTIMIZERS) == set(get_args(OptimizerName))


def test_the_newest_sample_is_its_small_picture(dataset: Path, tmp_path: Path) -> None:
    run = short_run(tmp_path / "run", dataset, Path("name/model"))
    plan = Plan.of(Dataset.open(dataset), run.settings)
    assert "modelspec.thumbnail" not in describe(run, plan, BASE, step=3)
    run.samples.mkdir()
    noise = Random(1)
    Image.frombytes("RGB", (640, 320), noise.randbytes(640 * 320 * 3)).save(run.samples / "2-0.png")
    events = [Sampled(step=1, prompt="a", path="gone.png"), Sampled(step=2, prompt="a", path="samples/2-0.png")]
    events.append(Sampled(step=2, prompt="b", path="samples/2-1.png"))
    run.events_path.write_text("".join(f"{to_line(event)}\n" for event in events), encoding="utf-8")
    url = describe(run, plan, BASE, step=3)["modelspec.thumbnail"]
    kind, _, content = url.partition(",")
    assert (kind, len(url) < 30_000) == ("data:image/jpeg;base64", True)
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (256, 128))


def test_all_but_the_date_is_the_same_whenever_it_is_written(dataset: Path, tmp_path: Path) -> None:
    run = short_run(tmp_path / "run", dataset, Path("name/model"))
    run.events_path.write_text(to_line(Sampled(step=1, prompt="a", path="gone.png", time=5.0)) + "\n", encoding="utf-8")
    plan = Plan.of(Dataset.open(dataset), run.settings)
    one, other = (describe(run, plan, BASE, step=3) | {"modelspec.date": ""} for _ in range(2))
    assert one == other
    assert one["ss_training_started_at"] == "5.0"


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
