"""What SDXL's models take of a machine, counted by running them with nothing allocated, on torch's meta device.

Every operation runs as far as its shapes, so that what is counted is what this code does with these versions of torch and
diffusers: no formula that could fall behind. Knows nothing of cards, precisions of weights or what is made of the figures.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from trainer.bases.names import Part
from trainer.errors import BaseModelError
from trainer.lora.adapter import Adapter
from trainer.lora.keys import Component
from trainer.sdxl.counts import Count, Subject
from trainer.sdxl.quantise import QuantisedLinear, quantise
from trainer.sdxl.recompute import recompute
from trainer.settings import Packing, Precision, Recompute

META = torch.device("meta")
TOKENS = 77
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Meter(TorchDispatchMode):
    """Counts the operations run under it, and the bytes of what they make as long as it lives.

    SDXL's blocks are alike: of operations on the same shapes only the first is run, and the others, under this meter or a
    later one, are given results of its results' shape. That more than halves the time.
    """

    _runs: ClassVar[dict[Any, _Run]] = {}

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        """`known` tensors were there before and are not counted."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = self.flops = self.traffic = self.launches = 0
        self._storages: dict[int, Any] = {tensor.untyped_storage()._cdata: None for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count it."""
        kwargs = kwargs or {}
        if func.is_view:
            return func(*args, **kwargs)
        key = (func, _outline(args), _outline(tuple(kwargs.items())))
        run = self._runs.get(key)
        if run and run.makes:
            made = run.made()
        else:
            made = func(*args, **kwargs)
            run = run or self._runs.setdefault(key, _Run.of(func, args, kwargs, made))
        self.launches += 1
        self.flops += run.flops
        self.traffic += run.traffic
        for tensor in _tensors(made if isinstance(made, tuple | list) else (made,)):
            self._see(tensor.untyped_storage())
        return made

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._storages:
            self._storages[key] = weakref.ref(storage, lambda _: self._forget(key, size))
            self.live += size
            self.peak = max(self.peak, self.live)

    def _forget(self, key: int, size: int) -> None:
        del self._storages[key]
        self.live -= size


@dataclass(frozen=True)
class _Run:
    """What an operation on certain shapes takes and makes."""

    flops: int
    traffic: int
    makes: tuple[Any, ...]
    """Size, stride and type of each result; empty where it must be run each time, as it makes no new tensors alone."""
    single: bool

    @classmethod
    def of(cls, func: Any, args: Any, kwargs: Any, made: Any) -> _Run:
        single = isinstance(made, torch.Tensor)
        results = (made,) if single else made
        count = flop_registry.get(func._overloadpacket)
        inputs = list(_tensors(args))
        old = {tensor.untyped_storage()._cdata for tensor in inputs}
        new = isinstance(results, tuple) and all(
            isinstance(each, torch.Tensor) and each.is_meta and each.untyped_storage()._cdata not in old for each in results
        )
        return cls(
            flops=count(*args, **kwargs, out_val=made) if count else 0,
            traffic=sum(tensor.nbytes for tensor in (*inputs, *_tensors(results if isinstance(results, tuple | list) else ()))),
            makes=tuple((each.size(), each.stride(), each.dtype) for each in results) if new else (),
            single=single,
        )

    def made(self) -> Any:
        """New results."""
        results = tuple(torch.empty_strided(size, stride, dtype=dtype, device=META) for size, stride, dtype in self.makes)
        return results[0] if self.single else results


def _outline(value: Any) -> Any:
    """Shapes in place of tensors: something to look up by."""
    if isinstance(value, torch.Tensor):
        return (value.size(), value.stride(), value.dtype)
    return tuple(map(_outline, value)) if isinstance(value, tuple | list) else value


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    return (value for value in values if isinstance(value, torch.Tensor))


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Attention as cards compute it. Left alone, the meta device would take the one that spells all scores out."""
    usual = F.scaled_dot_product_attention

    def fused(query: Any, key: Any, value: Any, *_: Any, is_causal: bool = False, **__: Any) -> torch.Tensor:
        made: torch.Tensor = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, 0.0, is_causal)[0]
        return made

    F.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        F.scaled_dot_product_attention = usual


