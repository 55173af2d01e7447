"""How a scene is drawn, and what is said of it: treatments, pictures, captions.

A *treatment* is flat, outlined, ink on paper, duotone ... The base learns most of them, named in the caption; a few are held
out, and the sample styles are made of those. Pure functions of a seed; knows nothing of torch, of models or of training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw, ImageFilter
from scenes import COLOURS, SIZE, Colour, Part, Scene, jitter, luma, mix, parts

PAIRS = [(ink, paper) for ink in COLOURS for paper in COLOURS if ink != paper]
HELD_OUT_PAIRS = frozenset(PAIRS[::5])
"""A fifth of the (ink, paper) pairs, `white on blue` and `pink on black` among them: no base picture shows them."""


@dataclass(frozen=True)
class Treatment:
    """How a scene is drawn: its kind, the words that name it, and what the kind needs to know."""

    kind: str
    words: str
    ink: Colour = (26, 26, 30)
    paper: Colour = (248, 248, 248)
    accent: Colour = (248, 248, 248)
    width: float = 0.0
    """Line width in pixels of a 128-pixel picture."""
    line: Colour | None = None
    """The lines' colour, where it is not the ink's."""
    bleed: float = 0.0
    """How far the colours run into each other, in pixels of a 128-pixel picture."""
    names_colours: bool = True
    """Whether the objects' own colours can be seen."""


WIDTHS = {"thin": 1.6, "": 2.6, "thick": 4.2}


def _ink_words(ink: str, paper: str, width: str) -> str:
    return f"{width + ' ' if width else ''}{ink} lines on {paper} paper"


def random_pair(random: Random, least: float = 0.12) -> tuple[str, str]:
    """An (ink, paper) pair that the base may see, with at least that much difference of luma."""
    while True:
        pair = random.choice(PAIRS)
        if pair not in HELD_OUT_PAIRS and abs(luma(COLOURS[pair[0]]) - luma(COLOURS[pair[1]])) >= least:
            return pair


def random_treatment(random: Random) -> Treatment:
    """One of the treatments that the base learns, plain scenes most often."""
    kind = random.choices(
        ("flat", "outlined", "ink", "poster", "duotone", "silhouette", "pastel", "pixelated", "dark", "negative"),
        (30, 10, 20, 14, 7, 5, 4, 4, 3, 3),
    )[0]
    ink_name, paper_name = random_pair(random)
    ink, paper = jitter(COLOURS[ink_name], random, 14), jitter(COLOURS[paper_name], random, 14)
    width_name = random.choice(list(WIDTHS))
    width = WIDTHS[width_name] * random.uniform(0.9, 1.1)
    if kind == "flat":
        return Treatment("flat", "flat colors" if random.random() < 0.3 else "")
    if kind == "outlined":
        words = f"{width_name + ' ' if width_name else ''}{ink_name} outlines"
        return Treatment("outlined", words, ink=ink, width=width)
    if kind == "ink":
        words = _ink_words(ink_name, paper_name, width_name)
        return Treatment("ink", words, ink, paper, width=width, names_colours=False)
    if kind == "poster":
        third = random.choice([name for name in COLOURS if name not in (ink_name, paper_name)])
        words = f"poster in {paper_name}, {third} and {ink_name}"
        line = random.choice([None, "black", "white", ink_name])
        if line:
            words += f", {width_name + ' ' if width_name else ''}{line} outlines"
        accent = jitter(COLOURS[third], random, 14)
        pen = COLOURS[line or "black"]
        return Treatment("poster", words, ink, paper, accent, width if line else 0.0, pen, names_colours=False)
    if kind == "duotone":
        return Treatment("duotone", f"{ink_name} and {paper_name} duotone", ink, paper, names_colours=False)
    if kind == "silhouette":
        return Treatment("silhouette", f"{ink_name} silhouette on {paper_name}", ink, paper, names_colours=False)
    words = {"pastel": "pastel colors", "pixelated": "pixelated", "dark": "dark colors", "negative": "negative colors"}[kind]
    return Treatment(kind, words, names_colours=kind != "negative")


