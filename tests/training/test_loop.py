"""Short real trainings: what is learnt, what stays as it was, what the U-Net is told, and exact resumption."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import ExifTags, Image

from tests.tiny import save_dataset, short_run
from trainer.errors import RunError, StorageError
from trainer.home import Home
from trainer.lora.adapter import ranks
from trainer.lora.file import LoraFile
from trainer.lora.keys import component_of, file_name
from trainer.lora.shape import Shape
from trainer.sdxl import text
from trainer.sdxl.base import Base, load_base
from trainer.training import batch, diffusion, prepare, texts
from trainer.training.events import (
    Encoded,
    Event,
    Failed,
    Finished,
    Paused,
    Resumed,
    Sampled,
    Saved,
    Started,
    Stepped,
    Stopped,
    Warned,
)
from trainer.training.loop import train
from trainer.training.run import Run


def trained(run: Run, home: Home) -> list[Event]:
    """Everything that happens until the run is over."""
    return list(run.recorded(train(run, home)))


def tensors(run: Run) -> dict[str, torch.Tensor]:
    """What the run's LoRA holds."""
    layers = LoraFile.read(run.lora).layers
    return {f"{name}.{which}": getattr(layer, which) for name, layer in layers.items() for which in ("down", "up")}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@dataclass
class Seen:
    """What passed through a training: its base, and the arguments of every call of the U-Net and of the arithmetic."""

    bases: list[Base] = field(default_factory=list)
    inputs: list[dict[str, torch.Tensor]] = field(default_factory=list)
    answers: list[torch.Tensor] = field(default_factory=list)
    noised: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)


