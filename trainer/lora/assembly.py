"""A layer of a LoRA file from its tensors, of whatever kind, with shapes that fit each other.

Knows no files: what is wrong is told as a part of a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from trainer.lora.contents import Told
from trainer.lora.delta import Difference, Dora, Factors, Hadamard, Kronecker, Layer, Pair, Tucker
from trainer.lora.forms import Part
from trainer.lora.keys import window_of

Tensors = Mapping[Part, torch.Tensor]

_WAYS: Mapping[Part, str] = {"down": "lora", "up": "lora", "mid": "lora"}
"""The way in which a change is told, by what a tensor is; of the others it is the beginning of their name."""


class Misfit(ValueError):
    """Tensors that make no layer; the text says why."""


def layer_of(name: str, parts: Tensors, told: Told | None) -> Layer:
    """The layer of that name. `told` is its alpha if it is no tensor; without either, alpha is the rank, as in all the field.

    Raises `Misfit`.
    """
    if len(ways := {_WAYS.get(part, part.split("_")[0]) for part in parts} - {"alpha", "dora", "magnitude"}) > 1:
        raise Misfit(f"{name} is told in several ways ({', '.join(sorted(ways))})")
    try:
        layer = _plain(name, parts, told)
    except KeyError:
        raise Misfit(f"{name} lacks one of its two matrices") from None
    except RuntimeError:  # torch's word for shapes that do not go together
        shapes = ", ".join(f"{part} {tuple(tensor.shape)}" for part, tensor in parts.items() if tensor.dim())
        raise Misfit(f"the matrices of {name} do not fit each other, or its place ({shapes})") from None
    return _with_magnitude(name, layer, parts)


def _plain(name: str, parts: Tensors, told: Told | None) -> Layer:
    """The layer without its magnitudes."""
    window = window_of(name)
    if "diff" in parts:
        return Difference(_in_window(parts["diff"], window))
    if "down" in parts or "up" in parts:
        return _low_rank(name, parts, window, told)
    if any(part.startswith("hada") for part in parts):
        one, other = _pair(parts, "hada_w1", "hada_t1"), _pair(parts, "hada_w2", "hada_t2")
        if one.shape != other.shape:
            raise RuntimeError
        return Hadamard(one, other, _alpha(name, parts, one.rank, told), _placed(one.shape, window))
    first = parts["lokr_w1"] if "lokr_w1" in parts else _pair(parts, "lokr_w1", "")
    second = parts["lokr_w2"] if "lokr_w2" in parts else _pair(parts, "lokr_w2", "lokr_t2")
    rank = next((one.rank for one in (second, first) if isinstance(one, Pair)), 0)
    if told and isinstance(first, torch.Tensor) and not rank:
        first = first.float() * told.scale  # PEFT scales them even so
    return Kronecker(first, second, _alpha(name, parts, rank, told), _kronecker_shape(first.shape, second.shape, window))


def _low_rank(name: str, parts: Tensors, window: tuple[int, ...], told: Told | None) -> Layer:
    down, up = parts["down"], parts["up"]
    alpha = _alpha(name, parts, down.shape[0] if down.dim() else 0, told)
    if up.dim() not in (2, 4) or up.shape[2:].numel() != 1 or not up.shape[:2].numel() or up.shape[1:2] != down.shape[:1]:
        raise RuntimeError
    if "mid" in parts:
        mid = parts["mid"]
        if mid.shape[2:] != window or mid.shape[:2] != (down.shape[0], down.shape[0]) or down.shape[2:].numel() != 1:
            raise RuntimeError
        return Tucker(down.flatten(1), mid, up.flatten(1), alpha)
    return Factors(_in_window(down, window), up.view(*up.shape[:2], *(1 for _ in window)), alpha)


def _in_window(tensor: torch.Tensor, window: tuple[int, ...]) -> torch.Tensor:
    """A weight, or what stands on its inner side, in the shape of its place. Raises `RuntimeError`."""
    return tensor.reshape(_placed(tensor.shape, window))


def _placed(shape: torch.Size, window: tuple[int, ...]) -> torch.Size:
    """That shape: files give a 1 x 1 window or none, and a larger one apart or within the inputs.

    Raises `RuntimeError` where it does not go.
    """
    if len(shape) not in (2, 4) or (len(shape) == 4 and math.prod(shape[2:]) != 1 and shape[2:] != window):
        raise RuntimeError
    inward, rest = divmod(math.prod(shape[1:]), math.prod(window))
    if rest or not inward or not shape[0]:
        raise RuntimeError
    return torch.Size((shape[0], inward, *window))


def _pair(parts: Tensors, start: str, core: str) -> Pair:
    """A matrix told as a product. Raises `KeyError`, `RuntimeError`."""
    held: dict[str, torch.Tensor] = dict(parts.items())
    a, b, middle = held[f"{start}_a"], held[f"{start}_b"], held.get(core)
    if a.dim() != 2 or b.dim() != 2 or not b.shape[0] or (middle is not None and middle.dim() != 4):
        raise RuntimeError
    pair = Pair(a, b, middle)
    if middle is None and a.shape[1] != b.shape[0]:
        raise RuntimeError
    if middle is not None and middle.shape[:2] != (a.shape[0], b.shape[0]):
        raise RuntimeError
    return pair


def _kronecker_shape(first: torch.Size, second: torch.Size, window: tuple[int, ...]) -> torch.Size:
    """The shape of the weight. Raises `RuntimeError`."""
    if len(first) != 2 or not math.prod(first):
        raise RuntimeError
    placed = _placed(second, window)
    return torch.Size((first[0] * placed[0], first[1] * placed[1], *window))


def _alpha(name: str, parts: Tensors, rank: int, told: Told | None) -> float:
    if (alpha := parts.get("alpha")) is None:
        return told.of(rank) if told else float(rank)
    if alpha.numel() != 1:
        raise Misfit(f"the alpha of {name} is not one number")
    return float(alpha)


def _with_magnitude(name: str, layer: Layer, parts: Tensors) -> Layer:
    """The layer with its magnitudes, if it is a DoRA. Their shape tells their axis: (out, 1) or (1, in); PEFT's is out."""
    if (given := parts.get("magnitude")) is not None and given.numel() == layer.shape[0]:
        return Dora(layer, given.flatten(), "out")
    if (scale := parts.get("dora_scale")) is None and given is None:
        return layer
    rest = tuple(1 for _ in layer.shape[2:])
    if scale is not None and tuple(scale.shape) in ((layer.shape[0], 1, *rest), (layer.shape[0], 1), (layer.shape[0],)):
        return Dora(layer, scale.flatten(), "out")
    if scale is not None and tuple(scale.shape) in ((1, layer.shape[1], *rest), (1, layer.shape[1])):
        return Dora(layer, scale.flatten(), "in")
    raise Misfit(f"the magnitudes of {name} are neither one for each output nor one for each input")
