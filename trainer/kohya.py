"""Configs of kohya's sd-scripts (`.toml`) and of the kohya_ss GUI (`.json`) as settings of ours. Knows no torch.

Every entry that asks for something ends up in one of three lists: taken (the same value), changed (with the reason), or
without a counterpart. What is empty or switched off asks for nothing. The names and defaults are those of
`sdxl_train_network.py`; a default of theirs that shapes the LoRA counts as if it stood in the file, for ours differ.
"""

from __future__ import annotations

import math
import os
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.errors import SettingsError
from trainer.kohya_entries import Entry, Import
from trainer.kohya_file import Config, defaults_for, plain, read_config
from trainer.kohya_network import network
from trainer.settings_text import validated

SAME = {
    "network_dim": "rank", "network_alpha": "alpha", "train_batch_size": "batch", "batch_size": "batch",
    "max_grad_norm": "max_grad_norm", "min_snr_gamma": "min_snr_gamma", "noise_offset": "noise_offset",
    "caption_dropout_rate": "caption_dropout", "caption_tag_dropout_rate": "tag_dropout", "shuffle_caption": "shuffle_tags",
    "keep_tokens": "keep_tags", "enable_wildcard": "wildcards", "seed": "seed", "optimizer_args.weight_decay": "weight_decay",
    "learning_rate_te1": "te1_lr", "learning_rate_te2": "te2_lr", "save_every_n_steps": "checkpoint_every",
    "sample_every_n_steps": "sample_every", "ip_noise_gamma": "ip_noise_gamma", "huber_c": "huber_c",
    "huber_schedule": "huber_schedule", "min_timestep": "timestep_min", "gradient_accumulation_steps": "accumulation",
    "cache_text_encoder_outputs": "cache_text", "validation_split": "validation_share", "alpha_mask": "masked_loss",
    "validate_every_n_steps": "validate_every",
}  # fmt: skip
"""What means the same under another name."""

ELSEWHERE = {
    "pretrained_model_name_or_path": "name the base with --base",
    "train_data_dir": "name the folder of pictures as DATASET",
    "image_dir": "name the folder of pictures as DATASET",
    "dataset_config": "import that file too: its resolution, batch and repeats belong here",
    "output_dir": "--out names the run's folder",
    "output_name": "--out names the run's folder, and with it the LoRA",
    "clip_skip": "SDXL reads the last layer but one in any case",
    "enable_bucket": "pictures keep their shape in any case",
    "cache_latents": "pictures are encoded once in any case",
    "cache_latents_to_disk": "pictures are encoded once in any case",
    "save_every_n_epochs": "checkpoint_every counts steps",
    "sample_every_n_epochs": "sample_every counts steps",
    "validate_every_n_epochs": "validate_every counts steps",
    "conditioning_data_dir": "put each mask beside its picture, as NAME-masklabel.png",
    "zero_terminal_snr": "it follows from what the base's file says",
    "save_model_as": "the LoRA is a .safetensors in any case",
    "save_state": "every checkpoint holds all that is needed to go on",
    "sdxl": "every base is an SDXL",
    "xformers": "the fastest attention is taken in any case",
    "sdpa": "the fastest attention is taken in any case",
}
"""What is not a setting here."""

CROPS = 4
"""Crops of each picture in place of ever new ones."""

LISTS = ("text_encoder_lr", "resolution")
"""What may be more than one value."""

KNOWN = {*SAME, "learning_rate", "unet_lr", "resolution", "max_resolution", "num_repeats", "network_module", "LoRA_type"}
"""A file with none of these is another one."""

OPTIMIZERS = {
    "adamw": "adamw", "adamw8bit": "adamw8bit", "pagedadamw8bit": "adamw8bit", "adafactor": "adafactor", "lion": "lion",
    "lion8bit": "lion", "pagedlion8bit": "lion", "prodigy": "prodigy", "adamwschedulefree": "schedulefree_adamw",
    "prodigyplusschedulefree": "schedulefree_prodigy",
}  # fmt: skip
SCHEDULES = {
    "cosine": "cosine", "constant": "constant", "linear": "linear", "cosine_with_restarts": "cosine_restarts",
    "constant_with_warmup": "constant",
}  # fmt: skip


