"""Edits of many captions at once: each is a function from a caption to a caption. Nothing is written here.

Tags are what commas part, outside the braces of wildcards. What an edit does not concern stays to the letter.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from trainer.data.captions import has_trigger, one_line


class Edit(Protocol):
    """A change of a caption that looks at nothing else."""

    def of(self, caption: str) -> str:
        """The changed caption."""


@dataclass(frozen=True)
class Replace:
    """Put `by` wherever `find` is; both are meant literally. Nothing is found by an empty `find`."""

    find: str
    by: str
    case: bool = False
    """Whether capitals must be the same."""
    words: bool = False
    """Whether only whole words count: no letter, digit or underscore may continue what is found."""

    def of(self, caption: str) -> str:
        """The changed caption."""
        if not self.find:
            return caption
        begin = r"(?<!\w)" if self.words and re.match(r"\w", self.find) else ""
        end = r"(?!\w)" if self.words and re.search(r"\w\Z", self.find) else ""
        pattern = re.compile(begin + re.escape(self.find) + end, 0 if self.case else re.IGNORECASE)
        return pattern.sub(lambda _: self.by, caption)


@dataclass(frozen=True)
class Before:
    """Put a text before the caption, as a tag of its own; one that begins with it stays."""

    text: str
    joint: str = ", "
    """What comes between: a blank makes it a part of the sentence."""

    def of(self, caption: str) -> str:
        """The changed caption."""
        text = self.text.strip(f" {self.joint}")
        there = not text or caption == text or caption.startswith(text + self.joint)
        return caption if there else self.joint.join(filter(None, (text, caption)))


@dataclass(frozen=True)
class After:
    """Put a text after the caption, as a tag of its own; one that ends with it stays."""

    text: str
    joint: str = ", "
    """What comes between: a blank makes it a part of the sentence."""

    def of(self, caption: str) -> str:
        """The changed caption."""
        text = self.text.strip(f" {self.joint}")
        there = not text or caption == text or caption.endswith(self.joint + text)
        return caption if there else self.joint.join(filter(None, (caption, text)))


@dataclass(frozen=True)
class RemoveTag:
    """Leave a tag out wherever it is, in any case of letters."""

    tag: str

    def of(self, caption: str) -> str:
        """The changed caption."""
        wanted = _known(self.tag)
        kept = [part for part in parts(caption) if not wanted or _known(part) != wanted]
        return ",".join(kept).strip() if len(kept) < len(parts(caption)) else caption


@dataclass(frozen=True)
class SortTags:
    """Order the tags by the alphabet; those that hold the trigger word stay in front."""

    trigger: str = ""

    def of(self, caption: str) -> str:
        """The changed caption."""
        tags = [part.strip() for part in parts(caption) if part.strip()]
        return ", ".join(sorted(tags, key=lambda tag: (not has_trigger(tag, self.trigger), _known(tag))))


def changes(captions: Mapping[str, str], edit: Edit) -> dict[str, tuple[str, str]]:
    """What an edit makes of captions, by picture: before and after, without those that stay; for a preview and for `Edits`."""
    after = {name: one_line(edit.of(caption)) for name, caption in captions.items()}
    return {name: (caption, after[name]) for name, caption in captions.items() if one_line(caption) != after[name]}


def tags(captions: Mapping[str, str]) -> Counter[str]:
    """In how many captions each tag is, whatever its case; it is called as it was first met."""
    spelling: dict[str, str] = {}
    counted: Counter[str] = Counter()
    for caption in captions.values():
        found = {_known(part): part.strip() for part in reversed(parts(caption)) if part.strip()}
        counted.update(spelling.setdefault(known, tag) for known, tag in found.items())
    return counted


def parts(caption: str) -> list[str]:
    """The caption as commas part it, blanks and all: joined by commas, they are it again. Commas within braces do not part.

    Where braces do not pair, they count as text.
    """
    found, depth = [""], 0
    for piece in re.split(r"([{},])", caption):
        depth += (piece == "{") - (piece == "}")
        if piece == "," and not depth:
            found.append("")
        elif depth < 0:
            break
        else:
            found[-1] += piece
    return caption.split(",") if depth else found


def _known(tag: str) -> str:
    """What a tag is known by."""
    return " ".join(tag.split()).casefold()
