import os
from pathlib import Path

import pytest
from PIL import Image

from app.thumbnails import Thumbnails
from trainer.errors import PictureError


def test_a_copy_is_small_made_once_and_renewed(tmp_path: Path) -> None:
    picture = tmp_path / "large.png"
    Image.new("RGB", (900, 300), (200, 10, 10)).save(picture)
    thumbnails = Thumbnails(tmp_path / "cache")
    first = thumbnails.of(picture, 90)
    with Image.open(first) as copy:
        assert (copy.size, copy.format) == ((90, 30), "WEBP")
    made = first.stat().st_mtime_ns
    assert thumbnails.of(picture, 90) == first
    assert first.stat().st_mtime_ns == made
    Image.new("RGB", (900, 300), (10, 200, 10)).save(picture)
    os.utime(picture, (1, 1))
    assert thumbnails.of(picture, 90) != first


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG no")
    with pytest.raises(PictureError, match=r"broken\.png"):
        Thumbnails(tmp_path / "cache").of(broken)
    with pytest.raises(PictureError, match="not there any more"):
        Thumbnails(tmp_path / "cache").of(tmp_path / "gone.png")
