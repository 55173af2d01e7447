"""Leaves the words out of a caption that name its style: what is not named is what the trigger word learns.

Sentences and tags alike. "A watercolor painting of a boat, in the style of Turner" -> "A boat". A thing that only has a style's
name stays: "a man in front of a painting", "a black and white cat". Knows no model; works by rules on English words alone, so
artists' names and the like are to be given as words of one's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from trainer.data.style_vocabulary import ABOUT, ADJECTIVE, KIND, MANNER, MATERIAL, TAG, WORK

_SHOWN = (
    r"(?:(?:that |which )?(?:shows?|depicts?|features?|portrays?|captures?|represents?)|showing|depicting|featuring|portraying|"
    r"capturing|representing|of|with|is of)"
)
_MADE = "(?:painted|drawn|done|rendered|illustrated|made|created|executed)"
_ENDS = r"(?=[,;:]|$| (?:with|by|on|of|and|from|at|near|showing|depicting)\b)"
_IS = r"(?=[,;:]|$| (?:is|was|has|had|also|seems|appears|takes|includes|conveys|evokes|contains|focuses|uses)\b)"
_GOES_ON = r"(?=[,;:]|$| (?:is|are|was|were|there|and|with|to|by|on|as|that|which|we|has|have|shows?|an?|the)\b)"
"""What may follow "the painting" where that is not the beginning of another thing, as in "the art gallery"."""

_NOT_OF_A_THING = r"(?!(?:on|of|in|is|are|was|were|and|or|with|by|at|for|to|from|about|that|which|as|playing|showing)\b)"
_BLANK = " ,;:-"
_EMPTY = re.compile(
    r"(?:(?:the|this|it|there)(?: scene)?|it|scene)?(?: ?(?:is|are|was|has been|appears to be))?"
    r"(?: ?(?:done|made|painted|drawn|rendered|created|executed))?(?: ?(?:a|an|the|and|in|with|of|on|by))*",
    re.IGNORECASE,
)
"""What is left of a sentence that said nothing but its style."""

_LOOSE = re.compile(r"(?:[ ,;]+(?:and|or|in|with|of|by|on|as|a|an|the)){1,5}(?=[.,;!?]|$)", re.IGNORECASE)
"""Little words that nothing follows any more."""

_CONSONANT = re.compile(r"(?:uni|use|usu|eu|one\b|once\b|u\b)", re.IGNORECASE)
_VOWEL = re.compile(r"(?:[aeiou]|hour|honest|heir)", re.IGNORECASE)


@dataclass(frozen=True)
class StyleWords:
    """What is to be left out: the words of a style in general, and `own` words, such as an artist's name or the trigger."""

    own: tuple[str, ...] = ()

    @classmethod
    def told(cls, text: str, *more: str) -> StyleWords:
        """Words of one's own as they are typed, separated by commas, and `more` of them."""
        return cls(tuple(word.strip() for word in (*text.split(","), *more) if word.strip()))

    def out_of(self, caption: str) -> str:
        """The caption without them, in one line; empty if it said nothing else."""
        sentences = re.split(r"(?<=[.!?]) +", " ".join(caption.split()))
        return " ".join(left for sentence in sentences if (left := self._sentence(sentence)))

    def _sentence(self, text: str) -> str:
        end = text[-1:] if text[-1:] in (".", "!", "?") else ""
        said = text.removesuffix(end)
        if self._of_style.fullmatch(said):
            return ""
        parts = [part for part in said.split(", ") if not self._tag.fullmatch(part.strip())]
        said = self._lead(", ".join(parts))
        if self._tag.fullmatch(said):
            return ""
        for pattern, by in self._within:
            said = pattern.sub(by, said)
        said = self._adjective.sub(lambda found: _article(found[1] or "", found[2]), said)
        said = _tidy(said)
        if _EMPTY.fullmatch(said):
            return ""
        if text[0].isupper():
            said = said[0].upper() + said[1:]
        return said + end

    def _lead(self, said: str) -> str:
        """Without "a painting of", "the image shows", "in this drawing we can see", one after the other."""
        while (found := self._begin.match(said)) and found.end():
            said = said[found.end() :]
        return said

    @cached_property
    def _words(self) -> str:
        """One's own words as an alternative in a pattern, the longest first; never matches if there are none."""
        own = sorted({" ".join(word.split()) for word in self.own if word.strip()}, key=len, reverse=True)
        return "|".join(re.escape(word) for word in own) or r"(?!)"

    @cached_property
    def _work(self) -> str:
        """A kind of work with what is said of it before: "old black and white photo"."""
        return rf"(?:(?:{KIND}|{self._words}),? (?:and )?){{0,6}}(?:{WORK}|{self._words})"

    @cached_property
    def _begin(self) -> re.Pattern[str]:
        work = rf"{self._work}(?: by [A-Z][\w.'-]*(?: [A-Z][\w.'-]*)*)?"
        there = r"(?:there (?:is|are) |(?:this|it|(?:the|this) (?:image|picture|photo)) (?:is|appears to be) )?"
        seen = rf"{there}(?:(?:a |an |the |this |two |some )?{work},? {_SHOWN} |a close[- ]?up of )"
        within = rf"in (?:this|the) {work}(?:, | (?=(?:we|you|there|an?|the|two|three|some)\b))"
        within += r"(?:(?:we|you|i) (?:can )?(?:also )?(?:see|observe) )?"
        view = r"(?:portrait|landscape|seascape|still life|scene|view|close[- ]?up)"
        is_ = rf"(?:the|this) (?:image|picture|photo) (?:is|appears to be) (?=an? (?:[\w-]+ ){{0,3}}{view}\b)"
        return re.compile(rf"(?:{seen}|{within}|{is_})", re.IGNORECASE)

    @cached_property
    def _of_style(self) -> re.Pattern[str]:
        """A sentence of which nothing is to stay."""
        its = rf"(?:the|its|this) {ABOUT},? (?:is|are|was|were|of|and|used|uses|has|have|gives?|adds?|appears?|creates?)\b.*"
        artist = (
            r"the artist(?:'s)? (?:has |have )?(?:used?|uses|employ\w*|captured?|captures|created?|creates|style|brush\w*)\b.*"
        )
        be = r"(?:is|was|has been|appears to be)"
        it = rf"(?:this|it|(?:the|this) {self._work}) {be}"
        plain = rf"{it} (?:an? )?(?:{self._work}|{MATERIAL})"
        how = rf"{it} (?:{_MADE} )?(?:in|with|using) (?:{MATERIAL}|(?:an? )?(?:[\w-]+ ){{1,4}}style)\b.*"
        made = rf"(?:the|this) {self._work} {be} {_MADE}(?! up| of)\b.*"
        return re.compile("|".join((its, artist, plain, how, made)), re.IGNORECASE)

    @cached_property
    def _tag(self) -> re.Pattern[str]:
        """A part between commas of which nothing is to stay."""
        return re.compile(rf"(?:and )?(?:an? )?(?:{TAG}|{MANNER}|{ADJECTIVE}|{self._work})", re.IGNORECASE)

    @cached_property
    def _within(self) -> tuple[tuple[re.Pattern[str], str], ...]:
        """What goes wherever it stands, and what comes in its place."""
        made = rf"{_MADE} ?"
        how = r"(?:(?!(?:in|with|of|on|an?|the) )[\w-]+ ){1,4}?(?:art ?style|style|aesthetic)"
        material = rf"{MATERIAL}(?: on (?:paper|canvas|board))?\b"
        patterns = (
            (rf",? ?(?:{made})?(?:in|with|after) (?:the|an?) (?:[\w-]+ )?(?:style|manner) of [^,.;]+", ""),
            (rf",? ?(?:{made})?(?:in|with) (?:an? |the )?{how}\b", ""),
            (rf",? ?{made}(?:in|with|using|on) {material}", ""),
            (rf",? ?(?<!dressed )(?<!clad )(?<!clothed )\bin {material}{_ENDS}", ""),
            (rf"(?<=[a-z])(?<! is)(?<! are) (?:in|of|from) (?:the|this) {self._work}{_GOES_ON}", ""),
            (rf"\b(the|this) (?!pictures?\b|images?\b|prints?\b|vectors?\b|graphics?\b){self._work}{_IS}", r"\1 scene"),
            (rf"(?<![\w-])(?:{self._words})(?![\w-])", ""),
        )
        return tuple((re.compile(pattern, re.IGNORECASE), by) for pattern, by in patterns)

    @cached_property
    def _adjective(self) -> re.Pattern[str]:
        return re.compile(rf"\b(an? )?(?:{ADJECTIVE},? ){{1,4}}{_NOT_OF_A_THING}(?=(\w+))", re.IGNORECASE)


def _article(article: str, following: str) -> str:
    """The article as the word that follows it now wants it; empty if there was none."""
    if not article:
        return ""
    wanted = "an " if _VOWEL.match(following) and not _CONSONANT.match(following) else "a "
    return wanted.capitalize() if article[0].isupper() else wanted


def _tidy(said: str) -> str:
    """Without the blanks, commas and little words that stand alone now."""
    said = re.sub(r" +([,.;!?])", r"\1", re.sub(r" {2,}", " ", said))
    said = re.sub(r"(?:, ?)+,", ",", said)
    return _LOOSE.sub("", said.strip(_BLANK)).strip(_BLANK)
