"""A mix of LoRAs added for good to a single-file checkpoint: a new file, written tensor by tensor.

Sums are made in float64 and rounded once. A tensor that changes is written as the file has it, but for bfloat16: that would
swallow much of a weak LoRA, so it becomes float16, which is as large and eight times as fine. Every other byte is the base's.
Knows what the tensors hold from `names.py`, builds no model and holds one tensor at a time.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import torch

from trainer.bases.names import How, Part, weights_of
from trainer.bases.single import THIRDS
from trainer.errors import BaseModelError, LoraFileError, StorageError, UsageError, storing
from trainer.home import write_blocks
from trainer.lora.delta import Layer
from trainer.lora.keys import named
from trainer.lora.weights import Weighted
from trainer.tensorfile import Header, TensorInfo, read_header

_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_WRITTEN = {"F32": "F32", "F16": "F16", "BF16": "F16"}
_STALE = ("modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash", "modelspec.thumbnail")
"""What a checkpoint's header tells of its weights, and is no longer true."""


@dataclass(frozen=True)
class _Spot:
    """A weight of the models inside a tensor of the file, and what is added to it."""

    tensor: str
    how: How
    shape: tuple[int, ...]
    path: str
    added: list[tuple[float, Layer]] = field(default_factory=list)


def bake(base: Path, mix: Sequence[Weighted], out: Path, texts: Mapping[str, str], told: Callable[[int, int], None]) -> int:
    """Write `base` with `mix` in it to `out`, `texts` into its header; returns how many weights have changed.

    `told` hears how many tensors of how many are done. Raises `BaseModelError`, `LoraFileError`, `UsageError` and
    `StorageError`.
    """
    header = read_header(base, BaseModelError)
    spots = _spots(header.tensors)
    for part in mix:
        _place(part, spots, base.name)
    changed: dict[str, list[_Spot]] = {}
    for spot in spots.values():
        if spot.added:
            changed.setdefault(spot.tensor, []).append(spot)
    if not changed:
        raise UsageError("Every weight is 0, so that nothing would change: give at least one LoRA a weight.")
    for name in changed:
        if header.tensors[name].dtype not in _TYPES:
            kept = header.tensors[name].dtype
            raise BaseModelError(f"{base.name} keeps its weights in {kept}, too coarse to add to: choose it in fp16 or bf16.")
    _check_room(out, base.stat().st_size)
    with storing(out):
        write_blocks(out, _blocks(base, header, changed, texts, told))
    return sum(map(len, changed.values()))


def _spots(tensors: Mapping[str, TensorInfo]) -> dict[str, _Spot]:
    """Every weight that a LoRA may adapt, by its name in LoRA files."""
    found: dict[str, _Spot] = {}
    for tensor, info in tensors.items():
        for weight in weights_of(tensor):
            path = weight.name.removesuffix(".weight")
            if name := _named(weight.part, path) if path != weight.name else None:
                shape = info.shape[::-1] if weight.how == "transposed" else info.shape
                rows = shape[0] // 3 if weight.how in THIRDS else shape[0]
                found[name] = _Spot(tensor, weight.how, (rows, *shape[1:]), path)
    return found


def _named(part: Part, path: str) -> str | None:
    """What LoRA files call a module; None for one of the VAE."""
    return None if part == "vae" else named(part, path.replace(".", "_"))


def _place(part: Weighted, spots: Mapping[str, _Spot], base: str) -> None:
    """Give each layer of a LoRA to the weight that it is for."""
    layers = part.lora.layers
    wrong = [name for name, layer in layers.items() if name not in spots or spots[name].shape != tuple(layer.shape)]
    if wrong:
        raise LoraFileError(
            f"{part.lora.name} does not fit {base}: {len(wrong)} of its {len(layers)} layers have no counterpart there, "
            f"such as {wrong[0]}."
        )
    for name, layer in layers.items():
        spot = spots[name]
        if weight := part.weight_of("unet" if name.startswith("lora_unet_") else "te1", spot.path):
            spot.added.append((weight, layer))


def _check_room(out: Path, needed: int) -> None:
    """Raise `StorageError` where the disk is too full: it would be known only after gigabytes otherwise."""
    folder = next(folder for folder in out.absolute().parents if folder.is_dir())
    if (free := shutil.disk_usage(folder).free) < needed:
        raise StorageError(
            f"{out} needs {needed / 1e9:,.2f} GB, of which {folder} has {free / 1e9:,.2f} GB free: make room there, "
            "or choose another disk."
        )


def _blocks(
    base: Path, header: Header, changed: Mapping[str, list[_Spot]], texts: Mapping[str, str], told: Callable[[int, int], None]
) -> Iterator[bytes]:
    """The new file, piece by piece, its tensors in the order of the old one."""
    order = sorted(header.tensors, key=lambda name: header.tensors[name].begin)
    metadata = {key: text for key, text in header.metadata.items() if key not in _STALE}
    table: dict[str, object] = {"__metadata__": {**metadata, **texts}}
    place = 0
    for name in order:
        info = header.tensors[name]
        end = place + info.end - info.begin
        dtype = _WRITTEN[info.dtype] if name in changed else info.dtype
        table[name] = {"dtype": dtype, "shape": info.shape, "data_offsets": [place, end]}
        place = end
    content = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)
    yield struct.pack("<Q", len(content)) + content
    with base.open("rb") as file:
        for done, name in enumerate(order, 1):
            info = header.tensors[name]
            read = _read(file, header.size + info.begin, info.end - info.begin, base)
            yield _changed(read, info, changed[name], base.name) if name in changed else read
            told(done, len(order))


def _read(file: BinaryIO, begin: int, size: int, base: Path) -> bytes:
    """A tensor's bytes. Raises `BaseModelError` if they cannot be read, for the new file is not to blame."""
    try:
        file.seek(begin)
        content = file.read(size)
    except OSError as error:
        raise BaseModelError(f"{base} cannot be read ({error.strerror or error}).") from None
    if len(content) != size:
        raise BaseModelError(f"{base} was changed while it was read: bake again.")
    return content


@torch.no_grad()
def _changed(content: bytes, info: TensorInfo, spots: Sequence[_Spot], base: str) -> bytes:
    """A tensor's bytes with all that is added to it."""
    tensor = torch.frombuffer(bytearray(content), dtype=_TYPES[info.dtype]).view(info.shape).double()
    for spot in spots:
        weight = _inside(tensor, spot.how)
        weight += torch.stack([share * layer.change(weight, torch.float64) for share, layer in spot.added]).sum(0)
    written = tensor.to(_TYPES[_WRITTEN[info.dtype]])
    if not torch.isfinite(written).all():
        raise BaseModelError(f"{base} with this mix has weights too large for float16 ({spots[0].tensor}): lower the weights.")
    return written.numpy().tobytes()


def _inside(tensor: torch.Tensor, how: How) -> torch.Tensor:
    """A weight of a model as a view of the file's tensor."""
    if how in THIRDS:
        return tensor.chunk(3)[THIRDS[how]]
    return tensor.T if how == "transposed" else tensor
