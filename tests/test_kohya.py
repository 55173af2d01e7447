"""Configs as sd-scripts and the kohya_ss GUI write them, and what becomes of each entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainer import kohya, kohya_file, kohya_network, presets
from trainer.errors import SettingsError
from trainer.kohya import imported
from trainer.kohya_entries import Entry, Import
from trainer.lora import keys
from trainer.settings import Settings
from trainer.settings_text import validated

SCRIPT = """
[model_arguments]
pretrained_model_name_or_path = "/models/sd_xl_base_1.0.safetensors"
v_parameterization = true

[additional_network_arguments]
network_module = "networks.lora"
network_dim = 32
network_alpha = 16
unet_lr = 2e-4
text_encoder_lr = 5e-5
network_args = ["conv_dim=8"]

[optimizer_arguments]
optimizer_type = "AdamW8bit"
optimizer_args = ["weight_decay=0.1", "betas=0.9,0.99"]
learning_rate = 1e-4
lr_scheduler = "cosine_with_restarts"
lr_scheduler_num_cycles = 3
lr_warmup_steps = 100
max_grad_norm = 0.5

[training_arguments]
max_train_steps = 2000
train_batch_size = 2
gradient_accumulation_steps = 4
mixed_precision = "bf16"
gradient_checkpointing = true
min_snr_gamma = 5.0
noise_offset = 0.0357
seed = 42
save_every_n_steps = 250
sample_every_n_steps = 0
output_name = "glassy"
xformers = true
max_timestep = 900

