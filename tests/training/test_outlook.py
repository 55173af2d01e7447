"""`impasto plan`: one JSON object or a short table, and no weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import save_dataset
from trainer import cli
from trainer.home import Home, shipped
from trainer.sdxl import counts
from trainer.training import outlook
from trainer.training.machine import example

STYLE = shipped("assets", "styles", "blueprint")
GIB = 2**30


@pytest.fixture
def plan(counted: Home, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `impasto plan` on a sample style, or on `of`; exit code, stdout, stderr."""

    def run(*arguments: object, of: Path = STYLE) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(["--home", str(counted.root), "plan", str(of), *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def told(plan: Any) -> Any:
    """The JSON object of a plan."""

    def run(*arguments: object, of: Path = STYLE) -> dict[str, Any]:
        code, out, _ = plan(*arguments, "--json", of=of)
        assert code == 0
        assert out.count("\n") == 1
        result: dict[str, Any] = json.loads(out)
        return result

    return run


def test_what_is_told_of_sdxl(told: Any) -> None:
    result = told("--base", "some/sdxl", "--memory", "12GiB")
    assert (result["pictures"], result["steps"], result["batch"], result["resolution"]) == (18, 1080, 1, 1024)
    assert result["buckets"] == {"1024x1024": 18}
    assert (result["fits"], result["precision"], result["recompute"]) == (True, "bf16", "selective")
    assert result["lora"]["parameters"] == {"unet": 23_224_320, "te1": 1_081_344, "te2": 5_242_880}
    assert result["lora"]["share"] == pytest.approx(29_548_544 / 3_385_184_004)
    assert result["flops"]["forward"] == pytest.approx(6.76e12, rel=0.01)
    assert result["flops"]["step"] == pytest.approx(18.47e12, rel=0.01)
    assert result["machine"] == {"name": "GeForce RTX 3060", "free": 12 * GIB, "there": False}
    assert result["drawing"]["fits"]


def test_the_items_add_up_to_the_total(told: Any) -> None:
    result = told("--base", "some/sdxl", "--memory", "24GiB")
    memory = result["memory"]
    step = memory["activations"] + memory["working"]
    standing = sum(memory[item] for item in ("weights", "vae", "lora", "optimizer", "average", "reserve"))
    assert standing + max(step, memory["pictures"]) == result["total"]


def test_the_time_is_of_all_steps_and_samples(told: Any) -> None:
    with_samples = told("--base", "some/sdxl", "--memory", "24GiB")
    without = told("--base", "some/sdxl", "--memory", "24GiB", "--set", "sample_every=0")
    steps = with_samples["steps"] * with_samples["seconds_per_step"]
    assert steps < without["seconds"] < 1.2 * steps
    assert with_samples["seconds"] > 1.05 * without["seconds"]


def test_samples_are_drawn_at_the_beginning_and_at_the_end_too(told: Any) -> None:
    asked = ("--base", "some/sdxl", "--memory", "24GiB", "--set", "steps=10")
    never, once, twice = (told(*asked, "--set", f"sample_every={every}")["seconds"] for every in (0, 10, 7))
    assert twice - once == pytest.approx((once - never) / 2, abs=2)


FROZEN = ("--set", "te1_lr=0", "--set", "te2_lr=0")


def test_text_that_is_encoded_once_is_told_of(plan: Any, told: Any) -> None:
    asked = ("--base", "some/sdxl", "--memory", "24GiB", *FROZEN)
    assert "the text encoders are on the card only then" in plan(*asked)[1]
    kept = (*asked, "--set", "cache_text=false")
    assert "text encoders are on the card only then" not in plan(*kept)[1]
    assert told(*asked)["total"] < told(*kept)["total"]
    assert not told(*FROZEN)["text_away"]  # on a CPU


def test_an_average_and_accumulation_are_told_of(plan: Any, told: Any) -> None:
    asked = ("--base", "some/sdxl", "--memory", "24GiB")
    one = told(*asked)
    many = told(*asked, "--set", "ema=0.99", "--set", "accumulation=4")
    assert many["memory"]["average"] == 4 * 29_548_544
    assert (many["steps"], many["accumulation"]) == (-(-one["steps"] // 4), 4)
    assert many["seconds_per_step"] == pytest.approx(4 * one["seconds_per_step"], rel=1e-3)
    _, out, _ = plan(*asked, "--set", "ema=0.99", "--set", "accumulation=4")
    assert " steps of 1 x 4, " in out
    assert "\n  average      113 MiB\n" in out
    assert "average" not in plan(*asked)[1]


def test_measuring_and_twofold_samples_take_time(told: Any) -> None:
    asked = ("--base", "some/sdxl", "--memory", "24GiB", "--set", "steps=100")
    plain, both = told(*asked), told(*asked, "--set", "sample_untriggered=true")
    without = told(*asked, "--set", "sample_every=0")
    assert both["seconds"] - plain["seconds"] == pytest.approx(plain["seconds"] - without["seconds"], abs=2)
    held = told(*asked, "--set", "sample_every=0", "--set", "validation_share=0.5")
    often = told(*asked, "--set", "sample_every=0", "--set", "validation_share=0.5", "--set", "validate_every=10")
    assert held["held_out"] == 9
    assert often["seconds"] > held["seconds"]


def test_little_memory_of_the_computers_own_is_told_of(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    card = replace(example(8 * GIB), ram=4 * GIB)
    monkeypatch.setattr(outlook, "example", lambda _: card)
    _, out, _ = plan("--base", "some/sdxl", "--memory", "8GiB")
    assert "\nLoading the base takes up to 6.6 GiB of the computer's own memory for a while, and 4.0 GiB are free: " in out


def test_a_preset_and_settings_are_those_of_train(told: Any) -> None:
    result = told("--base", "some/sdxl", "--memory", "24GiB", "--preset", "careful", "--set", "batch=2")
    assert (result["steps"], result["batch"]) == (90 * 18 // 2, 2)
    one = told("--base", "some/sdxl", "--memory", "24GiB", "--preset", "careful")
    assert result["memory"]["activations"] == pytest.approx(2 * one["memory"]["activations"])


def test_the_starter_on_this_computer(told: Any) -> None:
    result = told()
    assert (result["precision"], result["recompute"], result["fits"]) == ("fp32", "none", True)
    assert (result["machine"]["name"], result["machine"]["there"], result["family"]) == ("CPU", True, "starter")
    assert 1 < result["seconds"] < 3600
    assert (result["drawing"]["copies_away"], result["drawing"]["visiting"]) == (False, False)


def test_a_family_that_a_person_names_is_believed(told: Any) -> None:
    assert told("--base", "some/sdxl", "--memory", "24GiB", "--set", "family=pony")["family"] == "pony"


def test_the_table(plan: Any) -> None:
    code, out, _ = plan("--base", "some/sdxl", "--memory", "8GiB")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "18 pictures, 1080 steps of 1, each picture about 60 times, on the base some/sdxl (sdxl)."
    assert lines[2].startswith("Fits: ")
    assert [line.split()[0] for line in lines[3:11]] == [
        "base", "VAE", "LoRA", "optimizer", "activations", "working", "reserve", "samples",
    ]  # fmt: skip
    assert any(line.startswith("  with more memory: in bf16 with full recompute, ") for line in lines)
    assert any("an estimate" in line and "GeForce RTX 4060 (an example" in line for line in lines)
    assert any("29,548,544 parameters, 0.87 % of the base; its file has 59.1 MB" in line for line in lines)
    assert lines[-1].startswith("Drawing at 1024 px with a LoRA fits in ")
    assert max(map(len, lines)) < 180


def test_the_crop_of_every_picture_is_known_before(told: Any, tmp_path: Path) -> None:
    folder = save_dataset(tmp_path / "set", ((600, 300), (100, 100)))
    asked = ("--base", "some/sdxl", "--memory", "24GiB", "--set", "resolution=512")
    small = {
        "name": "01.png", "scaled": [128, 128], "box": [0, 0, 128, 128], "seen": [0, 0, 1, 1], "lost": 0, "upscale": 1.28,
        "mirrored": False,
    }  # fmt: skip
    wide = {
        "name": "00.png", "scaled": [768, 384], "box": [32, 0, 736, 384], "seen": [0.0417, 0, 0.9583, 1], "lost": 0.0833,
        "upscale": 1.28, "mirrored": False,
    }  # fmt: skip
    assert told(*asked, of=folder)["crops"] == [wide, small]
    both = told(*asked, "--set", "flip=true", of=folder)
    assert [crop["mirrored"] for crop in both["crops"]] == [False, True, False, True]
    assert both["pictures"] == 2


def test_every_further_crop_is_known_before(told: Any, tmp_path: Path) -> None:
    folder = save_dataset(tmp_path / "set", ((600, 300), (512, 512)))
    asked = ("--base", "some/sdxl", "--memory", "24GiB", "--set", "resolution=512", "--set", "crops=3")
    wide, others, whole = (crops := told(*asked, of=folder)["crops"])[0], crops[1:3], crops[3:]
    assert wide["box"] == [32, 0, 736, 384]
    assert len({tuple(crop["box"]) for crop in [wide, *others]}) == 3
    assert [crop["name"] for crop in crops] == ["00.png", "00.png", "00.png", "01.png"]
    assert [crop["box"] for crop in whole] == [[0, 0, 512, 512]]


def test_the_table_tells_what_is_cropped_and_enlarged(plan: Any, tmp_path: Path) -> None:
    asked = ("--base", "some/sdxl", "--memory", "24GiB", "--set", "resolution=512")
    _, out, _ = plan(*asked, of=save_dataset(tmp_path / "wide", ((1200, 300), (100, 100), (500, 500))))
    assert "\nCropped: 00.png loses most, 54 % of it; --json lists every crop.\n" in out
    assert "\nEnlarged: 3 of the pictures, at most to 1.28 times their size.\n" in out
    _, out, _ = plan(*asked, of=save_dataset(tmp_path / "right", ((1024, 1024),)))
    assert "Cropped" not in out
    assert "Enlarged" not in out


def test_a_plan_that_does_not_fit_is_no_error(plan: Any) -> None:
    code, out, _ = plan("--base", "some/sdxl", "--memory", "3GiB")
    assert code == 0
    assert "Does not fit: " in out


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("--memory", "much"), 2, "--memory takes a size such as 12GiB"),
        (("--base", "no such base"), 1, "There is no base model"),
        (("--set", "unet_lr=0", "--set", "te1_lr=0", "--set", "te2_lr=0"), 1, "Nothing would be trained"),
        (("--set", "rank=0"), 1, "rank must be a whole number from 1 to 512, not 0."),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(plan: Any, arguments: tuple[str, ...], code: int, sentence: str) -> None:
    found, out, err = plan(*arguments)
    assert (found, out) == (code, "")
    assert sentence in err
    assert err.count("\n") == 1


def test_the_second_plan_counts_nothing(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = told("--base", "some/sdxl", "--memory", "8GiB")
    monkeypatch.setattr(counts, "_counting", None)
    assert told("--base", "some/other", "--memory", "8GiB") == {**first, "base": "some/other"}


def test_a_folder_is_counted_by_its_own_configs(told: Any, toy_base: Path) -> None:
    result = told("--base", toy_base, "--set", "resolution=64", "--memory", "8GiB")
    assert sum(result["lora"]["parameters"].values()) < 1_000_000
    assert result["memory"]["weights"] < 2**30


def test_the_file_is_as_large_as_told(told: Any, toy_base: Path, dataset: Path, tmp_path: Path) -> None:
    arguments = ["--base", str(toy_base), "--set", "resolution=64", "--set", "rank=64", "--set", "steps=1"]
    promised = told(*arguments)["lora"]["bytes"]
    run = tmp_path / "run"
    assert cli.main(["train", str(dataset), *arguments, "--set", "sample_every=0", "--out", str(run)]) == 0
    (file,) = run.glob("*.safetensors")
    assert promised < file.stat().st_size < promised + 100_000
