"""What a file is that is no picture, told from its first bytes, or from what is in it where a program keeps its files as zips.

Knows a few dozen signatures, and nothing of pictures. Content decides; a name does only where a zip is damaged.
"""

from __future__ import annotations

from collections.abc import Collection

ENOUGH = 4096
"""So many bytes from a file's beginning are enough to tell."""

_EXPORT = "export it as PNG or JPEG"
_DEVELOP = "develop it and save it as JPEG or TIFF"
_FRAMES = "save single frames of it as PNG"
_NEVER = "such files can run programs and are never opened here: leave it out"

_TEXT = "text: if it is a caption, drop it together with its picture, under the same name"

_SIGNATURES = (
    (0, b"%PDF", "a PDF document", "save its pages as PNG or JPEG"),
    (0, b"%!PS", "a PostScript drawing", _EXPORT),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript drawing", _EXPORT),
    (0, b"8BPS", "a Photoshop file", _EXPORT),
    (0, b"gimp xcf", "a GIMP file", _EXPORT),
    (0, b"SQLite format 3\0", "a database or a Clip Studio file", "export its picture as PNG or JPEG"),
    (0, b"\xff\x0a", "a JPEG XL file", _EXPORT),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL file", _EXPORT),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 file", _EXPORT),
    (0, b"v/1\x01", "an OpenEXR file", _EXPORT),
    (8, b"CR\x02\0", "a camera's raw file", _DEVELOP),
    (4, b"ftypcrx ", "a camera's raw file", _DEVELOP),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file", _DEVELOP),
    (0, b"IIU\0", "a camera's raw file", _DEVELOP),
    (0, b"IIRO", "a camera's raw file", _DEVELOP),
    (0, b"\x1aE\xdf\xa3", "a video", _FRAMES),
    (8, b"AVI LIST", "a video", _FRAMES),
    (0, b"FLV\x01", "a video", _FRAMES),
    (0, b"\0\0\1\xba", "a video", _FRAMES),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a video", _FRAMES),
    (8, b"WAVE", "a sound", "leave it out"),
    (0, b"ID3", "a sound", "leave it out"),
    (0, b"OggS", "a sound or video", "leave it out"),
    (0, b"fLaC", "a sound", "leave it out"),
    (0, b"PK\3\4", "an archive", "unpack it, and drop the pictures in it"),
    (0, b"PK\5\6", "an empty archive", "leave it out"),
    (0, b"Rar!", "an archive", "unpack it, and drop the pictures in it"),
    (0, b"7z\xbc\xaf\x27\x1c", "an archive", "unpack it, and drop the pictures in it"),
    (0, b"\x1f\x8b", "an archive", "unpack it, and drop the pictures in it"),
    (8, b"{\"", "a model file", "leave it out"),
    (0, b"MZ", "a program", "leave it out"),
    (0, b"\x7fELF", "a program", "leave it out"),
    (0, b"\xd0\xcf\x11\xe0", "an Office document", "save the pictures in it as files"),
)  # fmt: skip
"""Where in a file, what stands there, what the file is, what to do."""

_SAVE = "save the pictures in it as files"
_PROGRAM = "leave it out"

_PACKAGES = (
    (("Document.archive",), (".procreate",), "a Procreate file", _EXPORT),
    (("maindoc.xml", "application/x-kr"), (".kra", ".krz"), "a Krita file", _EXPORT),
    (("image/openraster",), (".ora",), "an OpenRaster file", _EXPORT),
    (("canvas.fig",), (".fig",), "a Figma file", _EXPORT),
    (("word/document.xml",), (".docx", ".docm"), "a Word document", _SAVE),
    (("ppt/presentation.xml",), (".pptx", ".pptm", ".ppsx"), "a PowerPoint presentation", "save its slides as PNG"),
    (("xl/workbook.xml", "xl/workbook.bin"), (".xlsx", ".xlsm", ".xlsb"), "an Excel workbook", _SAVE),
    (("[Content_Types].xml",), (), "an Office document, or one of its kind", _SAVE),
    (("Index/Document.iwa",), (".pages", ".key", ".numbers"), "a document of Pages, Keynote or Numbers", _SAVE),
    (("application/vnd.oasis.opendocument",), (".odt", ".odp", ".ods", ".odg"), "an OpenDocument file", _SAVE),
    (("application/epub",), (".epub",), "an e-book", _SAVE),
    (("AndroidManifest.xml",), (".apk",), "a program for Android", _PROGRAM),
    (("META-INF/MANIFEST.MF",), (".jar",), "a Java program", _PROGRAM),
)
"""What programs keep as zips: an entry that tells, or how what the entry `mimetype` says begins; how the names of such files
end; what they are, what to do. The first that fits counts: every Office document has `[Content_Types].xml`."""

_STILL = frozenset({b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
"""The kinds of ISO base media files that are pictures."""

_HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"})


def told(head: bytes) -> str:
    """How `NAME is not a picture but` goes on for a file that begins so; empty where it may be a picture that is read here."""
    for at, signature, what, advice in _SIGNATURES:
        if head.startswith(signature, at):
            return f"{what}: {advice}"
    if head[4:8] == b"ftyp" and not _brands(head) & _STILL:
        return f"a video: {_FRAMES}"
    if head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5" and len(head) > 2:
        return f"a Python pickle: {_NEVER}"
    return _told_text(head)


def told_package(names: Collection[str], mimetype: str) -> str:
    """The same for a zip with entries of these names, by what its entry `mimetype` says; empty where somebody packed it."""
    for signs, _, what, advice in _PACKAGES:
        if any(sign in names or mimetype.startswith(sign) for sign in signs):
            return f"{what}: {advice}"
    return f"a document ({mimetype}): {_EXPORT}" if mimetype.startswith(("application/", "image/")) else ""


def meant(suffix: str) -> str:
    """The same for a zip that cannot be read, by how its name ends."""
    return next((f"{what}: {advice}" for _, suffixes, what, advice in _PACKAGES if suffix.lower() in suffixes), "")


def is_heic(head: bytes) -> bool:
    """Whether a file that begins so is a picture of Apple's kind."""
    return head[4:8] == b"ftyp" and bool(_brands(head) & _HEIC)


def _brands(head: bytes) -> set[bytes]:
    """What an ISO base media file says it is, and what it says it can be read as."""
    length = min(int.from_bytes(head[:4], "big"), len(head))
    return {head[8:12], *(head[at : at + 4] for at in range(16, length - 3, 4))}


def _told_text(head: bytes) -> str:
    """The same for what can be read as text."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _TEXT
    if b"\0" in head:
        return ""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if b"<svg" in start:
        return f"an SVG drawing: {_EXPORT}"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page, perhaps saved in a picture's place: download the picture itself"
    printable = sum(byte >= 32 or byte in b"\t\n\r\f" for byte in head)
    return _TEXT if printable == len(head) else ""
