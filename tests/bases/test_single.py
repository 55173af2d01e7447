"""The weights of a single file: all of them, where they belong, without a copy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import checkpoint
from trainer.bases import single
from trainer.bases.names import weights_of
from trainer.bases.single import empty
from trainer.errors import BaseModelError
from trainer.home import shipped
from trainer.sdxl.base import load_base

pytestmark = pytest.mark.usefixtures("narrow")
CPU = torch.device("cpu")


def test_the_whole_table_is_that_of_the_true_configs() -> None:
    models = empty(shipped("assets", "sdxl")).models
    wanted = {
        (part, key.removeprefix("text_model.")): tuple(tensor.shape)
        for part, model in models.items()
        for key, tensor in model.state_dict().items()
    }
    shapes = checkpoint.golden_shapes()
    meta = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    found = {
        (weight.part, weight.name): tuple(single._taken(tensor, weight.how).shape)
        for name, tensor in meta.items()
        for weight in weights_of(name)
    }
    assert len(shapes) == 2515
    assert found == wanted


def test_weights_stay_in_the_file_until_they_are_needed(tmp_path: Path) -> None:
    file = checkpoint.write_file(tmp_path / "a.safetensors", checkpoint.tensors(torch.bfloat16))
    before = file.read_bytes()
    base = load_base(str(file), CPU, torch.bfloat16)
    weight = base.unet.get_submodule("conv_in").weight
    assert weight.dtype == torch.bfloat16
    with torch.no_grad():
        weight.zero_()
    assert file.read_bytes() == before, "what is mixed into the weights never reaches the file"


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("a tensor is missing", "is not whole: 1 tensors of its UNet2DConditionModel are missing"),
        ("the middle is missing", "is a smaller model than SDXL"),
        ("a shape is wrong", "is not an SDXL base: conv_in.weight has the shape"),
    ],
)
def test_a_file_that_does_not_fit_is_told_of(tmp_path: Path, how: str, sentence: str) -> None:
    state = checkpoint.tensors(torch.float16)
    stem = "model.diffusion_model.input_blocks.0.0.weight"
    if how == "the middle is missing":
        state = {name: tensor for name, tensor in state.items() if "middle_block.1." not in name}
    elif how == "a tensor is missing":
        del state["model.diffusion_model.middle_block.1.proj_in.bias"]
    else:
        state[stem] = torch.zeros(24, 4, 3, 3)
    file = checkpoint.write_file(tmp_path / "odd.safetensors", state)
    with pytest.raises(BaseModelError, match=sentence) as caught:
        load_base(str(file), CPU, torch.float32)
    assert "odd.safetensors" in str(caught.value)