def imported(path: Path) -> Import:
    """The config in a file as settings. Raises `SettingsError` for what is no such file, or makes no sense as a whole."""
    config = read_config(path)
    if not KNOWN & set(config):
        raise SettingsError(f"{path} has nothing that a kohya config has, such as network_dim or resolution.")
    defaults = defaults_for(config)
    odd = {name: value for name, value in config.items() if not isinstance(value, str | int | float) and name not in LISTS}
    plain_ones = {name: value for name, value in config.items() if name not in odd}
    told = Import({**defaults, **plain_ones}, frozenset(defaults))
    for convert in (
        _rates, _optimizer, _schedule, _warmup, _length, _resolution, _pictures, _prior, _loss, _base, _samples, _board,
        network,
    ):  # fmt: skip
        convert(told)
    for theirs, value in told.config.items():
        if theirs in told.named:
            continue
        if theirs in SAME:
            told.put(theirs, SAME[theirs], value)
        elif value not in (False, 0):
            told.leave(theirs, ELSEWHERE.get(theirs, ""))
    told.without += [Entry(name, str(value), why="it is not one value") for name, value in odd.items()]
    validated(told.settings)
    return told


def told_import(result: Mapping[str, Any]) -> list[str]:
    """What became of each entry, as lines."""
    lines = []
    for name, title in (("taken", "Taken"), ("changed", "Changed"), ("without", "Without a counterpart")):
        lines += [f"{title}:", *map(_told_entry, result[name])] if result[name] else []
    if "out" not in result:
        return [*lines, "To train with these settings, write them to a file with --out FILE.toml."]
    return [*lines, f"Written. Train with it: impasto train DATASET --settings {result['out']} --out RUN"]


def _told_entry(entry: Mapping[str, Any]) -> str:
    """`network_dim 32 -> rank 32: why`."""
    default = "" if entry["given"] else " (their default)"
    ours = f" -> {entry['ours']} {entry['becomes']}" if entry["ours"] else ""
    value = textwrap.shorten(str(entry["value"]), 60, placeholder=" …")
    return f"  {entry['theirs']} {value}{default}{ours}{': ' if entry['why'] else ''}{entry['why']}"


# What needs more than another name --------------------------------------------------------------------------------------


def _named_optimizer(config: Config) -> tuple[str, str]:
    """Under which name the optimizer stands (empty: it does not), and its name in small letters without its module."""
    theirs = next((name for name in ("optimizer_type", "optimizer") if name in config), "")
    return theirs, str(config.get(theirs, "AdamW")).rpartition(".")[2].lower()


def _optimizer(told: Import) -> None:
    """The same optimizer, or one of its kind; another is told of."""
    theirs, name = _named_optimizer(told.config)
    if theirs and name in OPTIMIZERS:
        plainer = name.startswith("paged") or name == "lion8bit"
        told.put(theirs, "optimizer", OPTIMIZERS[name], "the plainer kind of it" if plainer else "")
    else:
        told.leave(theirs, "the optimizer of the preset takes its place, with the learning rates of the preset")


def _rates(told: Import) -> None:
    """Their one rate counts for whatever has none of its own; a rate for both text encoders becomes one for each."""
    config, (optimizer, name) = told.config, _named_optimizer(told.config)
    names = ("learning_rate", "unet_lr", "text_encoder_lr", "learning_rate_te1", "learning_rate_te2")
    if optimizer and name not in OPTIMIZERS:
        for theirs in names:
            told.leave(theirs, f"a rate for {config[optimizer]} would be wrong for another optimizer")
        return
    own = {theirs for theirs in ("unet_lr", "text_encoder_lr") if theirs in config}
    if own == {"unet_lr", "text_encoder_lr"} and not (config["unet_lr"] or config["text_encoder_lr"]):
        own = set()  # the GUI's way to say that neither is given
    unet, text = (theirs if theirs in own else "learning_rate" for theirs in ("unet_lr", "text_encoder_lr"))
    shared = "it counts for each part that has no rate of its own"
    if config.get("network_train_text_encoder_only"):
        told.put("network_train_text_encoder_only", "unet_lr", 0, "a rate of 0 leaves the U-Net alone")
    elif unet in config:
        told.put(unet, "unet_lr", config[unet], "" if unet == "unet_lr" else shared)
    if config.get("network_train_unet_only"):
        for ours in ("te1_lr", "te2_lr"):
            told.put("network_train_unet_only", ours, 0, "a rate of 0 leaves the text encoder alone")
    elif text in config:
        each = config[text] if isinstance(config[text], list) else [config[text]]
        for ours, rate in zip(("te1_lr", "te2_lr"), [*each, each[-1]], strict=False):
            why = shared if text == "learning_rate" else "" if len(each) > 1 else "each text encoder has its own rate"
            told.put(text, ours, plain(rate), why)
    for theirs in sorted({"learning_rate", "unet_lr", "text_encoder_lr"} - told.named):
        if config.get(theirs):
            told.leave(theirs, "other entries take its place")


