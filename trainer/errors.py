"""Everything that can go wrong through no fault of the program, as sentences for a person: what, where, what to do.

    ImpastoError
      UsageError        the command was given something it cannot take
      SettingsError     a setting has a wrong name or value
      DatasetError      a folder cannot be trained on
        PictureError    one picture cannot be read
      BaseModelError    a base model cannot be loaded, or is not SDXL
      CaptionerError    a model that writes captions cannot be loaded or run
      LoraFileError     a LoRA file cannot be read, or is made for another base
      DrawingError      a picture cannot be drawn, encoded or decoded: memory or numbers gave out
      RunError          a run folder cannot be started, resumed or found
      StorageError      the disk is full, read-only or gone

The command line prints the sentence and exits with `exit_code`; the page shows it. Whatever is not an `ImpastoError` is
a fault of ours and keeps its traceback.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ImpastoError(Exception):
    """A sentence that a person can act on."""

    exit_code = 1


class UsageError(ImpastoError):
    """The command was given something it cannot take."""

    exit_code = 2


class SettingsError(ImpastoError):
    """A setting has a wrong name or value."""


class DatasetError(ImpastoError):
    """A folder cannot be trained on."""


class PictureError(DatasetError):
    """One picture cannot be read."""


class BaseModelError(ImpastoError):
    """A base model cannot be loaded, or is not SDXL."""


class CaptionerError(ImpastoError):
    """A model that writes captions cannot be loaded or run."""


class LoraFileError(ImpastoError):
    """A LoRA file cannot be read, or is made for another base."""


class DrawingError(ImpastoError):
    """A picture cannot be drawn, encoded or decoded: memory or numbers gave out."""


class RunError(ImpastoError):
    """A run folder cannot be started, resumed or found."""


class StorageError(ImpastoError):
    """The disk is full, read-only or gone."""


_REASONS = {
    errno.ENOSPC: "the disk is full: free some space and go on",
    errno.EDQUOT: "your quota on this disk is used up: free some space and go on",
    errno.EFBIG: "the file would be larger than this disk or account permits: choose another folder",
    errno.EROFS: "the disk is read-only: choose another folder",
    errno.EACCES: "writing there is not permitted: choose another folder or change its permissions",
    errno.EPERM: "writing there is not permitted: choose another folder or change its permissions",
    errno.ENOTDIR: "a part of that path is a file, not a folder: choose another folder",
}

_IN_USE = (32, 33)
"""What Windows says of a file that is open elsewhere; as an `errno` it would be a missing permission."""


def storage_reason(error: OSError) -> str:
    """What an `OSError` means for a person who wants to write a file."""
    if getattr(error, "winerror", None) in _IN_USE:
        return "another program has it open: close it there and try again"
    return _REASONS.get(error.errno or 0, f"{error.strerror or error}")


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn an `OSError` while `path` is written into a `StorageError` that names it."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"Could not write {path}: {storage_reason(error)}.") from error