def watch(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Watch trainings without changing them."""
    seen = Seen()

    def load(*asked: Any) -> Base:
        base = load_base(*asked)

        def look(_: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any], out: Any) -> None:
            told = named["added_cond_kwargs"]
            seen.inputs.append({"noisy": given[0], "time": given[1], "context": given[2], **told})
            seen.answers.append(out.sample.detach())

        base.unet.register_forward_hook(look, with_kwargs=True)
        seen.bases.append(base)
        return base

    def add_noise(x0: torch.Tensor, epsilon: torch.Tensor, abar_t: torch.Tensor) -> torch.Tensor:
        seen.noised.append((x0, epsilon, abar_t))
        return original_noise(x0, epsilon, abar_t)

    def encode_text(base: Base, prompts: list[str]) -> Any:
        seen.prompts.extend(prompts)
        return original_text(base, prompts)

    original_noise, original_text = diffusion.add_noise, text.encode_text
    monkeypatch.setattr(prepare, "load_base", load)
    monkeypatch.setattr(diffusion, "add_noise", add_noise)
    monkeypatch.setattr(texts, "encode_text", encode_text)
    return seen


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What passes through the trainings of one test."""
    return watch(monkeypatch)


@dataclass(frozen=True)
class Story:
    """A training of four steps that is over: its run, its events and what passed through it."""

    run: Run
    events: list[Event]
    seen: Seen

    @property
    def steps(self) -> list[Stepped]:
        return [event for event in self.events if isinstance(event, Stepped)]


@pytest.fixture(scope="module")
def story(toy_base: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("story")
    run = short_run(folder / "run", dataset, toy_base, rank=3, alpha=1.5, noise_offset=0.1)
    with pytest.MonkeyPatch.context() as patch:
        seen = watch(patch)
        return Story(run, trained(run, Home(folder / "home")), seen)


# What is learnt ---------------------------------------------------------------------------------------------------------


def test_every_adapted_module_learns(toy_base: Path, story: Story) -> None:
    base = load_base(str(toy_base), torch.device("cpu"), torch.float32)
    expected = {file_name(part, path) for part, model in base.parts.items() for path in ranks(part, model, Shape(3, 1.5))}
    layers = LoraFile.read(story.run.lora).layers
    assert layers.keys() == expected
    assert {name for name, layer in layers.items() if not layer.change().any()} == set()


def test_the_layer_that_sdxl_never_reads_is_not_in_the_file(story: Story) -> None:
    names = LoraFile.read(story.run.lora).layers
    assert {name.split("_layers_")[1][0] for name in names if component_of(name) == "te1"} == {"0", "1"}


def test_the_bases_own_weights_keep_every_bit(toy_base: Path, story: Story) -> None:
    fresh, used = load_base(str(toy_base), torch.device("cpu"), torch.float32), story.seen.bases[-1]
    for part in ("unet", "te1", "te2", "vae"):
        after = {name.replace(".base.", "."): value for name, value in getattr(used, part).state_dict().items()}
        for name, value in getattr(fresh, part).state_dict().items():
            assert torch.equal(after[name], value), f"{part} {name}"


def test_only_the_lora_could_be_trained(story: Story) -> None:
    for model in (*story.seen.bases[-1].parts.values(), story.seen.bases[-1].vae):
        trainable = {name.rsplit(".", 1)[1] for name, value in model.named_parameters() if value.requires_grad}
        assert trainable <= {"down", "up"}


def test_rank_and_alpha_in_the_file_are_the_settings(story: Story) -> None:
    assert {(layer.rank, layer.alpha) for layer in LoraFile.read(story.run.lora).factors.values()} == {(3, 1.5)}


def test_a_part_with_rate_zero_is_left_out_of_the_file(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, te1_lr=0, te2_lr=0)
    trained(run, home)
    assert {component_of(name) for name in LoraFile.read(run.lora).layers} == {"unet"}


def test_the_same_seed_learns_the_same_and_another_does_not(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    runs = [short_run(tmp_path / name, dataset, toy_base, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    for run in runs:
        trained(run, home)
    assert same(tensors(runs[0]), tensors(runs[1]))
    assert not same(tensors(runs[0]), tensors(runs[2]))


def test_drawing_samples_does_not_change_what_is_learnt(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    without, drawing = (short_run(tmp_path / str(every), dataset, toy_base, sample_every=every) for every in (0, 1))
    trained(without, home)
    sampled = [event for event in trained(drawing, home) if isinstance(event, Sampled)]
    assert {event.step for event in sampled} == {0, 1, 2, 3, 4}
    assert same(tensors(without), tensors(drawing))


def test_gradient_checkpointing_learns_the_same(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    runs = [short_run(tmp_path / how, dataset, toy_base, recompute=how) for how in ("full", "none")]
    for run in runs:
        trained(run, home)
    one, other = tensors(runs[0]), tensors(runs[1])
    for name, value in one.items():
        torch.testing.assert_close(value.float(), other[name].float(), rtol=1e-2, atol=1e-4)


def test_steps_on_one_and_the_same_draw_lower_its_loss(
    toy_base: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "seed_of", lambda *_: 7)
    dataset = save_dataset(tmp_path / "one", ((64, 64),))
    events = trained(short_run(tmp_path / "run", dataset, toy_base, steps=8, warmup=0, checkpoint_every=8), home)
    losses = [event.loss for event in events if isinstance(event, Stepped)]
    assert losses[-1] < 0.95 * losses[0]


# What the U-Net is told ---------------------------------------------------------------------------------------------------


def turned(path: Path, size: tuple[int, int]) -> None:
    """A JPEG that is stored lying down and stands upright by its EXIF."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (size[1], size[0]), "green").save(path, exif=exif)


def test_sdxl_is_told_the_true_sizes(toy_base: Path, home: Home, tmp_path: Path, seen: Seen) -> None:
    sizes = {
        "00": (64, 64), "01": (300, 200), "02": (200, 300), "03": (128, 128), "04": (500, 100), "05": (97, 131),
        "06": (90, 160),
    }  # fmt: skip
    dataset = save_dataset(tmp_path / "set", tuple(sizes.values())[:-1])
    turned(dataset / "06.jpg", sizes["06"])
    run = short_run(tmp_path / "run", dataset, toy_base, steps=14, batch=1, resolution=128)
    trained(run, home)
    told: set[tuple[int, ...]] = set()
    for given in seen.inputs:
        (ids,) = given["time_ids"].tolist()
        original_height, original_width, top, left, target_height, target_width = ids
        # What was trained on: the latent has an eighth of the target's sides.
        assert given["noisy"].shape[2:] == (target_height / 8, target_width / 8)
        assert (original_width, original_height) in sizes.values()
        # The picture was enlarged until it covered the target; what hung over was cut away evenly.
        scale = max(target_width / original_width, target_height / original_height)
        assert abs(2 * left - (original_width * scale - target_width)) <= 2
        assert abs(2 * top - (original_height * scale - target_height)) <= 2
        assert min(left, top) == 0
        told.add((original_width, original_height))
    assert told == set(sizes.values())


def test_time_ids_belong_to_the_picture_that_is_shown(toy_base: Path, home: Home, tmp_path: Path, seen: Seen) -> None:
    sizes = ((128, 128), (140, 130), (150, 150))
    dataset = save_dataset(tmp_path / "set", sizes)
    run = short_run(tmp_path / "run", dataset, toy_base, steps=6, batch=3, resolution=64)
    trained(run, home)
    captions = {f"a picture of number {number}, on paper": size for number, size in enumerate(sizes)}
    shown = [tuple(ids[:2]) for given in seen.inputs for ids in given["time_ids"].tolist()]
    assert shown == [(captions[prompt][1], captions[prompt][0]) for prompt in seen.prompts]


def test_a_picture_is_trained_at_every_resolution_and_mirrored(toy_base: Path, home: Home, tmp_path: Path, seen: Seen) -> None:
    dataset = save_dataset(tmp_path / "one", ((140, 130),))
    (dataset / "broken.png").write_bytes((dataset / "00.png").read_bytes()[:200])
    run = short_run(tmp_path / "run", dataset, toy_base, steps=8, resolution=64, resolutions=(128,), flip=True)
    events = trained(run, home)
    assert [event.pictures for event in events if isinstance(event, Started)] == [1]
    assert len([event for event in events if isinstance(event, Warned)]) == 1
    shown = Counter(tuple(given["time_ids"][0].tolist()) for given in seen.inputs)
    assert shown == {(130, 140, 0, 2, 64, 64): 4, (130, 140, 0, 5, 128, 128): 4}
    assert [given["noisy"].shape[-1] * 8 for given in seen.inputs] == [given["time_ids"][0, -1] for given in seen.inputs]
    assert len(list((home.cache / "latents").glob("*.safetensors"))) == 4


def test_captions_reach_the_encoders_with_the_trigger(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, seen: Seen
) -> None:
    trained(short_run(tmp_path / "run", dataset, toy_base, steps=8, trigger="glassy"), home)
    assert set(seen.prompts) == {f"glassy, a picture of number {number}, on paper" for number in range(4)}


def test_captions_vary_from_step_to_step_and_a_resumed_run_sees_the_same(
    toy_base: Path, home: Home, tmp_path: Path, seen: Seen
) -> None:
    dataset = save_dataset(tmp_path / "one", ((64, 64),))
    (dataset / "00.txt").write_text("{sea|lake}, house, boat, man, dog")
    varied = {"shuffle_tags": True, "keep_tags": 1, "tag_dropout": 0.2, "wildcards": True, "trigger": "glassy"}
    whole = short_run(tmp_path / "whole", dataset, toy_base, steps=8, batch=2, **varied)
    trained(whole, home)
    uninterrupted = list(seen.prompts)
    assert all(prompt.startswith(("glassy, sea", "glassy, lake")) for prompt in uninterrupted)
    assert len(set(uninterrupted)) > 8
    seen.prompts.clear()
    parted = short_run(tmp_path / "parted", dataset, toy_base, steps=8, batch=2, **varied)
    for event in parted.recorded(train(parted, home)):
        if isinstance(event, Stepped) and event.step == 3:
            parted.ask("stop")
    trained(parted, home)
    assert seen.prompts == uninterrupted
    assert same(tensors(parted), tensors(whole))


def test_a_resumed_run_keeps_the_crops_that_it_began_with(toy_base: Path, home: Home, tmp_path: Path) -> None:
    dataset = save_dataset(tmp_path / "two", ((160, 80), (70, 100)))
    frames = dataset / "dataset.toml"
    frames.write_text('[crops]\n"00.png" = [0.5, 0, 1, 1]\n[focus]\n"01.png" = [0.5, 1]\n')
    whole, parted = (short_run(tmp_path / name, dataset, toy_base, flip=True) for name in ("whole", "parted"))
    trained(whole, home)
    for event in parted.recorded(train(parted, home)):
        if isinstance(event, Stepped) and event.step == 2:
            parted.ask("stop")
    frames.write_text('[crops]\n"00.png" = [0, 0, 0.5, 1]\n[focus]\n"01.png" = [0.5, 0]\n')
    told = [event.message for event in trained(parted, home) if isinstance(event, Warned)]
    assert told == ["dataset.toml names other crops and focus since the run began: it goes on with the earlier ones."]
    assert same(tensors(parted), tensors(whole))
    other = short_run(tmp_path / "other", dataset, toy_base, flip=True)
    trained(other, home)
    assert not same(tensors(other), tensors(whole))


def test_a_dropped_caption_is_zeros(toy_base: Path, dataset: Path, home: Home, tmp_path: Path, seen: Seen) -> None:
    trained(short_run(tmp_path / "run", dataset, toy_base, caption_dropout=1.0, te1_lr=0, te2_lr=0), home)
    assert not any(given["context"].any() or given["text_embeds"].any() for given in seen.inputs)


def test_captions_are_dropped_as_often_as_asked(toy_base: Path, home: Home, tmp_path: Path, seen: Seen) -> None:
    dataset = save_dataset(tmp_path / "one", ((64, 64),))
    trained(short_run(tmp_path / "run", dataset, toy_base, steps=2, batch=64, caption_dropout=0.3), home)
    rows = [bool(row.any()) for given in seen.inputs for row in given["context"].detach()]
    assert 0.15 < 1 - sum(rows) / len(rows) < 0.45


# The arithmetic in its place --------------------------------------------------------------------------------------------


def v_base(toy_base: Path, folder: Path) -> Path:
    """A copy of the base that predicts v."""
    shutil.copytree(toy_base, folder)
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "v_prediction"}))
    return folder


def assert_losses_are_by_hand(steps: list[Stepped], seen: Seen, prediction: str) -> None:
    """Every step's loss, computed anew in float64 from what the U-Net was given and what it answered."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    schedule = torch.cumprod(1 - betas, 0)
    for step, given, answer, (x0, epsilon, _) in zip(steps, seen.inputs, seen.answers, seen.noised, strict=True):
        abar = schedule[given["time"]].view(-1, 1, 1, 1)
        signal, noise = abar.sqrt(), (1 - abar).sqrt()
        torch.testing.assert_close(given["noisy"].double(), signal * x0 + noise * epsilon, rtol=1e-5, atol=1e-5)
        ratio = (abar / (1 - abar)).flatten()
        wanted = epsilon if prediction == "epsilon" else signal * epsilon - noise * x0
        weight = ratio.clamp(max=5) / (ratio if prediction == "epsilon" else ratio + 1)
        squared = ((answer.double() - wanted) ** 2).mean(dim=(1, 2, 3))
        assert step.loss == pytest.approx(float((weight * squared).mean()), rel=1e-4)


def test_the_loss_by_hand(story: Story) -> None:
    assert_losses_are_by_hand(story.steps, story.seen, "epsilon")


def test_the_loss_by_hand_of_a_base_that_predicts_v(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, seen: Seen
) -> None:
    events = trained(short_run(tmp_path / "run", dataset, v_base(toy_base, tmp_path / "v"), steps=2), home)
    assert_losses_are_by_hand([event for event in events if isinstance(event, Stepped)], seen, "v_prediction")


def test_a_person_can_overrule_what_the_base_is(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, steps=1, family="noobai", prediction="v_prediction")
    list(train(run, home))
    metadata = LoraFile.read(run.lora).metadata
    assert metadata["impasto.base_family"] == "noobai"
    assert metadata["modelspec.prediction_type"] == "v"
    assert metadata["ss_zero_terminal_snr"] == "True"


def test_noise_offset_is_one_value_a_channel(toy_base: Path, dataset: Path, home: Home, tmp_path: Path, seen: Seen) -> None:
    for offset in (0.0, 0.5):
        trained(short_run(tmp_path / str(offset), dataset, toy_base, steps=2, noise_offset=offset), home)
    plain, shifted = (torch.cat([epsilon for _, epsilon, _ in seen.noised[start : start + 2]]) for start in (0, 2))
    difference = shifted - plain
    torch.testing.assert_close(difference, difference.mean(dim=(2, 3), keepdim=True).expand_as(difference), rtol=0, atol=1e-5)
    assert 0.2 < difference[:, :, 0, 0].std() < 1.0


def test_latents_are_drawn_anew_from_the_posterior(toy_base: Path, home: Home, tmp_path: Path, seen: Seen) -> None:
    dataset = save_dataset(tmp_path / "one", ((64, 64),))
    trained(short_run(tmp_path / "run", dataset, toy_base, steps=2, batch=64), home)
    drawn = torch.cat([x0 for x0, _, _ in seen.noised])
    base, picture = seen.bases[-1], Image.open(dataset / "00.png")
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(64, 64, 3).permute(2, 0, 1)[None]
    mean, deviation = base.encode(pixels.float() / 127.5 - 1)
    normal = (drawn - mean) / deviation
    assert abs(float(normal.mean())) < 0.02
    assert float(normal.std()) == pytest.approx(1, abs=0.02)


def test_times_are_drawn_from_the_whole_schedule(toy_base: Path, home: Home, tmp_path: Path, seen: Seen) -> None:
    dataset = save_dataset(tmp_path / "one", ((64, 64),))
    trained(short_run(tmp_path / "run", dataset, toy_base, steps=2, batch=64), home)
    times = torch.cat([given["time"] for given in seen.inputs]).double()
    assert times.min() < 60
    assert times.max() > 940
    assert 420 < times.mean() < 580


# What is told -------------------------------------------------------------------------------------------------------------


def test_the_events_tell_the_story_in_order(story: Story) -> None:
    kinds = [event.kind for event in story.events if event.kind != "encoded"]  # which is told of as time passes
    assert kinds == ["started", "stepped", "stepped", "saved", "stepped", "stepped", "saved", "finished"]
    assert [event.step for event in story.steps] == [1, 2, 3, 4]
    assert list(story.run.events()) == story.events


def test_a_step_tells_sizes_rates_and_losses(story: Story) -> None:
    for event in story.steps:
        assert event.change.keys() == event.rates.keys() == {"unet", "te1", "te2"}
        assert min(event.change.values()) > 0
        assert math.isfinite(event.loss)
        assert event.gradient > 0
    assert story.steps[-1].eta == 0


def test_the_learning_rates_fall_as_half_a_cosine(story: Story) -> None:
    expected = [1e-2 * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]
    for part in ("unet", "te1", "te2"):
        assert [event.rates[part] for event in story.steps] == pytest.approx(expected)


def test_the_change_that_is_told_is_the_files(story: Story) -> None:
    layers = LoraFile.read(story.run.lora).layers
    for part, told in story.steps[-1].change.items():
        changes = [layer.change().double().flatten() for name, layer in layers.items() if component_of(name) == part]
        assert told == pytest.approx(float(torch.cat(changes).norm()), rel=2e-3)


def test_samples_are_pictures_with_their_recipe(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, sample_every=4, trigger="glassy", sample_prompts=("a boat",))
    sampled = [event for event in trained(run, home) if isinstance(event, Sampled)]
    assert [(event.step, event.prompt) for event in sampled] == [(0, "glassy, a boat"), (4, "glassy, a boat")]
    with Image.open(run.folder / sampled[-1].path) as picture:
        assert picture.size == (64, 64)
        assert picture.info["parameters"].startswith("glassy, a boat\nSteps: 2, Sampler: Euler")


def test_a_picture_that_cannot_be_decoded_is_left_out_and_told_of(toy_base: Path, home: Home, tmp_path: Path) -> None:
    dataset = save_dataset(tmp_path / "set")
    Image.effect_noise((200, 200), 80).save(dataset / "cut.jpg")
    (dataset / "cut.jpg").write_bytes((dataset / "cut.jpg").read_bytes()[:2000])
    (dataset / "letter.jpg").write_text("a letter")
    events = trained(short_run(tmp_path / "run", dataset, toy_base), home)
    warnings = [event.message for event in events if isinstance(event, Warned)]
    assert [warning.split()[:3] for warning in warnings] == [["Left", "out:", "letter.jpg"], ["Left", "out:", "cut.jpg"]]
    assert [event for event in events if isinstance(event, Encoded)][-1].total == 5
    started = [event for event in events if isinstance(event, Started)]
    assert started[0].pictures == 4


def test_without_any_readable_picture_there_is_no_training(toy_base: Path, home: Home, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    Image.effect_noise((200, 200), 80).save(tmp_path / "set" / "cut.jpg")
    (tmp_path / "set" / "cut.jpg").write_bytes((tmp_path / "set" / "cut.jpg").read_bytes()[:2000])
    with pytest.raises(RunError, match=r"There is no picture to train on in .*cut\.jpg is damaged"):
        trained(short_run(tmp_path / "run", tmp_path / "set", toy_base), home)


# Stopping and going on --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(toy_base: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What a run of six steps learns when nothing happens to it."""
    folder = tmp_path_factory.mktemp("alone")
    run = short_run(folder / "run", dataset, toy_base, steps=6, noise_offset=0.1)
    trained(run, Home(folder / "home"))
    return tensors(run)


def until(run: Run, home: Home, step: int) -> Iterator[Event]:
    """The training up to a step, then no more: the process is gone."""
    for event in (recording := run.recorded(train(run, home))):
        yield event
        if isinstance(event, Stepped) and event.step == step:
            recording.close()  # type: ignore[attr-defined]
            return


@pytest.mark.parametrize("step", [1, 4, 5])
def test_a_run_that_broke_off_ends_as_if_nothing_had_happened(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, alone: dict[str, torch.Tensor], step: int
) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, steps=6, noise_offset=0.1)
    list(until(run, home, step))
    assert not run.lora.exists()
    events = trained(Run.open(run.folder), home)
    expected = (step - 1) // 2 * 2  # the checkpoint of a step is written after the step is told of
    assert [event.step for event in events if isinstance(event, Resumed)] == [expected]
    assert same(tensors(run), alone)


def test_a_run_that_was_stopped_keeps_its_lora_and_goes_on_exactly(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, alone: dict[str, torch.Tensor]
) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, steps=6, noise_offset=0.1)
    events = []
    for event in run.recorded(train(run, home)):
        events.append(event)
        if isinstance(event, Stepped) and event.step == 3:
            run.ask("stop")
    assert isinstance(events[-1], Stopped)
    assert (events[-1].step, events[-1].lora) == (3, run.lora.name)
    assert any(layer.change().any() for layer in LoraFile.read(run.lora).layers.values())
    assert isinstance(trained(Run.open(run.folder), home)[-1], Finished)
    assert same(tensors(run), alone)


def test_a_run_that_was_stopped_before_its_first_step_goes_on(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, alone: dict[str, torch.Tensor]
) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, steps=6, noise_offset=0.1)
    for event in run.recorded(train(run, home)):
        if isinstance(event, Started):
            run.ask("stop")
    assert isinstance(event, Stopped)
    assert event.step == 0
    trained(Run.open(run.folder), home)
    assert same(tensors(run), alone)


def test_of_a_damaged_checkpoint_the_one_before_is_gone_on_from(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, alone: dict[str, torch.Tensor]
) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, steps=6, noise_offset=0.1)
    list(until(run, home, 5))
    newest = run.checkpoints / "000004" / "adapter.safetensors"
    newest.write_bytes(newest.read_bytes()[:-10])
    events = trained(Run.open(run.folder), home)
    assert [event.step for event in events if isinstance(event, Resumed)] == [2]
    assert "The checkpoint 000004 is damaged, and is passed over." in [e.message for e in events if isinstance(e, Warned)]
    assert same(tensors(run), alone)


def test_a_disk_that_fills_up_makes_it_wait_before_anything_is_lost(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, alone: dict[str, torch.Tensor]
) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, steps=6, noise_offset=0.1)
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for event in run.recorded(train(run, home)):
            told.append(f"{event.kind} {getattr(event, 'step', '')}")
            if isinstance(event, Stepped) and event.step == 3:
                patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
            if isinstance(event, Paused):
                assert "too little room for the next checkpoint" in event.message
                patch.undo()
    assert told[-9:-2] == ["stepped 3", "paused 3", "resumed 3", "stepped 4", "saved 4", "stepped 5", "stepped 6"]
    assert same(tensors(run), alone)


def test_so_many_checkpoints_are_kept_as_asked(toy_base: Path, dataset: Path, home: Home, tmp_path: Path) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, keep_checkpoints=2, checkpoint_every=1)
    trained(run, home)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["000003", "000004"]


def copied(story: Story, folder: Path) -> Run:
    """The run that is over, to be gone on with."""
    shutil.copytree(story.run.folder, folder)
    return Run.open(folder)


def test_a_finished_run_is_finished_at_once_and_nothing_changes(story: Story, home: Home, tmp_path: Path) -> None:
    run = copied(story, tmp_path / "run")
    before = run.lora.read_bytes()
    (again,) = trained(run, home)
    first = story.events[-1]
    assert isinstance(first, Finished)
    assert isinstance(again, Finished)
    assert (again.step, again.lora, again.seconds) == (first.step, first.lora, first.seconds)
    assert run.lora.read_bytes() == before


def test_a_lora_that_was_deleted_is_written_again_from_the_checkpoint(story: Story, home: Home, tmp_path: Path) -> None:
    run = copied(story, tmp_path / "run")
    run.lora.unlink()
    assert not any(isinstance(event, Stepped) for event in trained(run, home))
    assert same(tensors(run), tensors(story.run))


def test_a_full_disk_ends_the_training_and_the_earlier_checkpoint_is_gone_on_from(
    toy_base: Path, dataset: Path, home: Home, tmp_path: Path, alone: dict[str, torch.Tensor]
) -> None:
    run = short_run(tmp_path / "run", dataset, toy_base, steps=6, noise_offset=0.1)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def until_full() -> None:
        for event in run.recorded(train(run, home)):
            if isinstance(event, Saved):
                patch.setattr(os, "fsync", full)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(StorageError, match="the disk is full"):
        until_full()
    assert [path.name for path in run.checkpoints.iterdir()] == ["000002"]
    last = list(run.events())[-1]
    assert isinstance(last, Failed)
    assert "the disk is full" in last.message
    trained(Run.open(run.folder), home)
    assert same(tensors(run), alone)
