"""The small picture in a LoRA file's header. Knows no torch, no runs and no files but the picture's."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

SIDE = 256
"""Longest side in pixels."""

LARGEST = 22_000
"""Bytes of the JPEG: as text in the header it is a third longer."""


def data_url(path: Path) -> str:
    """A picture as the data URL of a small JPEG. Raises `OSError` for what cannot be read as a picture."""
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    content = b""
    for quality in (85, 70, 50, 30, 10):
        out = io.BytesIO()
        small.save(out, "JPEG", quality=quality)
        content = out.getvalue()
        if len(content) <= LARGEST:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode('ascii')}"