def _schedule(told: Import) -> None:
    """The schedule of the learning rate."""
    schedule = told.config.get("lr_scheduler")
    if schedule in SCHEDULES:
        told.put("lr_scheduler", "lr_schedule", SCHEDULES[schedule])
    else:
        told.leave("lr_scheduler", "lr_schedule keeps the preset's value")
    if schedule == "cosine_with_restarts" and "lr_scheduler_num_cycles" in told.config:
        told.put("lr_scheduler_num_cycles", "lr_cycles", told.config["lr_scheduler_num_cycles"])
    elif told.config.get("lr_scheduler_num_cycles") == 1:
        told.same("lr_scheduler_num_cycles")


def _warmup(told: Import) -> None:
    """The warm-up as a share of the steps: theirs is a share, a number of steps, or the GUI's per cent."""
    config, steps = told.config, _steps(told.config)
    theirs = "lr_warmup_steps" if config.get("lr_warmup_steps") or "lr_warmup" not in config else "lr_warmup"
    given = config.get(theirs)
    if not isinstance(given, int | float):
        return
    if config.get("lr_scheduler") == "constant":
        told.put(theirs, "warmup", 0, "their constant schedule has no warm-up" if given else "")
    elif theirs == "lr_warmup":
        told.put(theirs, "warmup", given / 100, "a share of the steps in place of per cent")
    elif given < 1:
        told.put(theirs, "warmup", given)
    elif steps:
        told.put(theirs, "warmup", round(given / steps, 6), f"a share of the {steps} steps")
    else:
        told.leave(theirs, "warmup is a share of the steps, whose number follows from the pictures")


def _steps(config: Config) -> int:
    """The steps, where the config tells their number; else 0. Epochs go before steps, and steps before the GUI's `epoch`."""
    steps = config.get("max_train_steps")
    return steps if isinstance(steps, int) and "max_train_epochs" not in config else 0


def _length(told: Import) -> None:
    """Epochs of so many repeats are passes; steps are steps."""
    config = told.config
    theirs = next((name for name in ("max_train_epochs", "max_train_steps", "epoch") if name in config), "")
    if theirs == "max_train_steps":
        told.put(theirs, "steps", config[theirs])
    elif theirs:
        repeats, where = _repeats(config)
        why = f"each epoch shows a picture {repeats} times, as {where} says" if where else (
            "an epoch counts as one pass; multiply it by the repeats, if the name of the folder has some, as 10_style has"
        )  # fmt: skip
        told.put(theirs, "passes", config[theirs] * repeats, why)
        told.put(theirs, "steps", 0, "the passes tell how long it lasts")
        if where == "num_repeats":
            told.same(where, "counted in the passes")
    for other in ("max_train_epochs", "max_train_steps", "epoch"):
        if other != theirs and other not in told.absent:
            told.leave(other, f"{theirs} goes before it")


def _repeats(config: Config) -> tuple[int, str]:
    """How often an epoch shows a picture, and what says so: an entry, or the folder's name; 1 and nothing, if unknown."""
    if isinstance(config.get("num_repeats"), int):
        return config["num_repeats"], "num_repeats"
    found = {int(name.partition("_")[0]): name for name in _repeated(config, "train_data_dir")}
    return next(iter(found.items())) if len(found) == 1 else (1, "")


def _repeated(config: Config, theirs: str) -> list[str]:
    """The folders in the folder of an entry whose names tell how often their pictures are shown, as 10_style does."""
    folder = Path(str(config.get(theirs, "")))
    inside = os.listdir(folder) if theirs in config and os.access(folder, os.R_OK) and folder.is_dir() else []
    return [name for name in inside if re.match(r"\d{1,9}_", name)]


def _resolution(told: Import) -> None:
    """One side of a square with about as many pixels."""
    theirs = "resolution" if "resolution" in told.config else "max_resolution"
    numbers = [int(number) for number in re.findall(r"\d{1,9}", str(told.config.get(theirs, "")))]
    if len(numbers) == 1 or (len(numbers) == 2 and numbers[0] == numbers[1]):
        told.put(theirs, "resolution", numbers[0])
    elif len(numbers) == 2 and min(numbers):
        side = 32 * round(math.sqrt(math.prod(numbers)) / 32)
        told.put(theirs, "resolution", side, "the side of a square with about as many pixels")


