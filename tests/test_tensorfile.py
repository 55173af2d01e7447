"""Headers that no program should write end in a sentence, not in a traceback."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from trainer.errors import BaseModelError
from trainer.tensorfile import TensorInfo, header_text, metadata_of, read_header


def write(path: Path, table: bytes, content: bytes = b"") -> Path:
    path.write_bytes(struct.pack("<Q", len(table)) + table + content)
    return path


def entry(shape: str = "[2]", offsets: str = "[0, 4]") -> bytes:
    return f'{{"a": {{"dtype": "F16", "shape": {shape}, "data_offsets": {offsets}}}}}'.encode()


def test_a_header_is_read_with_its_texts(tmp_path: Path) -> None:
    table = entry().replace(b"{", b'{"__metadata__": {"title": "T"}, ', 1)
    header = read_header(write(tmp_path / "a.safetensors", table, bytes(4)), BaseModelError)
    assert header.tensors == {"a": TensorInfo("F16", (2,), 0, 4)}
    assert header.metadata == {"title": "T"}


@pytest.mark.parametrize(
    "table",
    [
        entry(shape="[Infinity]"), entry(shape="[NaN]"), entry(shape="[-1]"), entry(shape="7"), entry(shape='["x"]'),
        entry(shape=f"[{'9' * 5000}]"), entry(offsets="[4, 0]"), entry(offsets="[0, Infinity]"), entry(offsets="[0]"),
        entry(offsets='["0", "4"]'), b'{"a": 5}', b'{"a": {}}', b'{"a"}', b'{"\xff": 1}',
    ],
)  # fmt: skip
def test_a_damaged_header_is_told_of(tmp_path: Path, table: bytes) -> None:
    path = write(tmp_path / "odd.safetensors", table, bytes(4))
    with pytest.raises(BaseModelError, match=r"^odd\.safetensors has a damaged header: download or copy it again\.$"):
        read_header(path, BaseModelError)


def test_tensors_that_lie_in_each_other_are_damage(tmp_path: Path) -> None:
    both = entry().replace(b'"a"', b'"b"')[:-1] + b", " + entry()[1:]
    with pytest.raises(BaseModelError, match="damaged header"):
        read_header(write(tmp_path / "odd.safetensors", both, bytes(4)), BaseModelError)


@pytest.mark.parametrize(
    "many",
    [
        b'{"a": [' + b"[]," * 800_000 + b"[]]}", b'{"a": [' + b"{}," * 800_000 + b"{}]}",
        b'{"a": [' + b"300," * 600_000 + b"1]}", b"{" + b",".join(b'"%d": 1' % number for number in range(600_000)) + b"}",
    ],
    ids=["lists", "tables", "numbers", "names"],
)  # fmt: skip
def test_a_header_of_more_entries_than_a_model_has_is_not_parsed(
    tmp_path: Path, many: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "odd.safetensors", many)
    monkeypatch.setattr("json.loads", None)
    with pytest.raises(BaseModelError, match=r"^odd\.safetensors lists more than any model for SDXL holds"):
        read_header(path, BaseModelError)


def test_a_header_of_ten_thousand_tensors_and_long_texts_is_read(tmp_path: Path) -> None:
    shape = '"dtype": "F16", "shape": [1, 1, 1, 1], "data_offsets"'
    tensors = ", ".join(f'"{number}": {{{shape}: [{2 * number}, {2 * number + 2}]}}' for number in range(10_000))
    tags = '{\\"a style\\": {' + ", ".join(f'\\"tag {number}\\": 1' for number in range(200_000)) + "}}"
    table = f'{{"__metadata__": {{"ss_tag_frequency": "{tags}"}}, {tensors}}}'.encode()
    assert len(read_header(write(tmp_path / "a.safetensors", table, bytes(20_000)), BaseModelError).tensors) == 10_000


def test_the_texts_alone_are_those_of_the_whole_header(tmp_path: Path) -> None:
    table = entry()[:-1] + b', "__metadata__" : {"title": "\\"__metadata__\\": {}", "n": 7}}'
    path = write(tmp_path / "a.safetensors", table, bytes(4))
    text = header_text(path, BaseModelError)
    assert metadata_of("a", text, BaseModelError) == read_header(path, BaseModelError).metadata
    assert metadata_of("a", entry(), BaseModelError) == {}


@pytest.mark.parametrize("table", [b'{"__metadata__": [1]}', b'{"__metadata__": {"a": 1', b'{"__metadata__": "\xff"}'])
def test_texts_that_are_damaged_are_told_of(table: bytes) -> None:
    with pytest.raises(BaseModelError, match=r"^a has a damaged header"):
        metadata_of("a", table, BaseModelError)


def test_a_name_that_no_disk_can_have_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"cannot be opened|There is no file"):
        read_header(tmp_path / ("long" * 1000), BaseModelError)
