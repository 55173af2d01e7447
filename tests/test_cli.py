"""The commands as other programs use them: one JSON object, one sentence, exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.bases.test_source import header_only
from tests.tiny import short_run, starter_like
from trainer import cli, commands, presets
from trainer.home import Home
from trainer.lora.file import LoraFile
from trainer.preview import sheet as preview_sheet
from trainer.settings import Settings, validated, wanted
from trainer.training.events import Failed, Resumed, Saved
from trainer.training.run import Run

ROOT = Path(__file__).resolve().parents[1]
SHORT = [
    part
    for text in ("steps=2", "resolution=64", "rank=2", "alpha=1", "checkpoint_every=1", "sample_every=0")
    for part in ("--set", text)
]


class Told:
    """What a command answered."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> dict[str, Any]:
        """stdout, which must be exactly one JSON object on one line."""
        assert self.out.count("\n") == 1
        value: dict[str, Any] = json.loads(self.out)
        assert isinstance(value, dict)
        return value

    @property
    def sentence(self) -> str:
        """stderr, which must be exactly one sentence and no traceback."""
        assert self.out == ""
        assert self.err.count("\n") == 1
        assert "Traceback" not in self.err
        assert self.err.endswith(".\n")
        return self.err.strip()


@pytest.fixture
def impasto(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command in this process."""

    def run(*arguments: object) -> Told:
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        return Told(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def finished(toy_base: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that is over."""
    folder = tmp_path_factory.mktemp("cli") / "style"
    arguments = ["--home", folder.parent / "home", "train", dataset, "--base", toy_base, *SHORT, "--out", folder]
    assert cli.main([str(argument) for argument in arguments]) == 0
    return folder


@pytest.fixture
def lora(finished: Path) -> Path:
    return Run.open(finished).lora


# Training ---------------------------------------------------------------------------------------------------------------


def test_train_tells_what_was_made(impasto: Any, toy_base: Path, dataset: Path, tmp_path: Path) -> None:
    told = impasto("train", dataset, "--base", toy_base, *SHORT, "--out", tmp_path / "style", "--json")
    assert told.code == 0
    assert told.json["lora"] == str(tmp_path / "style" / "style.safetensors")
    assert (told.json["state"], told.json["steps"]) == ("finished", 2)
    assert told.json["seconds"] > 0
    assert set(told.json["change"]) == {"unet", "te1", "te2"}
    assert Path(told.json["lora"]).is_file()


def test_train_without_json_tells_a_person_where_the_lora_is(
    impasto: Any, toy_base: Path, dataset: Path, tmp_path: Path
) -> None:
    told = impasto("train", dataset, "--base", toy_base, *SHORT, "--out", tmp_path / "style")
    first, second = told.out.splitlines()
    assert first == f"Finished after 2 steps: {tmp_path / 'style' / 'style.safetensors'}"
    assert second.startswith("Read back and whole: ")
    assert second.endswith("% of the base's weights were trained.")


def test_resume_of_a_finished_run_tells_the_same(impasto: Any, finished: Path, tmp_path: Path) -> None:
    one, other = (impasto("resume", finished, "--json") for _ in range(2))
    assert (one.code, other.code) == (0, 0)
    assert one.json == other.json
    assert one.json["state"] == "finished"
    assert set(one.json) == {"state", "lora", "run", "steps", "seconds", "loss", "change", "base", "layers", "size", "share"}


def test_train_and_resume_tell_the_same(impasto: Any, toy_base: Path, dataset: Path, tmp_path: Path) -> None:
    trained = impasto("train", dataset, "--base", toy_base, *SHORT, "--out", tmp_path / "style", "--json").json
    assert impasto("resume", tmp_path / "style", "--json").json == trained


def test_a_base_given_by_a_relative_path_is_found_again_from_elsewhere(
    impasto: Any, toy_base: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(toy_base.parent)
    assert impasto("train", dataset, "--base", toy_base.name, *SHORT, "--out", tmp_path / "style").code == 0
    assert Run.open(tmp_path / "style").base == str(toy_base)


def test_stop_of_a_run_that_rests_has_nothing_to_do(impasto: Any, finished: Path) -> None:
    told = impasto("stop", finished, "--json")
    assert told.code == 0
    assert told.json["asked"] is False
    assert not (finished / "stop").exists()


def settings_of(folder: Path) -> dict[str, Any]:
    """What a run's settings.toml says."""
    table: dict[str, Any] = tomllib.loads((folder / "settings.toml").read_text(encoding="utf-8"))["settings"]
    return table


def asked_for(base: object, dataset: Path, out: Path, preset: str, *more: str) -> dict[str, Any]:
    """The settings that `train` writes, without the training itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "_trained", lambda run, home: {"lora": "", "state": "", "steps": 0, "base": run.base})
        assert cli.main(["train", str(dataset), "--base", str(base), "--preset", preset, "--out", str(out), *more]) == 0
    return settings_of(out)


@pytest.mark.parametrize("preset", presets.names())
def test_another_base_never_gets_the_starters_values(toy_base: Path, dataset: Path, tmp_path: Path, preset: str) -> None:
    written = asked_for(toy_base, dataset, tmp_path / "run", preset)
    assert written == presets.load(preset).settings("sdxl").model_dump(mode="json")
    starter = presets.load(preset).settings("starter").model_dump(mode="json")
    for name in ("unet_lr", "te1_lr", "te2_lr", "noise_offset", "resolution", "steps", "batch", "sample_cfg"):
        assert written[name] != starter[name]


@pytest.mark.parametrize("preset", presets.names())
def test_a_hub_base_never_gets_the_starters_values(dataset: Path, tmp_path: Path, preset: str) -> None:
    written = asked_for("some-one/a-model", dataset, tmp_path / "run", preset)
    assert written == presets.load(preset).settings("sdxl").model_dump(mode="json")


@pytest.mark.parametrize("preset", presets.names())
def test_the_starter_gets_its_own_values(dataset: Path, tmp_path: Path, preset: str) -> None:
    written = asked_for("starter", dataset, tmp_path / "run", preset)
    assert written == presets.load(preset).settings("starter").model_dump(mode="json")


def test_the_trigger_comes_with_the_dataset(toy_base: Path, dataset: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(dataset, tmp_path / "set")
    (copy / "dataset.toml").write_text('trigger = "glassy"\n', encoding="utf-8")
    assert asked_for(toy_base, copy, tmp_path / "run", "balanced")["trigger"] == "glassy"


# Drawing ----------------------------------------------------------------------------------------------------------------


def drawn(impasto: Any, base: Path, out: Path, *more: object) -> bytes:
    """The bytes of a picture."""
    told = impasto("generate", "a house", "--base", base, "--steps", 2, "--seed", 3, "--out", out, "--json", *more)
    assert told.code == 0
    assert told.json["picture"] == str(out)
    return out.read_bytes()


def test_what_a_base_predicts_can_be_overruled(impasto: Any, toy_base: Path, tmp_path: Path) -> None:
    told, known = drawn(impasto, toy_base, tmp_path / "a.png"), ("--prediction", "epsilon")
    assert drawn(impasto, toy_base, tmp_path / "b.png", *known) == told
    assert drawn(impasto, toy_base, tmp_path / "c.png", "--prediction", "v_prediction") != told
    assert impasto("generate", "a house", "--prediction", "x", "--out", tmp_path / "d.png").code == 2


def test_bases_are_listed_and_inspected(impasto: Any, toy_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    header_only(folder / "ponyXL.safetensors")
    (folder / "old.ckpt").write_bytes(b"PK\x03\x04" + bytes(100))
    assert "impasto bases --add DIR" in impasto("bases").out
    result = impasto("bases", "--add", folder, "--json").json
    assert [(base["name"], base["family"]) for base in result["bases"]] == [("ponyXL", "pony")]
    assert "is a pickle" in result["others"][0]["reason"]
    assert impasto("bases").out.startswith("ponyXL: pony, predicts epsilon")
    assert impasto("bases", "--remove", folder, "--json").json["bases"] == []
    assert impasto("inspect", folder / "ponyXL.safetensors", "--json").json["family"] == "pony"
    assert impasto("inspect", toy_base, "--json").json["prediction"] == "epsilon"
    assert impasto("inspect", folder / "old.ckpt").code == 1


def test_a_lora_at_weight_zero_draws_the_very_same_file(impasto: Any, toy_base: Path, lora: Path, tmp_path: Path) -> None:
    without = drawn(impasto, toy_base, tmp_path / "a.png")
    assert drawn(impasto, toy_base, tmp_path / "b.png", "--lora", f"{lora}:0") == without
    assert drawn(impasto, toy_base, tmp_path / "c.png", "--lora", f"{lora}:8") != without


def test_size_steps_and_cfg_are_as_asked(impasto: Any, toy_base: Path, tmp_path: Path) -> None:
    drawn(impasto, toy_base, tmp_path / "a.png", "--size", "96x64", "--cfg", 2, "--negative", "dog")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (96, 64)
        assert "Negative prompt: dog\nSteps: 2, Sampler: Euler, CFG scale: 2, Seed: 3" in picture.info["parameters"]


def test_sheet_is_drawn_beside_the_file(
    impasto: Any, lora: Path, tmp_path: Path, toy_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview_sheet, "PROMPTS", {"sdxl": ("a house", "a boat", "a fox", "a tree")})
    monkeypatch.setattr(preview_sheet, "WEIGHTS", (0.0, 1.0))
    copy = Path(shutil.copy(lora, tmp_path / "style.safetensors"))
    told = impasto("sheet", copy, "--base", toy_base, "--json")
    assert told.code == 0
    assert told.json == {"sheet": str(tmp_path / "style-sheet.png"), "remarks": []}
    with Image.open(tmp_path / "style-sheet.png") as sheet:
        assert sheet.width > 4 * 64
        assert sheet.height > 2 * 64


def test_inspect_tells_what_a_file_holds(impasto: Any, lora: Path) -> None:
    told = impasto("inspect", lora, "--json").json
    assert told["base"] == "sdxl_base_v1-0"
    assert told["ranks"] == {"2": sum(told["modules"].values())}
    assert told["alphas"] == {"1": sum(told["modules"].values())}
    assert told["modules"]["te1"] == 8
    assert min(told["change"].values()) > 0


def test_inspect_says_what_else_a_file_is_and_reads_none_of_its_tensors(
    impasto: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_bytes", None)
    save_file({"encoder.down.0.weight": torch.zeros(2)}, tmp_path / "vae.safetensors")
    assert impasto("inspect", tmp_path / "vae.safetensors").sentence.startswith("vae.safetensors is a VAE, not an SDXL base")
    draw = ("generate", "a", "--lora", tmp_path / "vae.safetensors", "--base", "nowhere", "--out", tmp_path / "a.png")
    assert "it is a VAE, not a LoRA" in impasto(*draw).sentence


def test_names_that_a_console_cannot_write_are_told_all_the_same(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "bases").mkdir(parents=True)
    header_only(home / "bases" / "絵ponyXL.safetensors")
    command = [sys.executable, "-m", "trainer", "--home", str(home), "bases"]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}  # as Windows has it in a pipe
    told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True).stdout
    assert told.startswith(b"\\u7d75ponyXL: pony")
    as_json = subprocess.run([*command, "--json"], cwd=ROOT, env=environment, capture_output=True, check=True).stdout
    assert json.loads(as_json.decode("ascii"))["bases"][0]["name"] == "絵ponyXL"


def test_inspect_of_several_files_is_one_object(impasto: Any, lora: Path) -> None:
    assert len(impasto("inspect", lora, lora, "--json").json["files"]) == 2


def test_inspect_for_a_person(impasto: Any, lora: Path) -> None:
    assert "  rank     2 (" in impasto("inspect", lora).out


# What goes wrong --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required"),
        (["paint"], "invalid choice"),
        (["train"], "required"),
        (["train", "DATASET", "--out", "OUT", "--set", "steps"], "--set takes name=value, not 'steps'"),
        (["train", "DATASET", "--out", "OUT", "--colour", "red"], "unrecognized arguments"),
        (["generate", "a house", "--out", "a.jpg"], "must name a .png file"),
        (["generate", "a house", "--base", "BASE", "--out", "a.png", "--size", "64"], "--size takes WIDTHxHEIGHT"),
        (["generate", "a house", "--base", "BASE", "--out", "a.png", "--size", "²x²"], "--size takes WIDTHxHEIGHT"),
        (["generate", "a house", "--base", "BASE", "--out", "a.png", "--size", "65x64"], "multiples of 32"),
        (["generate", "a house", "--base", "BASE", "--out", "a.png", "--steps", "0"], "steps must be from 1 to 200"),
        (["generate", "a house", "--base", "BASE", "--out", "a.png", "--seed", "x"], "invalid int"),
        (["generate", "a house", "--base", "BASE", "--out", "a.png", "--lora", "a:99"], "from -10 to 10"),
    ],
)  # fmt: skip
def test_wrong_usage_is_a_sentence_and_exit_code_2(
    impasto: Any, toy_base: Path, dataset: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    names = {"DATASET": str(dataset), "OUT": str(tmp_path / "run"), "BASE": str(toy_base)}
    told = impasto(*(names.get(argument, argument) for argument in arguments))
    assert told.code == 2
    assert words in told.sentence


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "GONE", "--out", "OUT"], "does not exist"),
        (["train", "EMPTY", "--out", "OUT"], "There is no picture to train on"),
        (["train", "DATASET", "--out", "OUT", "--base", "nowhere"], "There is no base model nowhere"),
        (["train", "DATASET", "--out", "OUT", "--base", "EMPTY"], "no unet/config.json"),
        (["train", "DATASET", "--out", "OUT", "--base", "nobody/nothing"], "nobody/nothing"),
        (["train", "DATASET", "--out", "OUT", "--set", "colour=red"], "There is no setting named colour"),
        (["train", "DATASET", "--out", "OUT", "--set", "rank=0"], "rank must be a whole number from 1 to 512, not 0."),
        (["train", "DATASET", "--out", "OUT", "--set", "rnak=8"], "There is no setting named rnak; the nearest is rank."),
        (["train", "DATASET", "--out", "OUT", "--settings", "GONE"], "cannot be read as TOML"),
        (["import", "GONE"], "is neither a .toml of sd-scripts nor a .json of the kohya_ss GUI"),
        (["train", "DATASET", "--out", "OUT", "--preset", "fast"], "There is no preset named 'fast'"),
        (["train", "DATASET", "--out", "DATASET"], "is not empty"),
        (["resume", "EMPTY"], "is not a run"),
        (["stop", "EMPTY"], "is not a run"),
        (["generate", "a house", "--base", "BASE", "--out", "a.png", "--lora", "GONE"], "There is no file"),
        (["generate", "a house", "--base", "nowhere", "--out", "a.png"], "There is no base model"),
        (["sheet", "GONE"], "There is no file"),
        (["inspect", "GONE"], "There is no file"),
        (["inspect", "TEXT"], "again"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["", "--json"])
def test_what_goes_wrong_is_a_sentence_and_exit_code_1(
    impasto: Any, toy_base: Path, dataset: Path, tmp_path: Path, arguments: list[str], words: str, mode: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.safetensors").write_text("a letter")
    names = {
        "DATASET": str(dataset), "OUT": str(tmp_path / "run"), "BASE": str(toy_base), "EMPTY": str(tmp_path / "empty"),
        "GONE": str(tmp_path / "gone"), "TEXT": str(tmp_path / "text.safetensors"),
    }  # fmt: skip
    told = impasto(*(names.get(argument, argument) for argument in arguments), *([mode] if mode else []))
    assert told.code == 1
    assert words in told.sentence


def test_a_lora_for_another_base_is_refused_before_anything_is_drawn(
    impasto: Any, toy_base: Path, full_base: Path, tmp_path: Path, dataset: Path, home: Home
) -> None:
    assert impasto("train", dataset, "--base", full_base, *SHORT, "--out", tmp_path / "other").code == 0
    other = tmp_path / "other" / "other.safetensors"
    told = impasto("generate", "a house", "--base", toy_base, "--lora", other, "--out", tmp_path / "a.png")
    assert told.code == 1
    assert "other does not fit this base" in told.sentence
    assert not (tmp_path / "a.png").exists()


def test_a_lora_of_the_starters_family_is_named_as_such(impasto: Any, toy_base: Path, dataset: Path, tmp_path: Path) -> None:
    starter = starter_like(toy_base, tmp_path / "starter")
    assert impasto("train", dataset, "--base", starter, *SHORT, "--out", tmp_path / "style").code == 0
    lora = LoraFile.read(tmp_path / "style" / "style.safetensors")
    assert lora.base_version == "impasto_starter"
    assert "  base     impasto_starter" in impasto("inspect", tmp_path / "style" / "style.safetensors").out


def test_a_failed_training_is_told_of_in_its_log_too(impasto: Any, dataset: Path, tmp_path: Path) -> None:
    told = impasto("train", dataset, "--base", "nobody/nothing", "--out", tmp_path / "run")
    last = list(Run.open(tmp_path / "run").events())[-1]
    assert isinstance(last, Failed)
    assert last.message == told.sentence


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["--help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert all(command in out for command in ("demo", "train", "resume", "stop", "generate", "sheet", "import", "inspect"))


@pytest.mark.parametrize("command", [["train"], ["plan"], ["queue", "add"]], ids=" ".join)
def test_help_tells_of_every_setting(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([*command, "--help"])
    lines = capsys.readouterr().out.splitlines()
    words = " ".join(" ".join(lines).split())
    for name, about in Settings.model_fields.items():
        assert (
            f"{name} = {'(empty)' if about.default in ('', ()) else about.default}: {wanted(name)} {about.description}" in words
        )
    assert max(map(len, lines)) <= 100


# Settings on the command line, and those of others -----------------------------------------------------------------------


def test_prompts_may_be_set(toy_base: Path, dataset: Path, tmp_path: Path) -> None:
    written = asked_for(toy_base, dataset, tmp_path / "run", "balanced", "--set", "sample_prompts=a house|a boat")
    assert written["sample_prompts"] == ["a house", "a boat"]


def test_a_file_of_settings_goes_over_the_preset_and_under_what_is_set(toy_base: Path, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[settings]\nrank = 5\nalpha = 3.0\ntrigger = "inky"\n', encoding="utf-8")
    mine = ["--settings", str(tmp_path / "mine.toml"), "--set", "rank=6"]
    written = asked_for(toy_base, dataset, tmp_path / "run", "balanced", *mine)
    assert (written["rank"], written["alpha"], written["trigger"]) == (6, 3.0, "inky")
    assert written["passes"] == presets.load("balanced").settings("sdxl").passes
    copy = shutil.copytree(dataset, tmp_path / "set")
    (copy / "dataset.toml").write_text('trigger = "glassy"\n', encoding="utf-8")
    assert asked_for(toy_base, copy, tmp_path / "other", "balanced", *mine)["trigger"] == "glassy"


def test_the_settings_of_a_run_may_be_taken_again(finished: Path, toy_base: Path, dataset: Path, tmp_path: Path) -> None:
    again = ("--settings", str(finished / "settings.toml"))
    assert asked_for(toy_base, dataset, tmp_path / "run", "careful", *again) == settings_of(finished)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[settings]\nrank = 0", "rank must be a whole number from 1 to 512, not 0"),
        ("[settings]\ncolour = 1", "There is no setting named colour"),
        ("network_dim = 8", "has no [settings] table; another trainer's config becomes one with `impasto import`"),
        ("[settings", "cannot be read as TOML"),
    ],
)
def test_a_wrong_file_of_settings_is_a_sentence(impasto: Any, dataset: Path, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    told = impasto("train", dataset, "--settings", tmp_path / "mine.toml", "--out", tmp_path / "run")
    assert told.code == 1
    assert words in told.sentence
    assert not (tmp_path / "run").exists()


def test_a_config_of_kohyas_is_imported_and_trained_with(impasto: Any, toy_base: Path, dataset: Path, tmp_path: Path) -> None:
    config, out = tmp_path / "kohya.toml", tmp_path / "mine.toml"
    config.write_text("network_dim = 3\nunet_lr = 1e-4\nflip_aug = true\nrandom_crop = true\n", encoding="utf-8")
    told = impasto("import", config, "--out", out, "--json").json
    assert set(told) == {"settings", "taken", "changed", "without", "out"}
    assert told["settings"] == tomllib.loads(out.read_text(encoding="utf-8"))["settings"]
    assert asked_for(toy_base, dataset, tmp_path / "run", "balanced", "--settings", str(out))["rank"] == 3
    again = impasto("import", config, "--out", out)
    assert (again.code, again.sentence) == (2, f"{out} is there already: choose another name.")


def test_an_import_tells_a_person_what_became_of_each_entry(impasto: Any, tmp_path: Path) -> None:
    config = tmp_path / "kohya.toml"
    config.write_text("network_dim = 3\nunet_lr = 1e-4\nflip_aug = true\nrandom_crop = true\n", encoding="utf-8")
    lines = impasto("import", config).out.splitlines()
    assert "  network_dim 3 -> rank 3" in lines
    assert "  network_alpha 1 (their default) -> alpha 1.0" in lines
    assert "  flip_aug True -> flip True: every picture is shown both ways, not by chance" in lines
    assert lines[lines.index("Without a counterpart:") + 1] == "  random_crop True"
    assert lines[-1].endswith("--out FILE.toml.")


# As a process of its own ------------------------------------------------------------------------------------------------


def test_a_mistake_is_answered_at_once_and_without_torch() -> None:
    look = "import sys; from trainer.cli import main; print(main(['train', 'gone', '--out', 'x']), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "1 False\n"
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_stdout_of_a_process_is_json_alone(toy_base: Path, dataset: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer", "--home", tmp_path / "home", "train", dataset, "--base", toy_base, *SHORT]
    done = subprocess.run(
        [*map(str, command), "--out", str(tmp_path / "run"), "--json"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert Told(done.returncode, done.stdout, done.stderr).json["state"] == "finished"
    assert (tmp_path / "run" / "run.safetensors").is_file()


def tensors(path: Path) -> dict[str, tuple[float, bytes, bytes]]:
    """Everything a LoRA holds, bit for bit."""
    layers = LoraFile.read(path).layers
    return {name: (x.alpha, x.down.numpy().tobytes(), x.up.numpy().tobytes()) for name, x in layers.items()}


@pytest.mark.slow
def test_a_run_that_was_killed_and_resumed_is_as_one_left_alone(toy_base: Path, dataset: Path, tmp_path: Path) -> None:
    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "trainer", "--home", str(tmp_path / "home"), *map(str, arguments), "--json"]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    lasting = ["--set", "steps=30", "--set", "checkpoint_every=4"]
    train = ["train", dataset, "--base", toy_base, *SHORT, *lasting, "--out"]
    with start(*train, tmp_path / "alone" / "style") as alone:
        assert json.loads(alone.communicate()[0])["steps"] == 30

    killed = Run(tmp_path / "killed" / "style", dataset, "", "", validated({}))
    with start(*train, killed.folder) as process:
        deadline = time.monotonic() + 120
        while not any(isinstance(event, Saved) for event in killed.events()):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    assert not killed.lora.exists()
    assert not killed.alive()

    with start("resume", killed.folder) as resumed:
        told = json.loads(resumed.communicate()[0])
    assert (told["state"], told["steps"]) == ("finished", 30)
    assert any(isinstance(event, Resumed) for event in killed.events())
    assert tensors(killed.lora) == tensors(tmp_path / "alone" / "style" / "style.safetensors")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits on the size of files")
def test_a_disk_that_takes_no_more_is_a_sentence(toy_base: Path, dataset: Path, tmp_path: Path) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base)
    limited = (
        "import resource, sys; from trainer.cli import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)); sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, "--home", str(tmp_path / "home"), "resume", str(run.folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"Could not write {run.checkpoints / '000002'}: ")
    assert isinstance(list(run.events())[-1], Failed)


def test_a_lora_on_another_base_is_remarked_upon(lora: Path, toy_base: Path, tmp_path: Path, impasto: Any) -> None:
    other = shutil.copytree(toy_base, tmp_path / "ponyXL")
    weights = other / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor + 0.01 for name, tensor in load_file(weights).items()}, weights)
    draw = ["generate", "a cat", "--lora", lora, "--steps", 1, "--size", "64x64", "--out", tmp_path / "a.png", "--json"]
    assert impasto(*draw, "--base", toy_base).json["remarks"] == []
    silent = [f"{lora}:0" if part == lora else part for part in draw]
    assert impasto(*silent, "--base", other).json["remarks"] == []
    told = impasto(*draw, "--base", other)
    assert [remark["level"] for remark in told.json["remarks"]] == ["warning"]
    sentence = told.json["remarks"][0]["sentence"]
    assert f"{lora.stem} was trained on toy (SDXL) and is drawn on ponyXL (Pony): another family" in sentence
    assert f"Warning: {sentence}\n" in told.err
