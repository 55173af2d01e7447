"""The kind of network that a config of kohya's asks for, as what our LoRA is made of.

Their `networks.lora` adapts attention, feed-forward layers and projections, with `conv_dim` convolutions too; a LyCORIS `lora`
adapts convolutions unless its preset says otherwise. SDXL's blocks are numbered as their files name them: 9 on the way down,
3 in the middle, 9 on the way up (`get_block_index` in sd-scripts' `networks/lora.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from trainer.kohya_entries import Import
from trainer.settings import Targets

ARGS = "network_args."

PLAIN = ("networks.lora", "Standard")
WITH_CONVOLUTIONS = ("Kohya LoCon", "LyCORIS/LoCon")

PRESETS: dict[str, Targets] = {"full": "everything", "attn-mlp": "transformer", "attn-only": "attention"}
"""What a preset of LyCORIS adapts."""


def _blocks() -> Iterator[tuple[str, ...]]:
    """The modules of each of their 21 blocks, by our names; what is deeper in the U-Net attends."""
    yield ()  # the first one only takes the latents in
    for level in range(3):
        for place in range(2):
            yield _block(f"down_blocks.{level}", place, attends=level > 0)
        if level < 2:
            yield (f"down_blocks.{level}.downsamplers.0",)
    yield ("mid_block.resnets.0",)
    yield ("mid_block.attentions.0",)
    yield ("mid_block.resnets.1",)
    for level in range(3):
        for place in range(3):
            grows = (f"up_blocks.{level}.upsamplers.0",) if level < 2 and place == 2 else ()
            yield _block(f"up_blocks.{level}", place, attends=level < 2) + grows


def _block(level: str, place: int, attends: bool) -> tuple[str, ...]:
    return (f"{level}.resnets.{place}", *([f"{level}.attentions.{place}"] if attends else []))


BLOCKS = tuple(_blocks())

WEIGHTS = (("down_lr_weight", 9), ("mid_lr_weight", 3), ("up_lr_weight", 9))
"""Their factors of the learning rate, and for how many blocks each stands."""


def network(told: Import) -> None:
    """What is adapted, with which ranks and rates."""
    targets = _kind(told)
    if targets == "everything":
        _convolutions(told)
    _ratio(told)
    _block_ranks(told)
    _block_rates(told)


def _kind(told: Import) -> Targets | None:
    """Which layers their kind of network adapts; another kind becomes a plain LoRA, which is told of."""
    config = told.config
    theirs = next((name for name in ("network_module", "LoRA_type") if name in config), "")
    if not theirs:
        return None
    given, algorithm = config[theirs], str(config.get(f"{ARGS}algo", "lora")).lower()
    lycoris = given == "lycoris.kohya"
    targets: Targets = "transformer"
    if lycoris or given == "LyCORIS/LoCon":
        preset = next((name for name in (f"{ARGS}preset", "LyCORIS_preset") if name in config), "")
        targets = PRESETS.get(str(config.get(preset, "full")), "everything")
        if preset and config[preset] in PRESETS:
            told.put(preset, "targets", targets)
    elif given in WITH_CONVOLUTIONS or (given == "networks.lora" and config.get(f"{ARGS}conv_dim")):
        targets = "everything"
    alike = given in PLAIN + WITH_CONVOLUTIONS or (lycoris and algorithm in ("lora", "locon"))
    told.put(theirs, "targets", targets, "" if alike else "a plain LoRA is trained")
    if theirs == "network_module" and "LoRA_type" in config:
        told.same("LoRA_type")
    if lycoris and alike and f"{ARGS}algo" in config:
        told.same(f"{ARGS}algo")
    if lycoris and config.get(f"{ARGS}rs_lora"):
        told.put(f"{ARGS}rs_lora", "rslora", True)
    if targets != "everything":
        for name in ("conv_dim", "conv_alpha"):
            if name in config:
                told.same(name, "of no effect on a network without convolutions")
    return targets


def _convolutions(told: Import) -> None:
    """The rank of 3 x 3 convolutions. They share the scale of the other layers here."""
    config = told.config
    dim, alpha = (next((name for name in (f"{ARGS}{part}", part) if name in config), "") for part in ("conv_dim", "conv_alpha"))
    if not dim:
        return
    told.put(dim, "conv_rank", config[dim])
    lycoris = "lycoris" in str(config.get("network_module", config.get("LoRA_type", ""))).lower()
    scales = (
        _scale(config.get("network_alpha"), config.get("network_dim")),
        _scale(config.get(alpha, config.get("network_alpha") if lycoris else 1), config[dim]),
    )
    if math.isclose(*scales):
        if alpha:
            told.same(alpha)
    elif all(map(math.isfinite, scales)):
        told.same(alpha or dim, "convolutions are scaled by {:g} as the other layers, not by {:g}".format(*scales))


def _scale(alpha: Any, rank: Any) -> float:
    """What a reader multiplies by; not a number if these are none."""
    return alpha / rank if _is_number(alpha) and _is_number(rank) and rank else math.nan


def _ratio(told: Import) -> None:
    """LoRA+: one ratio for all parts."""
    names = [f"{ARGS}loraplus_{part}lr_ratio" for part in ("", "unet_", "text_encoder_")]
    given = {name: told.config[name] for name in names if name in told.config}
    if len(set(map(str, given.values()))) == 1 and (names[0] in given or len(given) == 2):
        for name, value in given.items():
            told.put(name, "lora_plus", value)
    for name in given.keys() - told.named:
        told.leave(name, "lora_plus is one ratio for all parts")


def _block_ranks(told: Import) -> None:
    """Ranks of single blocks; the first and the last of their 23 have no layers."""
    theirs, general = f"{ARGS}block_dims", told.config.get("network_dim")
    numbers = _numbers(told.config.get(theirs))
    if len(numbers) != len(BLOCKS) + 2 or not all(number == int(number) >= 0 for number in numbers):
        return
    ranks = _by_block(numbers[1:-1], general, told.settings.get("targets") == "everything")
    if ranks:
        told.put(theirs, "block_ranks", ranks, "all of them keep the scale alpha / rank of the general rank")
    else:
        told.same(theirs)


def _block_rates(told: Import) -> None:
    """Factors of the learning rate of single blocks. Their named curves are left alone."""
    given = {f"{ARGS}{name}": count for name, count in WEIGHTS if f"{ARGS}{name}" in told.config}
    numbers: list[float] = []
    for name, count in WEIGHTS:
        found = _numbers(told.config.get(f"{ARGS}{name}", "1"))
        numbers += [*found, *[1.0] * count][:count]
        if not found:
            told.leave(f"{ARGS}{name}", "write its factors as block_rates")
            return
    least = told.config.get(f"{ARGS}block_lr_zero_threshold", 0)
    if not given or not _is_number(least):
        return
    kept = [number if number > least else 0.0 for number in numbers]
    rates = _by_block(kept, 1, told.settings.get("targets") == "everything")
    for theirs in given:
        if rates:
            told.put(theirs, "block_rates", rates)
        else:
            told.same(theirs)
    if f"{ARGS}block_lr_zero_threshold" in told.config:
        told.same(f"{ARGS}block_lr_zero_threshold")


def _by_block(numbers: Sequence[float], general: Any, convolutions: bool) -> list[str]:
    """Numbers of their 21 blocks as ours, where they are not the general one and something is adapted."""
    parted = zip(BLOCKS, numbers, strict=True)
    return [
        f"{module}={number:.6f}".rstrip("0").rstrip(".")
        for modules, number in parted
        for module in modules
        if number != general and (convolutions or ".attentions." in module)
    ]


def _numbers(given: Any) -> list[float]:
    """The numbers of a text such as `0.5,1,1`; none where it is another text."""
    parts = str(given).split(",") if isinstance(given, str | int | float) and not isinstance(given, bool) else []
    plain = all(re.fullmatch(r"\s*(\d{1,9}\.?\d{0,9}|\.\d{1,9})\s*", part) for part in parts)
    return [float(part) for part in parts] if plain else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
