"""What an error of the system means for a person."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from trainer import errors
from trainer.errors import ImpastoError, StorageError, UsageError, storing


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "quota"), (errno.EROFS, "read-only"),
        (errno.EACCES, "not permitted"), (errno.EPERM, "not permitted"), (errno.ENOTDIR, "is a file, not a folder"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)  # fmt: skip
def test_a_failure_to_write_says_where_and_why(number: int, words: str) -> None:
    with pytest.raises(StorageError, match=f"Could not write a: .*{words}"), storing(Path("a")):
        raise OSError(number, os.strerror(number))


def test_a_file_that_windows_keeps_is_said_to_be_open_elsewhere() -> None:
    error = PermissionError(errno.EACCES, "The process cannot access the file")
    error.winerror = 32  # type: ignore[attr-defined, unused-ignore]
    with pytest.raises(StorageError, match="another program has it open"), storing(Path("a")):
        raise error


def test_other_errors_pass_through_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), storing(Path("a")):
        raise ZeroDivisionError


def test_wrong_usage_has_an_exit_code_of_its_own() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ImpastoError)]
    assert {kind.exit_code for kind in kinds if kind is not UsageError} == {1}
    assert UsageError.exit_code == 2