[dataset_arguments]
resolution = "1024,1024"
caption_dropout_rate = 0.1
shuffle_caption = true
keep_tokens = 1
random_crop = true
color_aug = false
"""

GUI: dict[str, Any] = {
    "LoRA_type": "Standard", "adaptive_noise_scale": 0, "additional_parameters": "", "bucket_no_upscale": True,
    "cache_latents": True, "caption_dropout_rate": 0.05, "clip_skip": "1", "epoch": 1, "flip_aug": True, "fp8_base": False,
    "gradient_accumulation_steps": 1, "gradient_checkpointing": False, "keep_tokens": "2", "learning_rate": 0.0003,
    "loss_type": "l2", "lr_scheduler": "cosine", "lr_scheduler_num_cycles": "", "lr_warmup": 10, "lr_warmup_steps": 0,
    "max_grad_norm": 1, "max_resolution": "1024,768", "max_train_epochs": "10", "max_train_steps": 0, "min_snr_gamma": 0,
    "mixed_precision": "no", "multires_noise_discount": 0, "multires_noise_iterations": 0, "network_alpha": 8,
    "network_dim": 16, "noise_offset": 0, "optimizer": "AdamW", "optimizer_args": "weight_decay=0.05", "output_name": "ink",
    "sample_every_n_steps": 50, "sample_prompts": "# two\nink style, a fox --w 1024 --h 1024 --s 20\n\na boat --n bad",
    "save_every_n_steps": 0, "sdxl": True, "seed": "1234", "shuffle_caption": False, "stop_text_encoder_training": 50,
    "text_encoder_lr": 0, "train_batch_size": 4, "unet_lr": 0, "v2": False, "vae": None,
}  # fmt: skip


def read(path: Path, content: str | dict[str, Any]) -> Import:
    """What becomes of a config that is written to `path` first."""
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return imported(path)


@pytest.fixture
def script(tmp_path: Path) -> Import:
    return read(tmp_path / "config.toml", SCRIPT)


@pytest.fixture
def gui(tmp_path: Path) -> Import:
    return read(tmp_path / "ink.json", GUI)


def of(entries: list[Entry], theirs: str) -> Entry:
    """The one entry of that name."""
    (found,) = (entry for entry in entries if entry.theirs == theirs)
    return found


def test_a_config_of_sd_scripts_becomes_settings(script: Import) -> None:
    assert script.settings == {
        "rank": 32, "alpha": 16.0, "unet_lr": 2e-4, "te1_lr": 5e-5, "te2_lr": 5e-5, "optimizer": "adamw8bit",
        "weight_decay": 0.1, "lr_schedule": "cosine_restarts", "lr_cycles": 3, "warmup": 0.05, "max_grad_norm": 0.5,
        "steps": 2000, "batch": 2, "accumulation": 4, "targets": "everything", "conv_rank": 8, "crops": 4,
        "precision": "bf16", "recompute": "full", "min_snr_gamma": 5.0, "noise_offset": 0.0357,
        "seed": 42, "checkpoint_every": 250, "sample_every": 0, "resolution": 1024, "caption_dropout": 0.1,
        "shuffle_tags": True, "keep_tags": 1, "prediction": "v_prediction", "timestep_max": 899,
    }  # fmt: skip


def test_a_config_of_the_gui_becomes_settings(gui: Import) -> None:
    assert gui.settings == {
        "rank": 16, "alpha": 8.0, "unet_lr": 3e-4, "te1_lr": 3e-4, "te2_lr": 3e-4, "optimizer": "adamw",
        "weight_decay": 0.05, "lr_schedule": "cosine", "warmup": 0.1, "max_grad_norm": 1.0, "passes": 10.0, "steps": 0,
        "batch": 4, "precision": "fp32", "min_snr_gamma": 0.0, "noise_offset": 0.0, "seed": 1234, "sample_every": 50,
        "sample_prompts": ["ink style, a fox", "a boat"], "resolution": 896, "caption_dropout": 0.05, "shuffle_tags": False,
        "keep_tags": 2, "accumulation": 1, "targets": "transformer",
        "loss": "mse", "flip": True, "max_upscale": 1.0, "te1_stop": 0.5, "te2_stop": 0.5,
    }  # fmt: skip


def test_what_is_the_same_is_taken_and_what_is_not_has_a_reason(script: Import) -> None:
    assert of(script.taken, "network_dim") == Entry("network_dim", 32, "rank", 32)
    assert of(script.changed, "lr_warmup_steps") == Entry("lr_warmup_steps", 100, "warmup", 0.05, "a share of the 2000 steps")
    assert of(script.taken, "gradient_accumulation_steps").becomes == 4
    assert of(script.changed, "random_crop").becomes == 4
    assert [(entry.ours, entry.why) for entry in script.changed if entry.theirs == "text_encoder_lr"] == [
        (ours, "each text encoder has its own rate") for ours in ("te1_lr", "te2_lr")
    ]
    assert all(entry.why for entry in script.changed)


def test_what_has_no_counterpart_is_told(script: Import) -> None:
    assert {entry.theirs for entry in script.without} == {
        "pretrained_model_name_or_path", "optimizer_args.betas", "learning_rate", "output_name", "xformers",
    }  # fmt: skip
    assert of(script.without, "pretrained_model_name_or_path").why == "name the base with --base"


@pytest.mark.parametrize("which", ["script", "gui"])
def test_every_entry_that_asks_for_something_is_told_of(which: str, request: pytest.FixtureRequest) -> None:
    found: Import = request.getfixturevalue(which)
    assert {found.config[name] for name in set(found.config) - found.named} <= {0}
    assert {entry.ours for entry in found.taken + found.changed} - {""} == set(found.settings)


def test_their_defaults_count_where_the_file_is_silent(tmp_path: Path) -> None:
    found = read(tmp_path / "short.toml", "network_dim = 8\nunet_lr = 1e-4")
    assert found.settings == {
        "rank": 8, "unet_lr": 1e-4, "alpha": 1.0, "batch": 1, "min_snr_gamma": 0.0, "noise_offset": 0.0,
        "caption_dropout": 0.0, "steps": 1600, "warmup": 0.0, "lr_schedule": "constant", "targets": "transformer",
    }  # fmt: skip
    assert not of(found.taken, "network_alpha").given
    assert of(found.taken, "network_dim").given


def test_a_dataset_of_theirs_has_none_of_the_defaults(tmp_path: Path) -> None:
    text = """
        [general]
        keep_tokens = 1
        [[datasets]]
        resolution = 768
        batch_size = 4
        [[datasets.subsets]]
        image_dir = "/pictures"
        num_repeats = 10
    """
    found = read(tmp_path / "dataset.toml", text)
    assert found.settings == {"keep_tags": 1, "resolution": 768, "batch": 4}
    assert {entry.theirs for entry in found.without} == {"image_dir", "num_repeats"}


@pytest.mark.parametrize(
    ("text", "passes", "why"),
    [
        ("num_repeats = 5", 50, "num_repeats says"),
        ('train_data_dir = "{folder}"', 70, "7_ink says"),
        ("", 10, "multiply it by the repeats"),
        ("max_train_steps = 99", 10, "multiply it by the repeats"),
    ],
)
def test_epochs_of_repeats_are_passes(tmp_path: Path, text: str, passes: float, why: str) -> None:
    (tmp_path / "train" / "7_ink").mkdir(parents=True)
    folder = (tmp_path / "train").as_posix()
    found = read(tmp_path / "a.toml", f"network_dim = 8\nmax_train_epochs = 10\n{text.format(folder=folder)}")
    assert (found.settings["passes"], found.settings["steps"]) == (passes, 0)
    assert why in next(entry.why for entry in found.changed if entry.ours == "passes")


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("learning_rate = 1e-4", (1e-4, 1e-4, 1e-4)),
        ("learning_rate = 1e-4\ntext_encoder_lr = 1e-5", (1e-4, 1e-5, 1e-5)),
        ("unet_lr = 1e-4\ntext_encoder_lr = [1e-5, 2e-5]", (1e-4, 1e-5, 2e-5)),
        ("unet_lr = 1e-4\nnetwork_train_unet_only = true", (1e-4, 0, 0)),
        ("text_encoder_lr = 1e-5\nnetwork_train_text_encoder_only = true", (0, 1e-5, 1e-5)),
        ('learning_rate = 1.0\noptimizer_type = "Prodigy"', (1, 1, 1)),
        ('learning_rate = 1.0\noptimizer_type = "DAdaptAdam"', (None, None, None)),
        ('learning_rate = 1e-4\noptimizer_type = "bitsandbytes.optim.AdamW8bit"', (1e-4, 1e-4, 1e-4)),
    ],
)
def test_each_part_gets_its_rate(tmp_path: Path, text: str, rates: tuple[float | None, ...]) -> None:
    settings = read(tmp_path / "a.toml", f"network_dim = 8\n{text}").settings
    assert tuple(settings.get(name) for name in ("unet_lr", "te1_lr", "te2_lr")) == rates


@pytest.mark.parametrize(
    ("text", "ours", "becomes"),
    [
        ("lr_warmup_steps = 0.1\nlr_scheduler = 'cosine'", "warmup", 0.1),
        ("lr_warmup_steps = 160\nlr_scheduler = 'linear'", "warmup", 0.1),
        ("lr_warmup_steps = 100\nlr_scheduler = 'constant'", "warmup", 0),
        ("lr_warmup_steps = 100\nlr_scheduler = 'cosine'\nmax_train_epochs = 3", "warmup", None),
        ("lr_scheduler = 'polynomial'", "lr_schedule", None),
        ("fp8_base = true\nmixed_precision = 'bf16'", "precision", "int8"),
        ("network_dim = 1024", "rank", None),
        ("resolution = [832, 1216]", "resolution", 992),
        ("multires_noise_iterations = 6\nmultires_noise_discount = 0.4", "multires_discount", 0.4),
        ("multires_noise_discount = 0.4", "multires_discount", None),
        ("loss_type = 'smooth_l1'", "loss", None),
        ("debiased_estimation_loss = true\nmin_snr_gamma = 5", "debiased", True),
        ("optimizer_type = 'PagedAdamW8bit'", "optimizer", "adamw8bit"),
        ("optimizer_type = 'AdamWScheduleFree'", "optimizer", "schedulefree_adamw"),
        ("optimizer_type = 'prodigyplus.ProdigyPlusScheduleFree'", "optimizer", "schedulefree_prodigy"),
        ("optimizer_type = 'CAME'", "optimizer", None),
        ("validation_split = 0.1", "validation_share", 0.1),
        ("validation_split = 0.9", "validation_share", None),
        ("validate_every_n_steps = 25", "validate_every", 25),
        ("masked_loss = true", "masked_loss", True),
        ("alpha_mask = true", "masked_loss", True),
        ("logging_dir = '/logs'", "tensorboard", True),
        ("log_with = 'wandb'\nlogging_dir = '/logs'", "tensorboard", None),
        ("reg_data_dir = '/reg'\nprior_loss_weight = 0.5", "prior_weight", 0.5),
        ("prior_loss_weight = 0.5", "prior_weight", None),
    ],
)
def test_single_entries(tmp_path: Path, text: str, ours: str, becomes: Any) -> None:
    assert read(tmp_path / "a.toml", f"unet_lr = 1e-4\n{text}").settings.get(ours) == becomes


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("network_module = 'networks.lora'", ("transformer", None, None)),
        ("network_module = 'networks.lora'\nnetwork_args = ['conv_dim=4']", ("everything", 4, None)),
        ("network_module = 'networks.dylora'", ("transformer", None, None)),
        ("network_module = 'lycoris.kohya'\nnetwork_args = ['algo=lora', 'conv_dim=4']", ("everything", 4, None)),
        ("network_module = 'lycoris.kohya'\nnetwork_args = ['algo=locon', 'preset=attn-only']", ("attention", None, None)),
        ("network_module = 'lycoris.kohya'\nnetwork_args = ['algo=lora', 'rs_lora=True']", ("everything", None, True)),
        ("LoRA_type = 'Standard'\nconv_dim = 4\nconv_alpha = 1", ("transformer", None, None)),
        ("LoRA_type = 'Kohya LoCon'\nconv_dim = 4\nconv_alpha = 1", ("everything", 4, None)),
        ("LoRA_type = 'LyCORIS/LoCon'\nconv_dim = 4\nLyCORIS_preset = 'attn-mlp'", ("transformer", None, None)),
    ],
)
def test_each_kind_of_network_adapts_the_same_layers(tmp_path: Path, text: str, made: tuple[Any, ...]) -> None:
    settings = read(tmp_path / "a.toml", f"network_dim = 16\nnetwork_alpha = 4\n{text}").settings
    assert tuple(settings.get(name) for name in ("targets", "conv_rank", "rslora")) == made


@pytest.mark.parametrize(
    ("text", "theirs", "why"),
    [
        ("network_module = 'networks.dylora'", "network_module", "a plain LoRA is trained"),
        ("network_module = 'lycoris.kohya'\nnetwork_args = ['algo=lokr']", "network_module", "a plain LoRA is trained"),
        (
            "network_module = 'networks.lora'\nnetwork_args = ['conv_dim=4', 'conv_alpha=4']",
            "network_args.conv_alpha",
            "convolutions are scaled by 0.25 as the other layers, not by 1",
        ),
        ("LoRA_type = 'Standard'\nconv_dim = 4", "conv_dim", "of no effect on a network without convolutions"),
        ("prior_loss_weight = 0.5", "prior_loss_weight", "of no effect without reg_data_dir"),
        ("masked_loss = true", "masked_loss", "the masks lie beside the pictures, as NAME-masklabel.png"),
    ],
)
def test_what_is_nearly_the_same_has_its_reason(tmp_path: Path, text: str, theirs: str, why: str) -> None:
    found = read(tmp_path / "a.toml", f"network_dim = 16\nnetwork_alpha = 4\n{text}")
    assert of(found.changed, theirs).why == why


def test_convolutions_of_the_same_scale_are_taken(tmp_path: Path) -> None:
    arguments = "network_module = 'networks.lora'\nnetwork_args = ['conv_dim=8', 'conv_alpha=2']"
    found = read(tmp_path / "a.toml", f"network_dim = 16\nnetwork_alpha = 4\n{arguments}")
    assert of(found.taken, "network_args.conv_alpha").why == ""
    assert found.changed == []


OUTERMOST = ("down_blocks.0.attentions", "up_blocks.2.attentions")
"""What the table of names has and SDXL has not: nothing attends at full size."""


@pytest.mark.parametrize("side", ["input_blocks", "middle_block", "output_blocks"])
def test_blocks_are_numbered_as_in_the_file(side: str) -> None:
    first = {"input_blocks": 0, "middle_block": 9, "output_blocks": 12}[side]
    by_number: dict[int, set[str]] = {}
    for ours, theirs in keys._BLOCKS.items():
        if theirs.startswith(side) and not ours.startswith(OUTERMOST):
            by_number.setdefault(int(theirs.split("_")[2]), set()).add(ours)
    assert {number: set(kohya_network.BLOCKS[first + number]) for number in by_number} == by_number
    assert len(kohya_network.BLOCKS) == 21


@pytest.mark.parametrize(
    ("arguments", "rates"),
    [
        (["up_lr_weight=0,0.5,1,1,1,1,1,1,1"], ["up_blocks.0.attentions.0=0", "up_blocks.0.attentions.1=0.5"]),
        (["mid_lr_weight=0.25"], None),
        (["mid_lr_weight=1,0.25"], ["mid_block.attentions.0=0.25"]),
        (["down_lr_weight=1,1,1,1,0.1,2", "block_lr_zero_threshold=0.1"],
         ["down_blocks.1.attentions.0=0", "down_blocks.1.attentions.1=2"]),
        (["down_lr_weight=1,1", "conv_dim=4", "mid_lr_weight=2,1,1"], ["mid_block.resnets.0=2"]),
        (["up_lr_weight=sine+.5"], None),
    ],
)  # fmt: skip
def test_rates_of_blocks(tmp_path: Path, arguments: list[str], rates: list[str] | None) -> None:
    found = read(tmp_path / "a.json", {"network_dim": 8, "network_module": "networks.lora", "network_args": arguments})
    assert found.settings.get("block_rates") == rates
    assert {f"network_args.{argument.partition('=')[0]}" for argument in arguments} <= found.named


def test_ranks_of_blocks(tmp_path: Path) -> None:
    dims = ["8"] * 23
    dims[1 + 9 + 1], dims[1 + 12 + 1] = "0", "32"
    config = {"network_dim": 8, "network_module": "networks.lora", "network_args": [f"block_dims={','.join(dims)}"]}
    found = read(tmp_path / "a.json", config)
    assert found.settings["block_ranks"] == ["mid_block.attentions.0=0", "up_blocks.0.attentions.1=32"]
    assert "general rank" in of(found.changed, "network_args.block_dims").why
    short = read(tmp_path / "b.json", {**config, "network_args": ["block_dims=1,2,3"]})
    assert "block_ranks" not in short.settings
    assert of(short.without, "network_args.block_dims")


@pytest.mark.parametrize(
    ("arguments", "ratio"),
    [
        (["loraplus_lr_ratio=16"], 16),
        (["loraplus_unet_lr_ratio=8", "loraplus_text_encoder_lr_ratio=8"], 8),
        (["loraplus_unet_lr_ratio=8", "loraplus_text_encoder_lr_ratio=4"], None),
        (["loraplus_unet_lr_ratio=8"], None),
    ],
)
def test_lora_plus_is_one_ratio(tmp_path: Path, arguments: list[str], ratio: float | None) -> None:
    found = read(tmp_path / "a.json", {"network_dim": 8, "network_args": arguments})
    assert found.settings.get("lora_plus") == ratio
    assert ratio is not None or {entry.why for entry in found.without} == {"lora_plus is one ratio for all parts"}


def test_prior_pictures_are_found_in_the_folder_that_holds_them(tmp_path: Path) -> None:
    (tmp_path / "reg" / "1_house").mkdir(parents=True)
    found = read(tmp_path / "a.toml", f"network_dim = 8\nreg_data_dir = '{(tmp_path / 'reg').as_posix()}'")
    assert Path(found.settings["prior_dataset"]) == tmp_path / "reg" / "1_house"
    elsewhere = read(tmp_path / "b.toml", "network_dim = 8\nreg_data_dir = '/elsewhere'")
    assert elsewhere.settings["prior_dataset"] == "/elsewhere"
    assert "must lie in this folder itself" in of(elsewhere.changed, "reg_data_dir").why


def test_what_a_setting_cannot_be_is_told_with_its_bounds(tmp_path: Path) -> None:
    found = read(tmp_path / "a.toml", "network_dim = 1024")
    assert of(found.without, "network_dim").why == "rank must be a whole number from 1 to 512, not 1024"


def test_subsets_that_differ_are_not_chosen_between(tmp_path: Path) -> None:
    text = "network_dim = 8\n[[datasets]]\n[[datasets.subsets]]\nkeep_tokens = 1\n[[datasets.subsets]]\nkeep_tokens = 2\n"
    found = read(tmp_path / "a.toml", text)
    assert of(found.without, "keep_tokens").value == "(1, 2)"


@pytest.mark.parametrize("value", [True, -1, 0.5, 10**30, 1e400, float("nan"), "words", [1, "a"], [[2]], {"a": 1}, "\n"])
def test_no_value_is_too_odd_for_a_list_or_a_sentence(tmp_path: Path, value: Any) -> None:
    names = (
        set(kohya.SAME)
        | set(kohya_file.DEFAULTS)
        | set(kohya.ELSEWHERE)
        | set(GUI)
        | {"resolution", "num_repeats", "max_timestep", "reg_data_dir", "prior_loss_weight", "logging_dir", "log_with"}
        | {"conv_dim", "conv_alpha", "network_module", "network_args", "masked_loss"}
        | {f"network_args.{name}" for name in ("block_dims", "down_lr_weight", "conv_dim", "loraplus_lr_ratio", "preset")}
    )
    for name in sorted(names | {"optimizer_type", "optimizer_args", "network_train_unet_only", "gradient_accumulation_steps"}):
        found = read(tmp_path / "a.json", {"network_dim": 8, "learning_rate": 1e-4, "LoRA_type": "Standard", name: value})
        assert found.settings.get("rank") == 8 or name == "network_dim"
        json.dumps(found.to_json())


def test_prompts_are_read_from_their_file(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a fox --s 20\n# no\na boat\n", encoding="utf-8")
    path = (tmp_path / "prompts.txt").as_posix()
    assert read(tmp_path / "a.toml", f'network_dim = 8\nsample_prompts = "{path}"').settings["sample_prompts"] == [
        "a fox",
        "a boat",
    ]
    gone = read(tmp_path / "a.toml", 'network_dim = 8\nsample_prompts = "gone.txt"')
    assert of(gone.without, "sample_prompts").why == "the file cannot be read"


def test_all_that_is_written_is_read_back(script: Import, tmp_path: Path) -> None:
    presets.keep(tmp_path / "mine.toml", script.settings)
    settings = presets.load("balanced").settings("sdxl", presets.own(tmp_path / "mine.toml"))
    assert {name: getattr(settings, name) for name in script.settings} == script.settings


def test_the_tables_name_what_there_is() -> None:
    assert set(kohya.SAME.values()) <= set(Settings.model_fields)
    for values, name in ((kohya.OPTIMIZERS, "optimizer"), (kohya.SCHEDULES, "lr_schedule")):
        assert all(validated({name: value}) for value in values.values())


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.toml", "network_dim = ", "cannot be read"),
        ("a.json", '{"network_dim": ', "cannot be read"),
        ("a.json", "[1, 2]", "holds no names with values"),
        ("a.toml", 'title = "a list of things"', "has nothing that a kohya config has"),
        ("a.yaml", "network_dim: 8", "is neither a .toml of sd-scripts nor a .json of the kohya_ss GUI"),
        ("a.toml", "network_dim = 8\nmin_timestep = 500\nmax_timestep = 400", "timestep_max"),
    ],
)
def test_what_is_no_config_is_a_sentence(tmp_path: Path, name: str, content: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        read(tmp_path / name, content)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        imported(tmp_path / "gone.toml")
