"""A model of transformers that writes text for a picture: loaded from safetensors alone, run where there is room for it.

Knows neither how a picture is prepared nor what the model is asked.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers.utils import logging as transformers_logging

from trainer.captioning.place import again
from trainer.errors import CaptionerError
from trainer.sdxl.device import best_device, drawing_dtype, out_of_memory
from trainer.tensorfile import read_header

_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError, StrictDataclassError)
"""What transformers raises over files that do not fit together."""

transformers_logging.disable_progress_bar()  # its bars for a few seconds of loading only hide ours


class Vision:
    """A model with its processor, on the best device; on the CPU once that device has no room for it."""

    def __init__(self, folder: Path, model: Any, processor: Any) -> None:
        """`model` and `processor` are the classes of transformers. Raises `CaptionerError`."""
        for path in folder.glob("*.safetensors"):
            read_header(path, CaptionerError)
        self.remarks, self.device = list[str](), best_device()
        try:
            self.processor = processor.from_pretrained(folder, local_files_only=True)
            self.model, told = model.from_pretrained(
                folder, dtype=drawing_dtype(self.device), use_safetensors=True, local_files_only=True, output_loading_info=True
            )
        except _DAMAGE as error:
            if isinstance(error, RuntimeError) and out_of_memory(error):
                raise self._too_large() from None
            why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CaptionerError(f"The model in {folder} could not be loaded ({why.rstrip('.')}): {again(folder)}.") from None
        if missing := told["missing_keys"] & {name for name, _ in self.model.named_parameters()}:
            lacks = f"lacks {len(missing)} of its weights, such as {min(missing)}"
            raise CaptionerError(f"The model in {folder} {lacks}: {again(folder)}.")
        self.model.eval().requires_grad_(False)
        self._with_room(lambda: self.model.to(self.device))

    def text(self, inputs: Mapping[str, torch.Tensor], **how: Any) -> str:
        """What the model says of these inputs, without its special tokens. Raises `CaptionerError`."""
        return str(self._with_room(lambda: self._text(inputs, how)))

    @torch.inference_mode()
    def _text(self, inputs: Mapping[str, torch.Tensor], how: Mapping[str, Any]) -> str:
        given = {
            name: tensor.to(self.device, self.model.dtype if tensor.is_floating_point() else None)
            for name, tensor in inputs.items()
        }
        written = self.model.generate(**given, do_sample=False, **how)
        decoded: list[str] = self.processor.batch_decode(written, skip_special_tokens=True)
        return " ".join(decoded[0].split())

    def _with_room(self, work: Any) -> Any:
        """Do it; on the CPU if the card's memory has run out. Raises `CaptionerError` if the CPU's has."""
        try:
            return work()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if self.device.type == "cpu":
                raise self._too_large() from None
        self.remarks.append("The card has too little free memory for the model: it goes on without the card, which is slower.")
        self.device = torch.device("cpu")
        self.model.to(self.device, torch.float32)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return work()

    def _too_large(self) -> CaptionerError:
        return CaptionerError("There is too little memory for this model: close other programs, or choose a smaller model.")
