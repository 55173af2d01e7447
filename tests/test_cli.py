"""The command line's grammar: one JSON object, one sentence, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bases.test_source import header_only
from tests.command_line import SHORT, Told
from trainer import cli
from trainer.settings import GROUPS, Settings
from trainer.settings_text import wanted

ROOT = Path(__file__).resolve().parents[1]
RATES_OF_0 = ["--set", "unet_lr=0", "--set", "te1_lr=0", "--set", "te2_lr=0"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required"),
        (["paint"], "invalid choice"),
        (["train"], "required"),
        (["train", "DATASET", "--out", "OUT", "--set", "steps"], "--set takes name=value, not 'steps'"),
        (["train", "DATASET", "--out", "OUT", "--set", "=3"], "--set takes name=value, not '=3'"),
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
        (["train", "GONE", "--out", "OUT", "--base", "nowhere", *RATES_OF_0], "all three learning rates are 0"),
        (["train", "GONE", "--out", "OUT", "--set", "rank=0"], "rank must be"),
        (["train", "DATASET", "--out", "OUT", "--set", "rnak=8"], "There is no setting named rnak; the nearest is rank."),
        (["train", "DATASET", "--out", "OUT", "--settings", "GONE"], "There is no file"),
        (["import", "GONE"], "is neither a .toml of sd-scripts nor a .json of the kohya_ss GUI"),
        (["train", "DATASET", "--out", "OUT", "--preset", "fast"], "There is no preset named 'fast'"),
        (["train", "DATASET", "--out", "DATASET"], "is not empty"),
        (["resume", "EMPTY"], "is not a run"),
        (["stop", "EMPTY"], "is not a run"),
        (["pause", "EMPTY"], "is not a run"),
        (["sample", "EMPTY"], "is not a run"),
        (["save", "EMPTY"], "is not a run"),
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


def test_a_text_without_quotes_is_told_of(impasto: Any) -> None:
    told = impasto("generate", "a", "red", "house", "--out", "a.png")
    assert told.code == 2
    assert "unrecognized arguments: red house (a text of several words is put in quotes)" in told.sentence
    assert "See `impasto generate --help`." in told.sentence


@pytest.mark.parametrize(("command", "trains"), [(["inspect", "a"], False), (["resume", "a"], True)])
def test_only_who_trains_is_told_how_to_go_on(
    impasto: Any, monkeypatch: pytest.MonkeyPatch, command: list[str], trains: bool
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.commands.inspect", interrupted)
    monkeypatch.setattr("trainer.commands_training.resume", interrupted)
    told = impasto(*command)
    assert (told.code, told.err.startswith("Interrupted."), "impasto resume" in told.err) == (130, True, trains)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["--help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert all(
        command in out for command in ("demo", "train", "resume", "stop", "pause", "save", "generate", "sheet", "inspect")
    )


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
    titles = [f"{group.__doc__}".replace(".", ":") for group in GROUPS]
    assert [line for line in lines if line in titles] == titles
    assert lines.index("Loss and noise:") < lines.index("  loss = mse: mse or huber") < lines.index("Pictures:")


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