BLUEPRINT = Treatment("ink", "blueprint", (244, 248, 255), (30, 66, 178), width=4.8, bleed=0.7, names_colours=False)
STAINED_GLASS = Treatment("glass", "stained glass", (16, 14, 22), width=5.5, bleed=0.7, names_colours=False)
RISOGRAPH = Treatment("riso", "risograph", (32, 52, 112), width=5.0, bleed=0.7, names_colours=False)
HELD_OUT_TREATMENTS = {"blueprint": BLUEPRINT, "stained-glass": STAINED_GLASS, "risograph": RISOGRAPH}
"""Drawn in no picture of the base; the sample styles are made of them."""

GLASS = {
    "sky": (236, 178, 40),
    "ground": (18, 120, 124),
    "sky thing": (250, 240, 190),
    "main": (190, 24, 52),
    "dark": (92, 26, 112),
    "light": (250, 226, 150),
    "wood": (92, 26, 112),
    "leaf": (22, 140, 70),
}
RISO = {
    "sky": (250, 238, 214),
    "ground": (96, 186, 170),
    "sky thing": (255, 120, 108),
    "main": (255, 120, 108),
    "dark": (32, 52, 112),
    "light": (250, 238, 214),
    "wood": (32, 52, 112),
    "leaf": (96, 186, 170),
}


def _poster(part: Part, treatment: Treatment) -> Colour:
    """Sky in the paper's colour, ground in the accent's, objects in the ink's."""
    roles = {
        "sky": treatment.paper,
        "sky thing": treatment.accent,
        "ground": treatment.accent,
        "light": treatment.paper,
        "main": treatment.ink,
    }
    return roles.get(part.role, mix(treatment.ink, (0, 0, 0), 0.5))


def _fill(part: Part, treatment: Treatment) -> Colour:
    """The colour that a part is filled with."""
    colour, ink, paper = part.colour, treatment.ink, treatment.paper
    fills: dict[str, Callable[[], Colour]] = {
        "flat": lambda: colour,
        "outlined": lambda: colour,
        "pixelated": lambda: colour,
        "ink": lambda: paper,
        "poster": lambda: _poster(part, treatment),
        "duotone": lambda: mix(ink, paper, part.tone),
        "silhouette": lambda: paper if part.role in ("sky", "sky thing") else ink,
        "pastel": lambda: mix(colour, (255, 255, 255), 0.55),
        "dark": lambda: mix(colour, (8, 6, 24), 0.6),
        "negative": lambda: (255 - colour[0], 255 - colour[1], 255 - colour[2]),
        "glass": lambda: GLASS[part.role],
        "riso": lambda: RISO[part.role],
    }
    return fills[treatment.kind]()


def draw(scene: Scene, treatment: Treatment, size: int = SIZE) -> Image.Image:
    """The picture, `size` pixels square, drawn at four times the size and reduced."""
    side = 4 * size
    canvas = Image.new("RGB", (side, side))
    pen = ImageDraw.Draw(canvas)
    width = round(treatment.width * side / SIZE)
    for part in parts(scene):
        outline = [(x * side, y * side) for x, y in part.outline]
        pen.polygon(outline, fill=_fill(part, treatment))
        if width and part.role != "sky":
            pen.line([*outline, *outline[:2]], fill=treatment.line or treatment.ink, width=width, joint="curve")
    if treatment.bleed:
        canvas = canvas.filter(ImageFilter.GaussianBlur(treatment.bleed * side / SIZE))
    picture = canvas.reduce(4)
    if treatment.kind == "pixelated":
        picture = picture.resize((22, 22), Image.Resampling.BOX).resize((size, size), Image.Resampling.NEAREST)
    return picture


def describe(scene: Scene, treatment: Treatment, random: Random | None = None) -> str:
    """The caption: content first, then the treatment's words. `random` leaves out a word here and there."""
    chance = random.random if random else lambda: 1.0
    colours = treatment.names_colours or chance() < 0.4
    named = []
    for thing in scene.things:
        place = "in the middle" if thing.place == "middle" else f"on the {thing.place}"
        what = f"{thing.colour} {thing.name}" if colours else thing.name
        named.append(f"{'an' if what[0] in 'aeiou' else 'a'} {what}" + (f" {place}" if chance() > 0.15 else ""))
    clauses = [" and ".join(named)]
    if chance() > 0.1:
        clauses.append(f"on {scene.ground}")
    if chance() > 0.1:
        clauses.append(scene.sky + (f" with a {scene.sky_thing}" if scene.sky_thing else ""))
    if treatment.words:
        clauses.append(treatment.words)
    return ", ".join(clauses)
