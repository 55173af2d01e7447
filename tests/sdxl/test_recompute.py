"""Computing twice saves memory and changes nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch

from trainer.lora.adapter import Adapter
from trainer.lora.keys import Component
from trainer.lora.shape import Shape
from trainer.sdxl.base import Base, load_base
from trainer.sdxl.recompute import recompute
from trainer.sdxl.text import encode_text
from trainer.settings import Recompute

ALL: tuple[Component, ...] = ("unet", "te1", "te2")


class Trained:
    """A toy base with a LoRA that already does something."""

    def __init__(self, folder: Path, parts: tuple[Component, ...] = ALL) -> None:
        self.base: Base = load_base(str(folder), torch.device("cpu"), torch.float32)
        self.adapter = Adapter.inject({part: self.base.parts[part] for part in parts}, Shape(4, 4.0), seed=0)
        generator = torch.Generator().manual_seed(1)
        self.matrices = [matrix for part in parts for matrix in self.adapter.parameters(part)]
        for matrix in self.matrices:
            matrix.data.copy_(torch.randn(matrix.shape, generator=generator) * 0.05)

    def loss(self) -> torch.Tensor:
        text = encode_text(self.base, ["a picture of a cat", "a house"])
        generator = torch.Generator().manual_seed(2)
        noise = torch.randn(2, 4, 8, 8, generator=generator)
        conditions = {"text_embeds": text.pooled, "time_ids": torch.full((2, 6), 64.0)}
        answer: torch.Tensor = self.base.unet(noise, torch.tensor([3, 700]), text.context, added_cond_kwargs=conditions).sample
        return answer.square().mean()

    def gradients(self, how: Recompute) -> list[torch.Tensor]:
        recompute(self.base.parts, how)
        for matrix in self.matrices:
            matrix.grad = None
        self.loss().backward()
        return [matrix.grad.clone() for matrix in self.matrices if matrix.grad is not None]

    def kept(self, how: Recompute) -> int:
        """Bytes that a forward pass keeps outside of what is computed twice."""
        recompute(self.base.parts, how)
        kept: dict[int, torch.Tensor] = {}

        def see(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        weights = {weight.untyped_storage()._cdata for part in self.base.parts.values() for weight in part.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
            self.loss()
        return sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in weights)


@pytest.mark.parametrize("how", [how for how in get_args(Recompute) if how != "none"])
def test_gradients_are_those_without_to_the_bit(toy_base: Path, how: Recompute) -> None:
    trained = Trained(toy_base)
    expected, found = trained.gradients("none"), trained.gradients(how)
    assert len(expected) == len(found) == len(trained.matrices)
    assert all(matrix.abs().max() > 0 for matrix in expected)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_less_is_kept_the_more_is_computed_twice(toy_base: Path) -> None:
    trained = Trained(toy_base)
    none, selective, full = (trained.kept(how) for how in get_args(Recompute))
    assert full < 0.5 * none
    assert selective < 0.5 * none


def test_it_can_be_taken_back(toy_base: Path) -> None:
    trained = Trained(toy_base)
    before = trained.kept("none")
    trained.kept("selective")
    assert trained.kept("none") == before
    assert not any(model.training for model in trained.base.parts.values())


@pytest.mark.parametrize("how", get_args(Recompute))
def test_text_encoders_that_are_not_trained_take_no_gradient(toy_base: Path, how: Recompute) -> None:
    trained = Trained(toy_base, ("unet",))
    recompute(trained.base.parts, how)
    assert not encode_text(trained.base, ["a cat"]).context.requires_grad


@pytest.mark.parametrize("how", get_args(Recompute))
def test_drawing_in_between_works_as_ever(toy_base: Path, how: Recompute) -> None:
    trained = Trained(toy_base)
    with torch.no_grad():
        expected = trained.loss()
        recompute(trained.base.parts, how)
        assert torch.equal(trained.loss(), expected)
