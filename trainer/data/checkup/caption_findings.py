"""Findings in a dataset's captions: what is missing, cut off, in another encoding, or in nearly all of them.

What a word means is not known here: nouns are told from lists of little words in English, so a finding may be wrong.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from trainer.data import captions, tokens, variety
from trainer.data.captions import Text, has_trigger, with_trigger
from trainer.data.checkup.finding import KINDS, Finding, counted, found
from trainer.data.dataset import Dataset
from trainer.data.editing import bulk
from trainer.data.naming import caption_of
from trainer.data.style_words import StyleWords
from trainer.settings import Settings

MOST_WITH = 0.6
"""Share of the captions that may hold one subject."""

ENOUGH = 5
"""With fewer captions nothing is said of what most of them hold."""

TOLD = 4
"""So many words are named in one sentence."""

LITTLE = frozenset(
    re.findall(
        r"\w+",
        """
    a about above across after against all along among an and another any are around as at away back background be been before
    behind below beneath beside between beyond big black blue both bottom bright brown but by center centre close color colored
    colour coloured dark down each empty far few foreground for four from front full gold golden green grey gray had has have he
    her here him his in inside into is it its large left light lit little long looking looks lower many middle more most near
    next no of off old on one onto orange other out over pink purple red right scene setting several she short shows sitting
    small some standing tall that the their them there these they this three through to top towards two under up upper very
    view viewer visible was wearing were which white who with within without yellow young
    """,
    )
)
"""Words that are no subject: little ones, places, colours, sizes."""

_WORD = re.compile(r"[^\W_][\w'-]*[^\W_]")


def caption_findings(dataset: Dataset, settings: Settings) -> Iterator[Finding]:
    """All that was found in the captions. Raises `DatasetError` if one cannot be read."""
    if not dataset.pictures:
        return
    trigger = settings.trigger or dataset.trigger
    texts = {each.path.name: captions.text_of(each.caption_path) for each in dataset.pictures}
    said = {name: text.text for name, text in texts.items()}
    yield from _encodings(texts)
    if not trigger:
        yield found("trigger", "There is no trigger word: nothing calls the style in a prompt.", (), _ABOUT_TRIGGERS)
    yield from _bare(said)
    yield from _long(said, settings.model_copy(update={"trigger": trigger}))
    yield from _named_styles(said, trigger)
    yield from _leaks(said, trigger)


_ABOUT_TRIGGERS = "Give a word of your own that no model knows, such as vellorn; training puts it before every caption."


def unstyled(text: str, trigger: str) -> str:
    """A caption without the words that name how its picture is made; the trigger word stays where it was there."""
    without = StyleWords.told("", trigger).out_of(text)
    return with_trigger(without, trigger) if has_trigger(text, trigger) else without


def _encodings(texts: Mapping[str, Text]) -> Iterator[Finding]:
    names = [name for name, text in texts.items() if text.encoding != "utf-8"]
    guessed = [name for name in names if texts[name].encoding == "latin-1"]
    if names:
        guess = ""
        if guessed:
            read = f"{counted(len(guessed), 'is', 'are')} read as Windows-1252, which is a guess"
            guess = f" {read}: see whether this is right: “{_short(texts[guessed[0]].text)}”."
        yield found(
            "encoding",
            f"{counted(len(names), 'caption is', 'captions are')} in another encoding than plain UTF-8: other tools may read "
            f"something else, or nothing.{guess}",
            names,
            "Rewriting keeps every letter as it is read here.",
        )


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"


def _bare(said: Mapping[str, str]) -> Iterator[Finding]:
    names = tuple(name for name, text in said.items() if not text)
    if names:
        telling = [name for name in names if caption_of(name)]
        use = f"The names of {len(telling)} of these files are words that can be used. " if telling else ""
        yield Finding(
            "bare",
            f"{counted(len(names), 'picture has', 'pictures have')} no caption: what they show is learnt as part of the style.",
            names,
            mend=KINDS["bare"][1] if telling else "",
            advice=f"{use}Have captions written by a model, or write them: say what is there, not how it is drawn.",
        )


def _long(said: Mapping[str, str], settings: Settings) -> Iterator[Finding]:
    names = [
        name
        for name, text in said.items()
        if len(text) > tokens.LIMIT / 2  # no token is shorter than a letter
        and any(
            tokens.count(with_trigger(variant, settings.trigger)) > tokens.LIMIT
            for variant in variety.variants(text, settings, settings.caption_variants, name)
        )
    ]
    if names:
        yield found(
            "long",
            f"{counted(len(names), 'caption has', 'captions have')} more than {tokens.LIMIT} tokens: the rest is cut off.",
            names,
            "Shorten them, or put what matters first.",
        )


def _named_styles(said: Mapping[str, str], trigger: str) -> Iterator[Finding]:
    words = {name: _words(text) - _words(unstyled(text, trigger)) - _words(trigger) - LITTLE for name, text in said.items()}
    names = [name for name, there in words.items() if there]
    if names:
        counts = Counter(word for there in words.values() for word in there)
        yield found(
            "style",
            f"{counted(len(names), 'caption may name', 'captions may name')} the style ({_quoted(counts)}): what is named is "
            "learnt under that name, and less under the trigger word.",
            names,
            "The style should be the only thing that is not named. See afterwards whether what is left reads well.",
        )


def _leaks(said: Mapping[str, str], trigger: str) -> Iterator[Finding]:
    written = {name: text for name, text in said.items() if text}
    if len(written) < ENOUGH:
        return
    subjects = {name: _subjects(text, trigger) for name, text in written.items()}
    counts = Counter(subject for there in subjects.values() for subject in there)
    often = Counter({subject: count for subject, count in counts.items() if count > MOST_WITH * len(written)})
    for longer in [subject for subject in often if " " in subject]:
        for word in longer.split():
            if counts[word] <= counts[longer]:
                often.pop(word, None)
    if often:
        names = [name for name, there in subjects.items() if there & often.keys()]
        many = f"{'' if len(often) == 1 else 'up to '}{max(often.values())} of {len(written)}"
        yield found(
            "leak",
            f"{_quoted(often)} {'is' if len(often) == 1 else 'are'} in {many} captions: what is in most "
            "pictures leaks into the style, and the LoRA draws it unasked.",
            names,
            "Add pictures of other subjects. Leave it in the captions: what is named there leaks less.",
        )


def _subjects(text: str, trigger: str) -> set[str]:
    """The words and short tags of a caption that may be what is in its picture, in small letters."""
    there: set[str] = set()
    for part in bulk.parts(unstyled(text.lower(), trigger.lower()).lower()):
        if has_trigger(part, trigger):
            part = re.sub(re.escape(trigger), " ", part, flags=re.IGNORECASE)
        words = _WORD.findall(part)
        kept = [word for word in words if word not in LITTLE and not word.isdecimal()]
        there |= set(kept)
        if 1 < len(words) <= 3 and kept:
            there.add(" ".join(words))
    return there


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def _quoted(counts: Counter[str]) -> str:
    """The most frequent of them, as they can stand in a sentence."""
    words = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    more = f" and {len(words) - TOLD} more" if len(words) > TOLD else ""
    return ", ".join(f"“{word}”" for word in words[:TOLD]) + more
