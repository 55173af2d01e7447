"""What a click mends of a finding: one change of the dataset, which can be undone. No file of a picture is changed or deleted.

What is to be mended is looked for anew: what is no finding any more is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from trainer.data import captions, intake
from trainer.data.checkup.caption_findings import unstyled
from trainer.data.checkup.finding import KINDS, TAKEN_OUT, Finding, counted
from trainer.data.checkup.findings import findings
from trainer.data.checkup.measures import Measured
from trainer.data.checkup.picture_findings import frames
from trainer.data.dataset import Dataset
from trainer.data.editing.edits import Edits
from trainer.data.naming import caption_of
from trainer.errors import DatasetError, PictureError, UsageError
from trainer.settings import Settings

MENDABLE = tuple(kind for kind, (_, mend) in KINDS.items() if mend)
"""The kinds that can be mended here."""

_Mend = Callable[[Finding, Edits, Measured], str]


def mend(kind: str, names: Iterable[str] | None, edits: Edits, settings: Settings, cache: Path) -> str:
    """Mend what is found of a kind in these pictures, or in all (None). Returns what was done, in a sentence.

    The measures are taken from `cache`; what is not there is measured. Raises `UsageError` for a kind that cannot be mended,
    `DatasetError` if nothing of it is found there any more, `StorageError`.
    """
    if kind not in MENDABLE:
        raise UsageError(f"{kind!r} cannot be mended by itself. What can be is: {', '.join(MENDABLE)}.")
    dataset = Dataset.open(edits.folder)
    measured = Measured(dataset, cache)
    for _ in measured:
        pass
    there = [_among(each, names) for each in findings(dataset, settings, measured) if each.kind == kind]
    if not there or not there[0].names or not there[0].mend:
        raise _nothing_left(kind, edits)
    return _MENDS[kind](there[0], edits, measured)


def _among(finding: Finding, names: Iterable[str] | None) -> Finding:
    """The finding as far as it concerns these pictures."""
    if names is None:
        return finding
    wanted = frozenset(names)
    groups = (tuple(name for name in group if name in wanted) for group in finding.groups)
    kept = tuple(group for group in groups if len(group) > 1)
    within = frozenset(name for group in kept for name in group) if finding.groups else wanted
    return replace(finding, names=tuple(name for name in finding.names if name in within), groups=kept)


def _nothing_left(kind: str, edits: Edits) -> DatasetError:
    return DatasetError(f"Nothing of this is left to mend in {edits.folder.name} ({KINDS[kind][0].lower()}).")


def _aside(finding: Finding, edits: Edits, measured: Measured) -> str:
    """Each file is looked at once more: to measure a dataset takes a while, in which a good one may have taken its place."""
    names = tuple(name for name in finding.names if _is_damaged(edits.folder / name))
    if not names:
        raise _nothing_left(finding.kind, edits)
    return _removed(replace(finding, names=names), edits, measured)


def _is_damaged(path: Path) -> bool:
    try:
        intake.read_picture(path)
    except PictureError:
        return True
    return False


def _removed(finding: Finding, edits: Edits, measured: Measured) -> str:
    edits.remove(finding.names)
    return f"{counted(len(finding.names), 'picture was', 'pictures were')} moved into the folder removed."


def _thinned(finding: Finding, edits: Edits, measured: Measured) -> str:
    spare = [name for group in finding.groups for name in group[1:]]
    edits.remove(spare)
    kept = counted(len(finding.groups), "was", "were")
    return f"{counted(len(spare), 'picture was', 'pictures were')} moved into the folder removed, and {kept} kept."


def _cut(finding: Finding, edits: Edits, measured: Measured) -> str:
    crops = frames(Dataset.open(edits.folder), measured.found)
    edits.set("crops", {name: crops[name] for name in finding.names if name in crops})
    return f"The frames of {counted(len(finding.names), 'picture', 'pictures')} are left out of training by a crop."


def _rewritten(finding: Finding, edits: Edits, measured: Measured) -> str:
    texts = {name: captions.read((edits.folder / name).with_suffix(".txt")) for name in finding.names}
    stayed = edits.captions({name: (text, text) for name, text in texts.items()}, "rewriting of captions as UTF-8")
    return _told_captions(len(texts), stayed, "rewritten as UTF-8")


def _unstyled(finding: Finding, edits: Edits, measured: Measured) -> str:
    trigger = Dataset.open(edits.folder).trigger
    texts = {name: captions.read((edits.folder / name).with_suffix(".txt")) for name in finding.names}
    stayed = edits.captions({name: (text, unstyled(text, trigger)) for name, text in texts.items()}, "style words left out")
    return _told_captions(len(texts), stayed, "left without the words of a style")


def _named(finding: Finding, edits: Edits, measured: Measured) -> str:
    texts = {name: said for name in finding.names if (said := caption_of(name))}
    stayed = edits.captions({name: ("", text) for name, text in texts.items()}, "captions from file names")
    return _told_captions(len(texts), stayed, "taken from the file's name")


def _told_captions(count: int, stayed: list[str], done: str) -> str:
    left = f" {counted(len(stayed), 'was', 'were')} left, because somebody else changed it meanwhile." if stayed else ""
    return f"{counted(count - len(stayed), 'caption was', 'captions were')} {done}.{left}"


_MENDS: dict[str, _Mend] = {
    "damaged": _aside,
    **dict.fromkeys(TAKEN_OUT, _removed),
    "duplicate": _thinned,
    "similar": _thinned,
    "border": _cut,
    "encoding": _rewritten,
    "bare": _named,
    "style": _unstyled,
}
