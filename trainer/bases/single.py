"""The four models of a single-file checkpoint, made with no network: configs ship with the program, names are in `names.py`.

The models begin without memory (on torch's meta device) and are given the file's tensors one at a time. A tensor that is
wanted as it is on a CPU stays a view of the mapped file, so that loading holds little more than the file in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
from transformers.initialization import no_init_weights

from trainer.bases import folder, source
from trainer.bases.models import Models
from trainer.bases.names import How, Part, weights_of
from trainer.errors import BaseModelError
from trainer.tensorfile import read_header

_TOKENIZER = {"model_max_length": 77, "pad_token": "<|endoftext|>"}
"""Both encoders read one vocabulary; the second pads with id 0, which is "!"."""

THIRDS: dict[How, int] = {"first third": 0, "second third": 1, "last third": 2}
"""Which of a tensor's three."""


def empty(configs: Path) -> Models:
    """SDXL as `configs` describe it, the parameters of its models on the meta device."""
    text = [CLIPTextConfig.from_pretrained(configs / name) for name in ("text_encoder", "text_encoder_2")]
    with init_empty_weights(include_buffers=False), no_init_weights():  # random numbers for no memory cost a second
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(configs / "unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(configs / "vae"))
        te1, te2 = CLIPTextModel(text[0]), CLIPTextModelWithProjection(text[1])
    return Models(
        unet=unet,
        vae=vae,
        te1=te1,
        te2=te2,
        tokenizer1=folder.load_tokenizer(configs, "tokenizer", text[0].vocab_size, **_TOKENIZER),
        tokenizer2=folder.load_tokenizer(configs, "tokenizer", text[1].vocab_size, **{**_TOKENIZER, "pad_token": "!"}),
        scheduler=folder.load_scheduler(configs),
    )


def weights_in(file: Path) -> Iterator[tuple[Part, str, torch.Tensor]]:
    """Every weight of the four models that a checkpoint holds, as it lies there. Raises `BaseModelError`."""
    tensors = read_header(file, BaseModelError).tensors
    try:
        with safe_open(file, framework="pt") as opened:
            for name in sorted(tensors, key=lambda name: tensors[name].begin):  # as they lie on the disk
                for weight in weights_of(name):
                    yield weight.part, weight.name, _taken(opened.get_tensor(name), weight.how)
    except (SafetensorError, OSError) as error:
        raise BaseModelError(f"{file.name} could not be read ({error}): download or copy it again.") from None


def _taken(tensor: torch.Tensor, how: How) -> torch.Tensor:
    if how in THIRDS:
        return tensor.chunk(3)[THIRDS[how]]
    if how == "transposed":
        return tensor.T.contiguous()
    return tensor.flatten(1) if how == "without its window" else tensor


def load(file: Path, device: torch.device, dtype: torch.dtype) -> Models:
    """What the file holds, its weights on `device`: the VAE in float32 and the others in `dtype`. Raises `BaseModelError`."""
    made = empty(source.CONFIGS)
    # `text_model.` comes and goes between versions of transformers: names in a file are compared without it.
    called = {part: {key.removeprefix("text_model."): key for key in model.state_dict()} for part, model in made.models.items()}
    states: dict[Part, dict[str, torch.Tensor]] = {part: {} for part in called}
    for part, name, tensor in weights_in(file):
        if name in called[part]:
            states[part][called[part][name]] = tensor.to(device, torch.float32 if part == "vae" else dtype)
    for part, model in made.models.items():
        _fill(model, states.pop(part), file.name)
    return made


def _fill(model: nn.Module, state: dict[str, torch.Tensor], name: str) -> None:
    """Make the tensors of `state` the model's own, without a copy."""
    wanted = {key: tensor.shape for key, tensor in model.state_dict().items()}
    missing = [key for key in wanted if key not in state]
    if len(missing) > 100:
        raise BaseModelError(
            f"{name} is a smaller model than SDXL (distilled or pruned): it lacks {len(missing)} tensors of the "
            f"{type(model).__name__}, such as {missing[0]}. Choose SDXL or one of its descendants."
        )
    if missing:
        raise BaseModelError(
            f"{name} is not whole: {len(missing)} tensors of its {type(model).__name__} are missing, such as {missing[0]}. "
            "Download or copy it again."
        )
    wrong = [key for key, shape in wanted.items() if state[key].shape != shape]
    if wrong:
        raise BaseModelError(
            f"{name} is not an SDXL base: {wrong[0]} has the shape {tuple(state[wrong[0]].shape)}, and SDXL's is "
            f"{tuple(wanted[wrong[0]])}."
        )
    model.load_state_dict(state, assign=True)