def _attention(subject: Subject) -> AbstractContextManager[object]:
    """Attention as the subject has it: fused, or with the score of every pair of a query and a key in memory."""
    return _fused_attention() if subject.fused else sdpa_kernel(SDPBackend.MATH)


class Skeleton:
    """SDXL's models without their weights, of one type."""

    def __init__(self, configs: Path, dtype: torch.dtype) -> None:
        """`configs` is a diffusers folder, of which the configs are read. Raises `BaseModelError`."""
        self.dtype = dtype
        try:
            text1, text2 = (CLIPTextConfig.from_pretrained(configs / name) for name in ("text_encoder", "text_encoder_2"))
            with META:
                self.unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(configs / "unet"))
                self.vae = AutoencoderKL.from_config(AutoencoderKL.load_config(configs / "vae"))
                self.te1, self.te2 = CLIPTextModel(text1), CLIPTextModelWithProjection(text2)
        except (OSError, ValueError, KeyError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise BaseModelError(f"The configs in {configs} could not be read ({first}): download the base again.") from None
        for model in self.parts.values():
            model.eval().requires_grad_(False)
            for parameter in model.parameters():  # `model.to` would warn of layers that SDXL does not have
                parameter.data = parameter.data.to(dtype)
        self.vae.eval().requires_grad_(False)

    @property
    def parts(self) -> dict[Component, nn.Module]:
        """The models that a LoRA may change."""
        return {"unet": self.unet, "te1": self.te1, "te2": self.te2}

    @property
    def models(self) -> dict[Part, nn.Module]:
        """All four."""
        return {"unet": self.unet, "te1": self.te1, "te2": self.te2, "vae": self.vae}

    def read(self, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What the text encoders make of captions: context and pooled output."""
        tokens = torch.zeros(batch, TOKENS, dtype=torch.long, device=META)
        first, second = (encoder(tokens, output_hidden_states=True) for encoder in (self.te1, self.te2))
        return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1), second.text_embeds

    def answer(self, side: int, context: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """What the U-Net says to noise for pictures of `side` pixels."""
        batch = len(context)
        latents = torch.empty(batch, 4, side // 8, side // 8, dtype=self.dtype, device=META)
        conditions = {"text_embeds": pooled, "time_ids": torch.empty(batch, 6, device=META)}
        made: torch.Tensor = self.unet(latents, torch.empty(batch, device=META), context, added_cond_kwargs=conditions).sample
        return made

    def tensors(self) -> Iterator[torch.Tensor]:
        """Every parameter and buffer."""
        for model in self.models.values():
            yield from model.parameters()
            yield from model.buffers()


def count_step(subject: Subject, how: Recompute, batch: int = 1) -> Count:
    """One step on square pictures, to the gradients; those of the step before are there already.

    It begins with their captions where a text encoder is trained, and else with what was read of them before.
    """
    with _adapted(subject) as (skeleton, adapter):
        trained = [parameter for component in subject.trained for parameter in adapter.parameters(component)]
        gradients = [torch.empty_like(parameter) for parameter in trained]
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.grad = gradient
        recompute(skeleton.parts, how)
        text = None if subject.reads else skeleton.read(batch)
        with _attention(subject), Meter([*skeleton.tensors(), *gradients, *(text or ())]) as meter:
            loss = skeleton.answer(subject.side, *(text or skeleton.read(batch))).float().pow(2).mean()
            saved = meter.live
            torch.autograd.backward([loss])
        recompute(skeleton.parts, "none")
    return Count(saved, meter.peak, meter.flops, meter.traffic, meter.launches)


def count_reading(subject: Subject) -> Count:
    """Both text encoders without a LoRA, once, on one caption."""
    skeleton = _skeleton(subject)
    return _without_gradients(subject, skeleton.tensors(), lambda: skeleton.read(1))


def count_unet(subject: Subject, batch: int) -> Count:
    """The U-Net alone and without a LoRA, once, on square pictures."""
    skeleton = _skeleton(subject)
    with torch.no_grad():
        context, pooled = skeleton.read(batch)
    return _without_gradients(subject, skeleton.tensors(), lambda: skeleton.answer(subject.side, context, pooled))


def count_decode(subject: Subject, side: int) -> Count:
    """The VAE's way from latents to a square picture, in float32."""
    vae = _skeleton(subject).vae
    return _without_gradients(
        subject, vae.parameters(), lambda: vae.decode(torch.empty(1, 4, side // 8, side // 8, device=META))
    )


def count_encode(subject: Subject, side: int) -> Count:
    """The VAE's way from a square picture to latents, in float32."""
    vae = _skeleton(subject).vae
    return _without_gradients(subject, vae.parameters(), lambda: vae.encode(torch.empty(1, 3, side, side, device=META)))


def count_unpacking(subject: Subject, packing: Packing) -> Count:
    """Every packed layer of the models that a LoRA may change, once made whole."""
    skeleton = _packed(subject.configs, subject.half, packing)
    layers = [each for part in skeleton.parts.values() for each in part.modules() if isinstance(each, QuantisedLinear)]
    return _without_gradients(subject, skeleton.tensors(), lambda: [layer.weight.shape for layer in layers])


def count_weights(subject: Subject, precision: Precision) -> dict[Part, int]:
    """Bytes of each model's weights."""
    if precision in ("int8", "nf4"):
        skeleton, size = _packed(subject.configs, subject.half, precision), None
    else:
        skeleton, size = _skeleton(subject), _DTYPES[precision].itemsize
    return {part: _bytes(model, 4 if size and part == "vae" else size) for part, model in skeleton.models.items()}


def _bytes(model: nn.Module, size: int | None) -> int:
    """Of its weights, each number taking `size` bytes, or as many as it has."""
    weights = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.dtype != torch.long]
    return sum(tensor.numel() * (size or tensor.itemsize) for tensor in weights)


def count_matrices(subject: Subject) -> dict[Component, list[tuple[list[int], int, bool]]]:
    """Shape, number and whether they begin as zeros, of the trained matrices of each part that is trained."""
    with _adapted(subject) as (_, adapter):
        found: dict[Component, Counter[tuple[torch.Size, bool]]] = {
            part: Counter((matrix.shape, matrix is layer.up) for layer in layers.values() for matrix in (layer.down, layer.up))
            for part, layers in adapter.layers.items()
        }
    return {part: [([*shape], number, zero) for (shape, zero), number in each.items()] for part, each in found.items()}


def count_mixable(subject: Subject) -> int:
    """Bytes of the linear layers and convolutions, which LoRAs may change, whoever made them."""
    parts = _skeleton(subject).parts.values()
    return sum(layer.weight.nbytes for part in parts for layer in part.modules() if isinstance(layer, nn.Linear | nn.Conv2d))


def _skeleton(subject: Subject) -> Skeleton:
    return _bare(subject.configs, torch.bfloat16 if subject.half else torch.float32)


@lru_cache(maxsize=2)
def _bare(configs: Path, dtype: torch.dtype) -> Skeleton:
    return Skeleton(configs, dtype)


@lru_cache(maxsize=1)
def _packed(configs: Path, half: bool, packing: Packing) -> Skeleton:
    skeleton = Skeleton(configs, torch.bfloat16 if half else torch.float32)
    with Meter([]):  # for its speed
        for part in skeleton.parts.values():
            quantise(part, packing, META)
    return skeleton


@contextmanager
def _adapted(subject: Subject) -> Iterator[tuple[Skeleton, Adapter]]:
    """A skeleton with a LoRA, which is taken out again."""
    skeleton = _skeleton(subject)
    with META:
        parts = {part: skeleton.parts[part] for part in subject.trained}
        adapter = Adapter.inject(parts, subject.shape, seed=0)
    try:
        yield skeleton, adapter
    finally:
        adapter.eject()


@torch.no_grad()
def _without_gradients(subject: Subject, known: Iterable[torch.Tensor], run: Callable[[], object]) -> Count:
    """Count `run`, which keeps nothing for a backward pass."""
    with _attention(subject), Meter(known) as meter:
        run()
    return Count(0, meter.peak, meter.flops, meter.traffic, meter.launches)