def _pictures(told: Import) -> None:
    """How pictures are turned and enlarged, and until when the text encoders learn."""
    config = told.config
    if config.get("flip_aug"):
        told.put("flip_aug", "flip", True, "every picture is shown both ways, not by chance")
    if config.get("random_crop"):
        told.put("random_crop", "crops", CROPS, "so many crops of each picture, which are cached, in place of ever new ones")
    if config.get("masked_loss"):
        told.put("masked_loss", "masked_loss", True, "the masks lie beside the pictures, as NAME-masklabel.png")
    if config.get("bucket_no_upscale"):
        told.put("bucket_no_upscale", "max_upscale", 1, "1 enlarges no picture")
    stop = config.get("stop_text_encoder_training")
    if "LoRA_type" in config and isinstance(stop, int) and 0 < stop <= 100:
        for ours in ("te1_stop", "te2_stop"):
            told.put("stop_text_encoder_training", ours, stop / 100, "a share of the steps in place of per cent")


def _prior(told: Import) -> None:
    """The pictures that are not of the style; here they lie in one folder, and are shown as often as the others."""
    given = told.config.get("reg_data_dir")
    if isinstance(given, str):
        inside = _repeated(told.config, "reg_data_dir")
        folder = str(Path(given) / inside[0]) if len(inside) == 1 else given
        why = "the folder in it that holds the pictures" if folder != given else "the pictures must lie in this folder itself"
        told.put("reg_data_dir", "prior_dataset", folder, why)
        if "prior_loss_weight" in told.config:
            told.put("prior_loss_weight", "prior_weight", told.config["prior_loss_weight"])
    elif "prior_loss_weight" in told.config:
        told.same("prior_loss_weight", "of no effect without reg_data_dir")


def _loss(told: Import) -> None:
    """The loss, its noise, and the time steps, of which their last is the first that is not drawn."""
    config, losses = told.config, {"l2": "mse", "huber": "huber"}
    if config.get("loss_type") in losses:
        told.put("loss_type", "loss", losses[config["loss_type"]])
    if config.get("multires_noise_iterations"):
        told.put("multires_noise_iterations", "multires_noise", config["multires_noise_iterations"])
        if "multires_noise_discount" in config:
            told.put("multires_noise_discount", "multires_discount", config["multires_noise_discount"])
    elif config.get("multires_noise_discount"):
        told.same("multires_noise_discount", "of no effect without multires_noise_iterations")
    if config.get("debiased_estimation_loss"):
        told.put(
            "debiased_estimation_loss", "debiased", True, "it takes the place of min-SNR" if config.get("min_snr_gamma") else ""
        )
    if isinstance(last := config.get("max_timestep"), int):
        told.put("max_timestep", "timestep_max", last - 1, "the last one that is drawn")


def _base(told: Import) -> None:
    """How the base is kept and what it predicts."""
    config = told.config
    if config.get("fp8_base"):
        told.put("fp8_base", "precision", "int8", "8 bits of another kind")
        told.leave("mixed_precision", "fp8_base goes before it")
    elif "mixed_precision" in config:
        full = config["mixed_precision"] == "no"
        told.put("mixed_precision", "precision", "fp32" if full else config["mixed_precision"], "its name here" if full else "")
    if config.get("gradient_checkpointing"):
        told.put("gradient_checkpointing", "recompute", "full", "every block is computed a second time")
    if config.get("v_parameterization"):
        told.put("v_parameterization", "prediction", "v_prediction", "its name here")


def _board(told: Import) -> None:
    """TensorBoard's files, which lie in the run's folder; naming a folder for them asks for them as well."""
    asked, where = told.config.get("log_with"), "logging_dir" in told.config
    if asked in ("tensorboard", "all") or (asked is None and where):
        told.put("log_with" if asked else "logging_dir", "tensorboard", True, "they lie in the run's folder, in board")
    if asked:
        told.leave("logging_dir", "the run's folder holds all of it")


def _samples(told: Import) -> None:
    """The prompts of the samples, without the options behind them; they stand in a file, or in the GUI's own text."""
    given = told.config.get("sample_prompts")
    if not isinstance(given, str):
        return
    path = Path(given)
    if "\n" not in given and path.suffix.lower() == ".txt":
        try:
            given = path.read_text(encoding="utf-8-sig")
        except (OSError, ValueError):
            told.leave("sample_prompts", "the file cannot be read")
            return
    lines = [line.split(" --")[0].strip() for line in given.splitlines() if not line.lstrip().startswith("#")]
    told.put("sample_prompts", "sample_prompts", [line for line in lines if line], "without the options behind the prompts")
