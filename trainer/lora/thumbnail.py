"""The small picture in a LoRA file's header. Knows no torch, no runs and no files but the picture's."""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import Path

from PIL import Image, ImageOps

from trainer.errors import PictureError

SIDE = 256
"""Longest side in pixels."""

LARGEST = 22_000
"""Bytes of the JPEG: as text in the header it is a third longer."""


def data_url(path: Path) -> str:
    """A picture, upright, as the data URL of a small JPEG. Raises `PictureError` for what cannot be read as one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes and odd metadata: it becomes a small copy
            with Image.open(path) as picture:
                small = ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise PictureError(f"{path} cannot be read as a picture: choose a PNG or JPEG.") from None
    small.thumbnail((SIDE, SIDE))
    content = b""
    for quality in (85, 70, 50, 30, 10):
        out = io.BytesIO()
        small.save(out, "JPEG", quality=quality)
        content = out.getvalue()
        if len(content) <= LARGEST:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode('ascii')}"
