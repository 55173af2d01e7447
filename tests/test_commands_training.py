"""The commands around a training, as other programs use them."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.command_line import SHORT, asked_for, settings_of
from tests.tiny import short_run
from trainer import commands_training, presets
from trainer.home import Home
from trainer.lora.file import LoraFile
from trainer.settings_text import validated
from trainer.training.events import Event, Failed, Resumed, Saved, Started, Stepped
from trainer.training.run import Run, Wish

LONGER = [*SHORT, "--set", "steps=6", "--set", "lr_schedule=constant", "--set", "warmup=0"]
AtStep = Callable[[int, Callable[[], object]], None]
ROOT = Path(__file__).resolve().parents[1]


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


def test_a_failed_training_is_told_of_in_its_log_too(impasto: Any, dataset: Path, tmp_path: Path) -> None:
    told = impasto("train", dataset, "--base", "nobody/nothing", "--out", tmp_path / "run")
    last = list(Run.open(tmp_path / "run").events())[-1]
    assert isinstance(last, Failed)
    assert last.message == told.sentence


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


def tensors(path: Path) -> dict[str, tuple[float, bytes, bytes]]:
    """Everything a LoRA holds, bit for bit."""
    layers = LoraFile.read(path).factors
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


# What a run can be asked for --------------------------------------------------------------------------------------------


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> AtStep:
    """Has something happen when a step is told of, the first time."""
    hear = commands_training._Teller.hear
    due: dict[int, Callable[[], object]] = {}

    def heard(self: Any, event: Event) -> None:
        hear(self, event)
        if isinstance(event, Stepped):
            due.pop(event.step, lambda: None)()

    monkeypatch.setattr(commands_training._Teller, "hear", heard)
    return due.__setitem__


@pytest.fixture
def at_work(toy_base: Path, dataset: Path, tmp_path: Path) -> Iterator[Run]:
    """A run that this process works on, as far as others can see."""
    run = short_run(tmp_path / "run", dataset, toy_base)
    work = run.recorded(iter([Started(steps=4, pictures=1, base="", device="cpu", buckets={}), Resumed(step=3)]))
    next(work)
    next(work)
    yield run
    list(work)


@pytest.mark.parametrize(
    ("command", "wish", "words"),
    [
        (["stop"], "stop", "stops after the step it is at, and keeps what it has learnt."),
        (["stop", "--cancel"], "cancel", "without a LoRA; `impasto resume RUN` goes on from its last checkpoint."),
        (["pause"], "pause", "waits after the step it is at, until `impasto resume RUN`."),
        (["sample"], "sample", "draws its sample pictures after the step it is at."),
        (["save"], "save", "writes a checkpoint after the step it is at."),
    ],
)
def test_word_is_left_in_a_run(impasto: Any, at_work: Run, command: list[str], wish: Wish, words: str) -> None:
    told = impasto(*command, at_work.folder)
    assert told.code == 0
    assert told.out.endswith(f" {words}\n".replace("RUN", str(at_work.folder)))
    assert [each for each in get_args(Wish) if at_work.wishes(each)] == [wish]
    assert impasto(*command, at_work.folder, "--json").json["asked"] is True


@pytest.mark.parametrize("command", ["pause", "sample", "save"])
def test_a_run_that_rests_does_nothing_on_the_side(impasto: Any, finished: Path, command: str) -> None:
    told = impasto(command, finished)
    assert told.code == 1
    assert told.sentence == f"{finished} is not being trained, or has not begun yet: it cannot {command} now."
    assert not (finished / command).exists()


def test_resume_wakes_a_run_that_waits(impasto: Any, at_work: Run) -> None:
    at_work.ask("pause")
    told = impasto("resume", at_work.folder, "--json")
    assert (told.code, told.json["state"], told.json["steps"]) == (0, "training", 3)
    assert not at_work.wishes("pause")
    at_work.ask("pause")
    assert impasto("resume", at_work.folder).out == f"{at_work.folder} goes on after 3 steps.\n"
    assert impasto("resume", at_work.folder).sentence.endswith("is being trained by another process: wait for it, or stop it.")


def test_a_cancelled_training_is_told_of_as_such(
    impasto: Any, toy_base: Path, dataset: Path, tmp_path: Path, at_step: AtStep
) -> None:
    at_step(2, lambda: Run.open(tmp_path / "style").ask("cancel"))
    late = ["--set", "checkpoint_every=5"]
    told = impasto("train", dataset, "--base", toy_base, *LONGER, *late, "--out", tmp_path / "style")
    assert told.out == f"Cancelled after step 2; `impasto resume {tmp_path / 'style'}` goes on from its start.\n"
    assert not Run.open(tmp_path / "style").lora.exists()
    assert impasto("resume", tmp_path / "style", "--json").json["steps"] == 6


def test_a_cancelled_training_tells_from_where_it_would_go_on(
    impasto: Any, toy_base: Path, dataset: Path, tmp_path: Path, at_step: AtStep
) -> None:
    at_step(3, lambda: Run.open(tmp_path / "style").ask("cancel"))
    more = ["--set", "checkpoint_every=2"]
    told = impasto("train", dataset, "--base", toy_base, *LONGER, *more, "--out", tmp_path / "style")
    assert told.out.startswith("Cancelled after step 3; ")
    assert told.out.endswith(" goes on from the checkpoint at step 2.\n")


def test_what_does_nothing_in_the_dataset_is_told_of_once(impasto: Any, toy_base: Path, dataset: Path, tmp_path: Path) -> None:
    sentence = "masked_loss is on, but no picture has a mask or transparency: all of each is learnt."
    masked = ["--set", "masked_loss=true"]
    told = impasto("train", dataset, "--base", toy_base, *LONGER, *masked, "--out", tmp_path / "style")
    assert told.err.count(sentence) == 1
    assert sentence not in impasto("resume", tmp_path / "style", "--steps", 8).err


def test_fewer_steps_than_were_taken_are_told_of(impasto: Any, toy_base: Path, dataset: Path, tmp_path: Path) -> None:
    assert impasto("train", dataset, "--base", toy_base, *LONGER, "--out", tmp_path / "style").code == 0
    asked = tmp_path / "style" / "settings.toml"
    asked.write_text(asked.read_text(encoding="utf-8").replace("steps = 6\n", "steps = 3\n", 1), encoding="utf-8")
    told = impasto("resume", tmp_path / "style")
    assert "6 steps are already taken, more than the 3 asked for; the LoRA is written from step 6.\n" in told.err
    assert told.out.startswith("Finished after 6 steps: ")


# Ctrl+C -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_keeps_what_it_has_learnt(
    impasto: Any, toy_base: Path, dataset: Path, tmp_path: Path, at_step: AtStep, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    at_step(2, lambda: signal.raise_signal(number))
    told = impasto("train", dataset, "--base", toy_base, *LONGER, "--out", tmp_path / "style", "--json")
    assert told.code == 0
    assert (told.json["state"], told.json["steps"]) == ("stopped", 2)
    assert told.err.count("It stops after this step, and keeps a checkpoint and the LoRA.") == 1
    assert Path(told.json["lora"]).is_file()
    assert (tmp_path / "style" / "checkpoints" / "000002" / "state.json").is_file()
    assert signal.getsignal(number) is before
    assert impasto("resume", tmp_path / "style", "--json").json["steps"] == 6


def test_interrupted_twice_it_ends_at_once(
    impasto: Any, toy_base: Path, dataset: Path, tmp_path: Path, at_step: AtStep
) -> None:
    def impatient() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    at_step(4, impatient)
    told = impasto("train", dataset, "--base", toy_base, *LONGER, "--out", tmp_path / "style", "--json")
    assert (told.code, told.out) == (130, "")
    assert told.err.splitlines()[-1].startswith("Interrupted. A training goes on from its last checkpoint")
    run = Run.open(tmp_path / "style")
    assert (run.lora.exists(), run.alive()) == (False, False)
    assert impasto("resume", run.folder, "--json").json["steps"] == 6


# More steps, and other settings -----------------------------------------------------------------------------------------


def test_a_finished_training_may_go_on_for_more_steps(impasto: Any, toy_base: Path, dataset: Path, tmp_path: Path) -> None:
    train = ["train", dataset, "--base", toy_base, *LONGER]
    alone = impasto(*train, "--out", tmp_path / "alone", "--json").json["lora"]
    impasto(*train, "--set", "steps=3", "--out", tmp_path / "longer")
    told = impasto("resume", tmp_path / "longer", "--steps", 6, "--json")
    assert (told.json["state"], told.json["steps"]) == ("finished", 6)
    assert tensors(Path(told.json["lora"])) == tensors(Path(alone))
    fewer = impasto("resume", tmp_path / "longer", "--steps", 5)
    assert (fewer.code, fewer.sentence) == (
        1, f"{tmp_path / 'longer'} has taken 6 steps already: ask for 6 or more, not 5.",
    )  # fmt: skip


def test_a_setting_that_was_changed_in_between_is_named(
    impasto: Any, toy_base: Path, dataset: Path, tmp_path: Path, at_step: AtStep
) -> None:
    at_step(2, lambda: signal.raise_signal(signal.SIGINT))
    impasto("train", dataset, "--base", toy_base, *LONGER, "--out", tmp_path / "style")
    path = tmp_path / "style" / "settings.toml"
    asked = path.read_text(encoding="utf-8")
    path.write_text(asked.replace("rank = 2", "rank = 3"), encoding="utf-8")
    told = impasto("resume", tmp_path / "style")
    assert told.code == 1
    assert told.err.splitlines()[-1].startswith(f"{path} no longer fits the steps that were taken: rank was 2 and is now 3.")
    path.write_text(asked.replace("keep_checkpoints = 3", "keep_checkpoints = 1"), encoding="utf-8")
    assert impasto("resume", tmp_path / "style", "--json").json["state"] == "finished"


# The queue --------------------------------------------------------------------------------------------------------------


def test_a_queue_in_which_a_run_failed_ends_with_1(impasto: Any, home: Home, dataset: Path, toy_base: Path) -> None:
    assert impasto("queue", "run", "--json").code == 0
    folder = short_run(home.runs / "gone", dataset, toy_base).folder
    assert impasto("queue", "again", folder).code == 0
    (folder / "settings.toml").unlink()
    told = impasto("queue", "run", "--json")
    assert (told.code, [turn["state"] for turn in told.json["ended"]]) == (1, ["failed"])
