"""The inverse of the names in a file: which module of a base a layer belongs to. Knows no model and no tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

from trainer.errors import UsageError
from trainer.lora.keys import Component, file_name
from trainer.lora.shape import within

_ATTENTION = (
    "proj_in", "proj_out",
    *(
        f"transformer_blocks.{number}.{layer}"
        for number in range(10)
        for layer in (
            *(f"{attention}.{side}" for attention in ("attn1", "attn2") for side in ("to_q", "to_k", "to_v", "to_out.0")),
            "ff.net.0.proj", "ff.net.2",
        )
    ),
)  # fmt: skip
_RESNET = ("conv1", "time_emb_proj", "conv2", "conv_shortcut")
_OUTSIDE = (
    "conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2",
    "add_embedding.linear_1", "add_embedding.linear_2",
)  # fmt: skip
_ENCODER = (*(f"self_attn.{side}_proj" for side in ("q", "k", "v", "out")), "mlp.fc1", "mlp.fc2")


def place_of(name: str) -> tuple[Component, str] | None:
    """The part of the base and the module's path, of a name as `keys.file_name` gives it; None for any other name."""
    return _places().get(name)


def is_block(block: str) -> bool:
    """Whether SDXL's U-Net has a block, or a module, of that path."""
    return any(component == "unet" and within(block, path) for component, path in _places().values())


def check_blocks(blocks: Iterable[str]) -> None:
    """Raise `UsageError` unless each is `unet`, for all of it, or a block of SDXL's U-Net."""
    if strange := [block for block in blocks if block != "unet" and not is_block(block)]:
        raise UsageError(f"The U-Net has no block {strange[0]}: name one such as down_blocks, mid_block or up_blocks.0.")


@cache
def _places() -> dict[str, tuple[Component, str]]:
    """All of SDXL's layers that a LoRA of any trainer adapts, and some that it has not: blocks are taken to be equally deep."""
    depths: dict[Component, int] = {"te1": 12, "te2": 32}
    places: list[tuple[Component, str]] = [("unet", path) for path in _unet()]
    for component, depth in depths.items():
        places += [(component, f"encoder.layers.{number}.{layer}") for number in range(depth) for layer in _ENCODER]
    places.append(("te2", "text_projection"))
    return {file_name(*place): place for place in places}


def _unet() -> Iterator[str]:
    yield from _OUTSIDE
    blocks = {**{f"down_blocks.{n}": 2 for n in range(3)}, "mid_block": 2, **{f"up_blocks.{n}": 3 for n in range(3)}}
    for block, depth in blocks.items():
        for number in range(depth):
            yield from (f"{block}.resnets.{number}.{layer}" for layer in _RESNET)
        for number in range(1 if block == "mid_block" else depth):
            yield from (f"{block}.attentions.{number}.{layer}" for layer in _ATTENTION)
    yield from (f"down_blocks.{level}.downsamplers.0.conv" for level in range(2))
    yield from (f"up_blocks.{level}.upsamplers.0.conv" for level in range(2))
