"""What the name of a base means, and what its files tell of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests import checkpoint
from tests.tiny import starter_like
from trainer.bases.source import STARTER, Facts, facts_of, family_of, kept_as, name_of, place_of
from trainer.errors import BaseModelError
from trainer.home import shipped
from trainer.settings import Family, Prediction


def test_starter_is_the_base_that_ships() -> None:
    facts = facts_of("starter")
    assert facts.place == place_of("starter") == shipped("assets", "starter")
    assert (facts.family, facts.name, facts.resolution) == ("starter", "starter", 128)


def test_a_diffusers_folder_is_sdxl(toy_base: Path) -> None:
    facts = facts_of(str(toy_base))
    assert (facts.place, facts.family, facts.name) == (toy_base, "sdxl", "toy")
    assert (facts.prediction, facts.zero_terminal_snr, facts.resolution) == ("epsilon", False, 64)


def test_a_folder_with_the_starters_mark_is_of_its_family(toy_base: Path, tmp_path: Path) -> None:
    assert family_of(str(starter_like(toy_base, tmp_path / "copy"))) == "starter"


def test_a_folders_scheduler_says_what_is_predicted(toy_base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(toy_base, tmp_path / "noobai-vpred"))
    config = folder / "scheduler" / "scheduler_config.json"
    told = json.loads(config.read_text())
    config.write_text(json.dumps({**told, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}))
    facts = facts_of(str(folder))
    assert (facts.family, facts.prediction, facts.zero_terminal_snr) == ("noobai", "v_prediction", True)


def test_a_hub_id_is_told_by_its_name_until_it_is_fetched() -> None:
    facts = facts_of("some-one/Illustrious_model.v1")
    assert (facts.place, facts.family, facts.name) == (None, "illustrious", "some-one/Illustrious_model.v1")


def header_only(path: Path, metadata: dict[str, str] | None = None, markers: tuple[str, ...] = ()) -> Path:
    """A file with the names that make an SDXL base, and no weights to speak of."""
    kept = ("model.diffusion_model.label_emb.0.0.weight", "model.diffusion_model.input_blocks.0.0.weight",
            "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight",
            "conditioner.embedders.1.model.ln_final.weight", "first_stage_model.quant_conv.weight")  # fmt: skip
    shapes = checkpoint.narrow_shapes()
    state = {name: torch.zeros(shapes[name], dtype=torch.float16) for name in kept}
    save_file({**state, **{name: torch.zeros(0) for name in markers}}, path, metadata or {})
    return path


@pytest.mark.parametrize(
    ("name", "metadata", "markers", "family", "prediction", "zero"),
    [
        ("sd_xl_base_1.0", {}, (), "sdxl", "epsilon", False),
        ("ponyDiffusionV6XL", {}, (), "pony", "epsilon", False),
        ("waiNSFWIllustrious_v110", {}, (), "illustrious", "epsilon", False),
        ("hassaku_IL_v2", {}, (), "illustrious", "epsilon", False),
        ("NoobAI-XL-Vpred-v1.0", {}, (), "noobai", "v_prediction", True),
        ("NoobAI-XL-Vpred-v1.0", {}, ("v_pred", "ztsnr"), "noobai", "v_prediction", True),
        ("merge", {}, ("v_pred",), "sdxl", "v_prediction", False),
        ("merge", {"modelspec.prediction_type": "v"}, (), "sdxl", "v_prediction", True),
        ("merge", {"modelspec.prediction_type": "epsilon"}, ("v_pred", "ztsnr"), "sdxl", "v_prediction", True),
        ("vpred-test", {"modelspec.prediction_type": "epsilon"}, (), "sdxl", "epsilon", False),
        ("mymix", {"modelspec.title": "Pony Realism"}, (), "pony", "epsilon", False),
        ("illumination_of_films", {}, (), "sdxl", "epsilon", False),
    ],
)  # fmt: skip
def test_a_file_tells_its_family_and_prediction(
    tmp_path: Path,
    name: str,
    metadata: dict[str, str],
    markers: tuple[str, ...],
    family: Family,
    prediction: Prediction,
    zero: bool,
) -> None:
    facts = facts_of(str(header_only(tmp_path / f"{name}.safetensors", metadata, markers)))
    assert (facts.name, facts.family, facts.prediction, facts.zero_terminal_snr) == (name, family, prediction, zero)


def test_the_person_can_overrule_what_the_file_tells(tmp_path: Path) -> None:
    told = facts_of(str(header_only(tmp_path / "mix.safetensors")))
    known = told.overruled("noobai", "v_prediction")
    assert (known.family, known.prediction, known.zero_terminal_snr) == ("noobai", "v_prediction", True)
    assert known.overruled("auto", "epsilon").zero_terminal_snr is False
    assert told.overruled("auto", "auto") == told


def test_a_v_predicting_file_without_zero_snr_stays_so_when_confirmed(tmp_path: Path) -> None:
    told = facts_of(str(header_only(tmp_path / "mix.safetensors", markers=("v_pred",))))
    assert told.overruled("auto", "v_prediction") == told


@pytest.mark.parametrize(
    "source",
    ["nowhere", "a/b/c", "C:\\models\\gone", "", " ", "two words/x", "models/gone.safetensors", "gone.safetensors",
     "./models/gone.safetensors", "models/gone.SAFETENSORS", "~no-such-person/x", "long" * 1000, "nul\0"],
)  # fmt: skip
def test_what_can_be_no_base_is_refused_in_a_sentence(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BaseModelError, match="There is no base model"):
        facts_of(source)
    assert family_of(source) == "sdxl"


def test_a_folder_without_a_unet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"not a diffusers folder of SDXL: it has no unet/config\.json\."):
        facts_of(str(tmp_path))


@pytest.mark.parametrize("gone", ["model_index.json", "unet/diffusion_pytorch_model.safetensors", "tokenizer_2"])
def test_a_folder_that_is_not_whole_is_refused(toy_base: Path, tmp_path: Path, gone: str) -> None:
    folder = Path(shutil.copytree(toy_base, tmp_path / "half"))
    shutil.rmtree(folder / gone) if (folder / gone).is_dir() else (folder / gone).unlink()
    with pytest.raises(BaseModelError, match=rf"half is not whole, it has no {gone}.*download or copy it again\."):
        facts_of(str(folder))


@pytest.mark.parametrize("content", ["[]", "null", "5", "{", "\udcff", "[" * 100_000])
@pytest.mark.parametrize("config", ["unet/config.json", "model_index.json", "scheduler/scheduler_config.json"])
def test_a_damaged_config_is_told_of(toy_base: Path, tmp_path: Path, config: str, content: str) -> None:
    folder = Path(shutil.copytree(toy_base, tmp_path / "copy"))
    (folder / config).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(BaseModelError, match="is damaged"):
        facts_of(str(folder))


@pytest.mark.parametrize(("size", "side"), [(96, 768), (None, 1024), ([64, 96], 1024)])
def test_a_unet_need_not_tell_the_size_it_was_made_for(toy_base: Path, tmp_path: Path, size: object, side: int) -> None:
    folder = Path(shutil.copytree(toy_base, tmp_path / "copy"))
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "sample_size": size}))
    assert facts_of(str(folder)).resolution == side


def test_the_refiners_folder_is_refused(toy_base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(toy_base, tmp_path / "refiner"))
    index = folder / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "text_encoder": [None, None]}))
    with pytest.raises(BaseModelError, match="is the SDXL refiner"):
        facts_of(str(folder))


def test_a_source_is_kept_so_that_it_is_found_from_anywhere(toy_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy_base.parent)
    assert kept_as(toy_base.name) == str(toy_base)
    assert kept_as(STARTER) == STARTER
    assert kept_as("some-one/a_model") == "some-one/a_model"


def test_a_name_tells_nothing_of_this_machine(toy_base: Path, tmp_path: Path) -> None:
    assert name_of(str(toy_base)) == toy_base.name
    assert name_of(str(header_only(tmp_path / "a.b.safetensors"))) == "a.b"
    assert name_of("some-one/a_model") == "some-one/a_model"


def test_facts_can_be_compared() -> None:
    assert facts_of("starter") == facts_of("starter") != Facts("x", None, "x", "sdxl", "epsilon", False, 1024)
