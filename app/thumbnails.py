"""Small copies of pictures, made once and kept in the cache: what the page shows instead of files of many megabytes."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from trainer.data import intake
from trainer.errors import PictureError, storing
from trainer.home import write_atomically


class Thumbnails:
    """WebP copies in `folder`. A picture that has changed gets a new one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, picture: Path, side: int = 256) -> Path:
        """A copy no larger than `side` pixels either way. Raises `PictureError`, `StorageError`."""
        try:
            status = picture.stat()
        except OSError:
            raise PictureError(f"{picture.name} is not there any more.") from None
        known_by = f"{picture}/{status.st_mtime_ns}/{status.st_size}/{side}"
        path = self.folder / f"{hashlib.sha256(known_by.encode()).hexdigest()[:32]}.webp"
        if not path.is_file():
            copy, content = intake.read_picture(picture), io.BytesIO()
            copy.thumbnail((side, side))
            copy.save(content, "WEBP", quality=90)
            with storing(path):
                write_atomically(path, content.getvalue())
        return path
