"""A zip from anywhere writes nothing outside, fills no disk, and is told of in sentences."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from trainer.data.arrival import archive
from trainer.data.arrival.archive import packed, portable, unpacked
from trainer.errors import DatasetError


def zipped(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as opened:
        for name, content in entries:
            opened.writestr(name, content)
    return path


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_files_and_folders_come_out_as_they_were(tmp_path: Path) -> None:
    given = zipped(tmp_path / "a.zip", ("10_cat/a (1).png", b"picture"), ("10_cat/ü.txt", b"text"), ("x.y.json", b"{}"))
    assert unpacked(given, tmp_path / "out") == []
    assert files(tmp_path / "out") == ["10_cat/a (1).png", "10_cat/ü.txt", "x.y.json"]
    assert (tmp_path / "out" / "10_cat" / "a (1).png").read_bytes() == b"picture"


OUTSIDE = [
    "../evil.png",
    "a/../../evil.png",
    "/evil.png",
    "C:/evil.png",
    "c:evil.png",
    "..\\evil.png",
    "\\evil.png",
    "\\\\host\\evil",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_nothing_is_written_outside(tmp_path: Path, name: str) -> None:
    info = zipfile.ZipInfo("placeholder")
    info.filename = name
    given = zipped(tmp_path / "a.zip", (info, b"evil"), ("good.png", b"good"))
    [(_, reason)] = unpacked(given, tmp_path / "in" / "out")
    assert "points to a place outside of the archive" in reason
    assert files(tmp_path) == ["a.zip", "in/out/good.png"]


def test_links_in_a_zip_are_not_made(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    given = zipped(tmp_path / "a.zip", (link, b"/etc/passwd"), ("good.png", b"good"))
    assert unpacked(given, tmp_path / "out") == [
        ("link.png", "link.png in a.zip is a link, not a file: put the file itself into the archive.")
    ]
    assert files(tmp_path / "out") == ["good.png"]


def test_an_archive_within_an_archive_is_not_unpacked(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner.zip", ("a.png", b"a"))
    given = zipped(tmp_path / "a.zip", ("inner.png", inner.read_bytes()))
    [(name, reason)] = unpacked(given, tmp_path / "out")
    assert (name, files(tmp_path / "out")) == ("inner.png", [])
    assert "is an archive within an archive" in reason


def test_a_bomb_is_refused_from_its_table_of_contents(tmp_path: Path) -> None:
    given = zipped(tmp_path / "a.zip", ("a.png", bytes(20_000_000)))
    with pytest.raises(DatasetError, match=r"^a\.zip would unpack to more than 100 times its size.*\.$"):
        unpacked(given, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_small_picture_of_one_colour_is_no_bomb(tmp_path: Path) -> None:
    assert unpacked(zipped(tmp_path / "a.zip", ("a.bmp", bytes(3_000_000))), tmp_path / "out") == []


def test_a_zip_that_says_less_than_it_holds_writes_no_more_than_it_says(tmp_path: Path) -> None:
    given = zipped(tmp_path / "a.zip", ("a.png", bytes(5_000_000)), ("b.png", b"good"))
    content, size = given.read_bytes(), (5_000_000).to_bytes(4, "little")
    assert content.count(size) == 2
    given.write_bytes(content.replace(size, (1000).to_bytes(4, "little")))
    [(name, reason)] = unpacked(given, tmp_path / "out")
    assert (name, files(tmp_path / "out")) == ("a.png", ["b.png"])
    assert "is damaged" in reason


def test_what_would_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = zipped(tmp_path / "a.zip", *((f"{number}.png", bytes(100)) for number in range(11)))
    monkeypatch.setattr(archive, "MOST_FILES", 10)
    with pytest.raises(DatasetError, match=r"^a\.zip holds 11 files, more than 10: unpack it and drop the folder\.$"):
        unpacked(given, tmp_path / "out")
    monkeypatch.setattr(archive, "MOST_FILES", 11)
    monkeypatch.setattr(archive, "MOST_BYTES", 1000)
    with pytest.raises(DatasetError, match=r"^a\.zip would take .* GB unpacked"):
        unpacked(given, tmp_path / "out")
    plain = zipped(tmp_path / "b.zip", ("a.jpg", bytes(2000)), method=zipfile.ZIP_STORED)
    assert unpacked(plain, tmp_path / "out") == []  # as large as it is itself, and no larger


def test_the_limits_are_those_that_were_promised() -> None:
    assert (archive.MOST_BYTES, archive.MOST_FILES, archive.MOST_RATIO) == (4_000_000_000, 10_000, 100)


def test_a_locked_zip_is_told_of(tmp_path: Path) -> None:
    content = bytearray(zipped(tmp_path / "a.zip", ("a.png", b"secret")).read_bytes())
    content[6] |= 1  # the flag in the entry's own header
    content[content.index(b"PK\1\2") + 8] |= 1  # and in the table of contents
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DatasetError, match=r"^a\.zip is locked with a password: unpack it and drop the folder\.$"):
        unpacked(tmp_path / "a.zip", tmp_path / "out")


def test_a_model_in_the_form_of_a_zip_is_never_unpacked(tmp_path: Path) -> None:
    given = zipped(tmp_path / "a.zip", ("archive/data.pkl", b"\x80\2."), ("archive/data/0", b"0"))
    with pytest.raises(DatasetError, match=r"^a\.zip is a model file with a Python pickle in it"):
        unpacked(given, tmp_path / "out")


PACKAGES = [
    ({"Document.archive": b"bplist00", "QuickLook/Thumbnail.png": b"p"}, "a Procreate file: export it as PNG"),
    ({"mimetype": b"application/x-krita", "maindoc.xml": b"<", "preview.png": b"p"}, "a Krita file: export it as PNG"),
    ({"mimetype": b"image/openraster", "stack.xml": b"<", "mergedimage.png": b"p"}, "an OpenRaster file: export it as PNG"),
    ({"[Content_Types].xml": b"<", "word/document.xml": b"<", "word/media/image1.png": b"p"}, "a Word document: save the"),
    ({"[Content_Types].xml": b"<", "ppt/presentation.xml": b"<"}, "a PowerPoint presentation: save its slides"),
    ({"[Content_Types].xml": b"<", "xl/workbook.xml": b"<"}, "an Excel workbook: save the pictures"),
    ({"[Content_Types].xml": b"<", "3D/3dmodel.model": b"<", "Metadata/thumbnail.png": b"p"}, "an Office document, or one"),
    ({"mimetype": b"application/vnd.oasis.opendocument.text\n", "Thumbnails/thumbnail.png": b"p"}, "an OpenDocument file: "),
    ({"mimetype": b"application/epub+zip", "META-INF/container.xml": b"<", "cover.jpg": b"p"}, "an e-book: save"),
    ({"mimetype": b"application/vnd.unheard.of", "thumbnail.png": b"p"}, "a document (application/vnd.unheard.of): "),
    ({"AndroidManifest.xml": b"<", "META-INF/MANIFEST.MF": b"M", "res/a.png": b"p"}, "a program for Android: leave it out"),
    ({"META-INF/MANIFEST.MF": b"M", "icon.png": b"p"}, "a Java program: leave it out"),
]


@pytest.mark.parametrize(("entries", "what"), PACKAGES)
def test_what_a_program_keeps_as_a_zip_is_told_by_its_content(tmp_path: Path, entries: dict[str, bytes], what: str) -> None:
    given = zipped(tmp_path / "a.zip", *entries.items())
    with pytest.raises(DatasetError) as raised:
        unpacked(given, tmp_path / "out")
    assert str(raised.value).startswith(f"a.zip is not a picture but {what}")
    assert str(raised.value) == f"a.zip is {archive.package(given)}."
    assert not (tmp_path / "out").exists()


def test_what_somebody_packed_is_unpacked_whatever_lies_deeper(tmp_path: Path) -> None:
    entries = (("set/META-INF/MANIFEST.MF", b"M"), ("set/mimetype", b"image/openraster"), ("mimetype", b"mine"))
    given = zipped(tmp_path / "a.procreate", ("a.png", b"p"), *entries)
    assert (archive.package(given), unpacked(given, tmp_path / "out")) == ("", [])
    assert "a.png" in files(tmp_path / "out")


def test_a_damaged_one_is_told_by_its_name(tmp_path: Path) -> None:
    given = zipped(tmp_path / "Sea.PROCREATE", ("Document.archive", b"bplist00"))
    given.write_bytes(given.read_bytes()[:-30])
    with pytest.raises(
        DatasetError, match=r"^Sea\.PROCREATE is by its name a Procreate file, but damaged \(.*\): copy it again"
    ):
        unpacked(given, tmp_path / "out")
    given.rename(tmp_path / "sea.zip")
    with pytest.raises(DatasetError, match=r"^sea\.zip is a damaged zip"):
        unpacked(tmp_path / "sea.zip", tmp_path / "out")


def test_one_within_a_zip_is_told_by_its_name(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner", ("Document.archive", b"bplist00"))
    given = zipped(tmp_path / "a.zip", ("sea.procreate", inner.read_bytes()))
    [(_, reason)] = unpacked(given, tmp_path / "out")
    assert reason == "sea.procreate in a.zip is not a picture but a Procreate file: export it as PNG or JPEG."


@pytest.mark.parametrize("cut", [4, 60, -30])
def test_a_zip_that_is_cut_off_is_told_of(tmp_path: Path, cut: int) -> None:
    given = zipped(tmp_path / "a.zip", ("a.png", bytes(range(256)) * 10))
    given.write_bytes(given.read_bytes()[:cut])
    with pytest.raises(DatasetError, match=r"^a\.zip is a damaged zip"):
        unpacked(given, tmp_path / "out")


def test_an_entry_that_is_damaged_is_left_out(tmp_path: Path) -> None:
    given = zipped(tmp_path / "a.zip", ("a.png", b"abcdef"), ("b.png", b"good"), method=zipfile.ZIP_STORED)
    given.write_bytes(given.read_bytes().replace(b"abcdef", b"abcdeX"))
    [(name, reason)] = unpacked(given, tmp_path / "out")
    assert (name, files(tmp_path / "out")) == ("a.png", ["b.png"])
    assert "a.png in a.zip is damaged" in reason


def test_two_entries_of_one_name_both_come_out(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        given = zipped(tmp_path / "a.zip", ("a.png", b"one"), ("a.png", b"two"))
    assert unpacked(given, tmp_path / "out") == []
    assert sorted((tmp_path / "out" / name).read_bytes() for name in files(tmp_path / "out")) == [b"one", b"two"]


@pytest.mark.parametrize("name", ["a.png/b.png", "/".join(["x" * 200] * 28) + "/b.png"], ids=["through a file", "too long"])
def test_a_path_that_cannot_be_is_left_out_and_the_rest_is_taken(tmp_path: Path, name: str) -> None:
    given = zipped(tmp_path / "a.zip", ("a.png", b"a"), (name, b"b"), ("c.png", b"c"))
    [(refused, reason)] = unpacked(given, tmp_path / "out")
    assert (refused, files(tmp_path / "out")) == ("b.png", ["a.png", "c.png"])
    assert reason.startswith("b.png in a.zip has a path that cannot be here (")


def test_folders_without_end_are_refused(tmp_path: Path) -> None:
    given = zipped(tmp_path / "a.zip", ("a/" * 2000 + "a.png", b"deep"))
    [(_, reason)] = unpacked(given, tmp_path / "out")
    assert "lies more than 30 folders deep" in reason


@pytest.mark.parametrize(
    ("name", "becomes"),
    [
        ("a house (1).png", "a house (1).png"), ("a:b?.png", "a_b_.png"), ("CON.png", "_CON.png"), ("con", "_con"),
        ("console.png", "console.png"), ("a. .", "a"), ("..", "_"), ("a\nb.png", "a_b.png"),
    ],
)  # fmt: skip
def test_names_keep_what_every_system_takes(name: str, becomes: str) -> None:
    assert portable(name) == becomes


@pytest.mark.parametrize("name", ["ü" * 300 + ".png", "a." + "ü" * 300, "🏠" * 100])
def test_names_are_never_too_long(name: str) -> None:
    assert 0 < len(portable(name).encode()) <= archive.LONGEST


def test_a_dataset_is_packed_without_what_is_not_part_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for name in ("a.png", "masks/a.mask.png", "originals/a.png", "removed/b.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(folder / name)
    for name in ("a.txt", "dataset.toml", ".impasto-undo.jsonl", ".impasto.lock", "other.zip", ".incoming-1/x.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("# text", encoding="utf-8")
    packed(folder, folder / "out.zip")
    packed(folder, folder / "out.zip")
    with zipfile.ZipFile(folder / "out.zip") as opened:
        assert opened.namelist() == ["a.png", "a.txt", "dataset.toml", "masks/a.mask.png", "originals/a.png"]
        assert opened.read("a.png") == (folder / "a.png").read_bytes()
