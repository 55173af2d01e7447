"""What a LoRA tells of its base goes there and back, and what is said when it meets another base."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from trainer.bases.origin import Identity, Origin, Remark, compare
from trainer.bases.source import Facts

SEEN = Identity("a" * 64, "b" * 64, "12345678")
UNSEEN = Identity("c" * 64, "d" * 64, "87654321")
FOLDER = Identity("a" * 64, "IsADirectory", "IsADirectory")
OURS = Origin("sd_xl_base_1.0", "sdxl", "epsilon", False, SEEN)
PONY = Origin("ponyV6", "pony", "epsilon", False, UNSEEN)
NOOB_V = Origin("noob-vpred", "noobai", "v_prediction", True, UNSEEN)


def level(made_on: Origin, drawn_on: Origin) -> str:
    remark = compare("style", made_on, drawn_on)
    return remark.level if remark else ""


@pytest.mark.parametrize("origin", [OURS, PONY, NOOB_V, Origin("starter", "starter", "epsilon", False, FOLDER)])
def test_what_a_file_tells_goes_there_and_back(origin: Origin) -> None:
    told = origin.to_metadata()
    assert Origin.told_by(told) == origin
    assert all(isinstance(text, str) and text for text in told.values())


def test_a_file_tells_it_in_the_words_of_the_field() -> None:
    assert NOOB_V.to_metadata() == {
        "ss_base_model_version": "sdxl_base_v1-0", "ss_v2": "False", "ss_sd_model_name": "noob-vpred",
        "ss_sd_model_hash": "87654321", "ss_new_sd_model_hash": "d" * 64, "ss_zero_terminal_snr": "True",
        "modelspec.prediction_type": "v", "impasto.base_family": "noobai", "impasto.base_fingerprint": "c" * 64,
    }  # fmt: skip
    assert Origin("starter", "starter", "epsilon").to_metadata()["ss_base_model_version"] == "impasto_starter"


def test_a_base_that_is_here_tells_its_facts() -> None:
    facts = Facts("/models/x.safetensors", Path("/models/x.safetensors"), "x", "pony", "v_prediction", True, 1024)
    assert Origin.of(facts, SEEN) == Origin("x", "pony", "v_prediction", True, SEEN)
    assert Origin.of(facts).identity == Identity()


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("ponyDiffusionV6XL.safetensors", "pony"), ("Illustrious-XL-v0.1.safetensors", "illustrious"),
        ("noobaiXLNAIXL_vPred10Version.safetensors", "noobai"), ("sd_xl_base_1.0.safetensors", "sdxl"),
        ("stabilityai/stable-diffusion-xl-base-1.0", "sdxl"), ("juggernautXL_v9.safetensors", None), ("", None),
    ],
)  # fmt: skip
def test_of_foreign_files_the_name_of_the_base_is_read(name: str, family: str | None) -> None:
    metadata = {"ss_base_model_version": "sdxl_base_v1-0", "ss_sd_model_name": name}
    assert Origin.told_by(metadata).family == family


@pytest.mark.parametrize(
    ("stated", "prediction"), [("epsilon", "epsilon"), ("v", "v_prediction"), ("v_prediction", "v_prediction"), ("", None)]
)
def test_of_foreign_files_modelspecs_prediction_is_read(stated: str, prediction: str | None) -> None:
    assert Origin.told_by({"modelspec.prediction_type": stated}).prediction == prediction


def test_a_family_that_is_not_known_here_is_not_believed() -> None:
    assert Origin.told_by({"impasto.base_family": "flux"}).family is None


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        (SEEN, SEEN, True),
        (SEEN, FOLDER, True),
        (SEEN, UNSEEN, False),
        (replace(SEEN, fingerprint=""), SEEN, True),
        (replace(SEEN, fingerprint=""), replace(UNSEEN, short=SEEN.short), None),
        (Identity(short="12345678"), Identity(short="12345678"), True),
        (Identity(short="12345678"), Identity(short="87654321"), None),
        (Identity(short="e3b0c442"), Identity(short="e3b0c442"), None),
        (Identity("", "IsADirectory", "IsADirectory"), Identity("", "IsADirectory", "IsADirectory"), None),
        (Identity("", "NOFILE", "NOFILE"), Identity("", "NOFILE", "NOFILE"), None),
        (Identity(), Identity(), None),
        (Identity(), SEEN, None),
    ],
)
def test_only_what_proves_it_makes_two_bases_one(ours: Identity, theirs: Identity, same: bool | None) -> None:
    assert ours.same_weights(theirs) is same
    assert theirs.same_weights(ours) is same


def test_on_the_base_that_it_was_made_on_nothing_is_said() -> None:
    assert compare("style", OURS, OURS) is None
    assert compare("style", OURS, replace(OURS, name="as a folder", identity=FOLDER)) is None


def test_another_base_of_the_family_is_a_note() -> None:
    finetune = Origin("juggernaut", "sdxl", "epsilon", False, UNSEEN)
    assert compare("style", OURS, finetune) == Remark(
        "note",
        "style was trained on sd_xl_base_1.0 and is drawn on juggernaut: the same family, so expect small differences.",
    )


def test_another_family_is_a_warning_that_names_both() -> None:
    assert compare("style", PONY, OURS) == Remark(
        "warning",
        "style was trained on ponyV6 (Pony) and is drawn on sd_xl_base_1.0 (SDXL): another family, so its style will be "
        "weak or off. Choose a base of Pony's family.",
    )


def test_another_prediction_is_a_warning_that_names_both_and_comes_first() -> None:
    remark = compare("style", NOOB_V, OURS)
    assert remark is not None
    assert remark.level == "warning"
    assert "noob-vpred, which predicts v, and is drawn on sd_xl_base_1.0, which predicts epsilon" in remark.sentence
    assert level(replace(OURS, prediction="v_prediction"), OURS) == "warning", "even with the same weights"


@pytest.mark.parametrize(
    ("made_on", "expected"),
    [
        (Origin(), ""),
        (Origin(name="juggernautXL_v9", prediction="epsilon"), ""),
        (Origin(name="juggernautXL_v9", prediction="v_prediction"), "warning"),
        (Origin(name="ponyDiffusionV6XL", family="pony"), "warning"),
        (Origin(name="sdxl_base_v2", family="sdxl"), "note"),
        (Origin(name="sd_xl_base_1.0", family="sdxl"), ""),
        (Origin(family="sdxl"), ""),
        (Origin(family="sdxl", identity=replace(UNSEEN, sha256="")), "note"),
    ],
)
def test_what_a_foreign_file_does_not_tell_is_not_guessed_at(made_on: Origin, expected: str) -> None:
    assert level(made_on, OURS) == expected
