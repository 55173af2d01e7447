"""The drawn world that the starter base learns: scenes, treatments, pictures, captions.

A *scene* says what is there (objects, colours, places, ground, sky). A *treatment* says how it is drawn (flat, outlined,
ink on paper, duotone ...). `draw` turns the two into a picture and `describe` into a caption. Everything is a pure
function of a seed. This file knows nothing of torch, of models or of training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw, ImageFilter

SIZE = 128
"""Side of a picture in pixels."""

Point = tuple[float, float]
Colour = tuple[int, int, int]

OBJECTS = ("house", "tree", "car", "boat", "fish", "mushroom", "rocket", "flower")
PLACES = {"left": 0.27, "middle": 0.5, "right": 0.73}
COLOURS: dict[str, Colour] = {
    "red": (214, 36, 36),
    "orange": (244, 136, 22),
    "yellow": (248, 214, 36),
    "green": (28, 140, 58),
    "blue": (34, 74, 206),
    "purple": (124, 44, 168),
    "pink": (246, 128, 184),
    "white": (248, 248, 248),
    "black": (26, 26, 30),
}
GROUNDS: dict[str, Colour] = {
    "grass": (132, 190, 104),
    "sand": (230, 208, 150),
    "water": (88, 152, 190),
    "snow": (234, 240, 246),
    "earth": (158, 118, 86),
}
SKIES: dict[str, Colour] = {
    "blue sky": (166, 212, 242),
    "grey sky": (190, 196, 202),
    "night sky": (24, 28, 74),
    "sunset sky": (250, 190, 150),
}
SKY_THINGS = ("sun", "moon", "cloud", "star")
UNSEEN = {("white", "snow"), ("black", "night sky")}
"""Object colour and ground or sky that would hide each other: never drawn together."""

PAIRS = [(ink, paper) for ink in COLOURS for paper in COLOURS if ink != paper]
HELD_OUT_PAIRS = frozenset(PAIRS[::5])
"""A fifth of the (ink, paper) pairs, `white on blue` and `pink on black` among them: no base picture shows them."""


@dataclass(frozen=True)
class Thing:
    """One object of a scene; `x` and `scale` are fractions of the picture's side."""

    name: str
    colour: str
    place: str
    x: float
    scale: float


@dataclass(frozen=True)
class Scene:
    """What is in a picture. `horizon` is the ground's upper edge as a fraction of the height."""

    things: tuple[Thing, ...]
    ground: str
    sky: str
    sky_thing: str | None
    sky_x: float
    horizon: float
    tint: int
    """Seed of the small colour jitter, so that a scene's colours do not depend on its treatment."""


@dataclass(frozen=True)
class Part:
    """One closed outline in picture fractions. `role` is what it shows, `tone` how light it is drawn in few colours."""

    role: str
    outline: tuple[Point, ...]
    tone: float
    colour: Colour


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


# --- shapes: outlines in a unit box, x and y in -1 ... 1, y down, standing on y = 1 -------------------------------------

Shape = list[tuple[str, list[Point]]]


def _oval(cx: float, cy: float, rx: float, ry: float, start: float = 0.0, end: float = 360.0) -> list[Point]:
    steps = max(8, int(abs(end - start) / 9))
    angles = [math.radians(start + (end - start) * i / steps) for i in range(steps + (end - start < 360))]
    return [(cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles]


def _box(left: float, top: float, right: float, bottom: float) -> list[Point]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _star(cx: float, cy: float, outer: float, inner: float, points: int) -> list[Point]:
    turns = [(outer if i % 2 == 0 else inner, math.pi * i / points - math.pi / 2) for i in range(2 * points)]
    return [(cx + r * math.cos(a), cy + r * math.sin(a)) for r, a in turns]


# "main" carries the object's colour, "dark" and "light" are its details.
SHAPES: dict[str, Shape] = {
    "house": [
        ("main", _box(-0.72, -0.15, 0.72, 1.0)),
        ("dark", [(-0.95, -0.15), (0.0, -1.0), (0.95, -0.15)]),
        ("light", _box(-0.5, 0.15, -0.12, 0.53)),
        ("dark", _box(0.14, 0.3, 0.5, 1.0)),
    ],
    "tree": [
        ("wood", _box(-0.16, 0.2, 0.16, 1.0)),
        ("main", _oval(0.0, -0.3, 0.72, 0.7)),
    ],
    "car": [
        ("main", [(-0.52, 0.15), (-0.34, -0.35), (0.38, -0.35), (0.58, 0.15)]),
        ("light", [(-0.34, 0.1), (-0.22, -0.2), (0.28, -0.2), (0.4, 0.1)]),
        ("main", _box(-1.0, 0.12, 1.0, 0.66)),
        ("dark", _oval(-0.52, 0.7, 0.27, 0.29)),
        ("dark", _oval(0.52, 0.7, 0.27, 0.29)),
    ],
    "boat": [
        ("wood", _box(-0.12, -1.0, 0.0, 0.35)),
        ("light", [(0.06, -0.9), (0.78, 0.22), (0.06, 0.22)]),
        ("main", [(-0.95, 0.35), (0.95, 0.35), (0.6, 1.0), (-0.6, 1.0)]),
    ],
    "fish": [
        ("dark", [(0.4, 0.2), (1.0, -0.28), (1.0, 0.68)]),
        ("main", _oval(-0.18, 0.2, 0.78, 0.5)),
        ("light", _oval(-0.55, 0.08, 0.13, 0.13)),
    ],
    "mushroom": [
        ("light", [(-0.24, 0.0), (0.24, 0.0), (0.34, 1.0), (-0.34, 1.0)]),
        ("main", [*_oval(0.0, 0.05, 0.9, 0.95, 180, 360), (0.9, 0.1), (-0.9, 0.1)]),
        ("light", _oval(-0.36, -0.32, 0.16, 0.16)),
        ("light", _oval(0.3, -0.4, 0.18, 0.18)),
    ],
    "rocket": [
        ("dark", [(-0.36, 0.25), (-0.78, 0.95), (-0.3, 0.8)]),
        ("dark", [(0.36, 0.25), (0.78, 0.95), (0.3, 0.8)]),
        ("main", [(0.0, -1.0), (0.28, -0.6), (0.38, -0.1), (0.34, 0.85), (-0.34, 0.85), (-0.38, -0.1), (-0.28, -0.6)]),
        ("light", _oval(0.0, -0.15, 0.2, 0.2)),
    ],
    "flower": [
        ("leaf", _box(-0.07, 0.0, 0.07, 1.0)),
        ("leaf", _oval(0.3, 0.68, 0.28, 0.13)),
        *[
            ("main", _oval(0.42 * math.cos(a), -0.4 + 0.42 * math.sin(a), 0.27, 0.27))
            for a in (math.tau * i / 6 for i in range(6))
        ],
        ("light", _oval(0.0, -0.4, 0.24, 0.24)),
    ],
}
SKY_SHAPES: dict[str, tuple[Colour, Shape]] = {
    "sun": ((252, 206, 60), [("sky thing", _star(0, 0, 1.0, 0.68, 10))]),
    "moon": ((244, 240, 206), [("sky thing", _oval(0, 0, 0.8, 0.8, 40, 320) + _oval(0.45, 0, 0.55, 0.6, 290, 70)[::1])]),
    "cloud": (
        (246, 248, 252),
        [
            (
                "sky thing",
                [
                    *_oval(-0.6, 0.2, 0.5, 0.4, 90, 270),
                    *_oval(-0.1, -0.2, 0.55, 0.5, 200, 330),
                    *_oval(0.6, 0.2, 0.5, 0.4, -80, 90),
                ],
            )
        ],
    ),
    "star": ((252, 232, 120), [("sky thing", _star(0, 0, 1.0, 0.45, 5))]),
}
WOOD: Colour = (112, 74, 48)
LEAF: Colour = (60, 128, 66)


# --- colours ----------------------------------------------------------------------------------------------------------


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`share` of `b` in `a`."""
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


def jitter(colour: Colour, random: Random, amount: int = 10) -> Colour:
    """`colour` moved by at most `amount` of 255 in each channel."""
    red, green, blue = (min(255, max(0, c + random.randint(-amount, amount))) for c in colour)
    return red, green, blue


def luma(colour: Colour) -> float:
    """Rec. 601 luma, 0 ... 1."""
    return (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]) / 255


def _detail(role: str, colour: Colour) -> tuple[Colour, float]:
    """Colour and tone of a part of an object whose colour is `colour`."""
    if role == "dark":
        return (mix(colour, (0, 0, 0), 0.42) if luma(colour) > 0.2 else (84, 84, 92)), 0.15
    if role == "light":
        return (mix(colour, (255, 255, 255), 0.72) if luma(colour) < 0.8 else (186, 196, 210)), 0.85
    return {"wood": (WOOD, 0.2), "leaf": (LEAF, 0.3), "main": (colour, 0.35)}[role]


# --- a scene and its parts ----------------------------------------------------------------------------------------------


def random_scene(random: Random, things: int | None = None) -> Scene:
    """A scene with one or two objects (or as many as `things` says)."""
    count = things or (1 if random.random() < 0.6 else 2)
    places = [random.choice(list(PLACES))] if count == 1 else ["left", "right"]
    while True:
        colours = [random.choice(list(COLOURS)) for _ in places]
        ground, sky = random.choice(list(GROUNDS)), random.choice(list(SKIES))
        if not any((c, ground) in UNSEEN or (c, sky) in UNSEEN for c in colours):
            break
    size = (0.25, 0.34) if count == 1 else (0.2, 0.24)
    drawn = []
    for colour, place in zip(colours, places, strict=True):
        scale = random.uniform(*size)
        x = min(max(PLACES[place] + random.uniform(-0.03, 0.03), scale + 0.02), 0.98 - scale)
        drawn.append(Thing(random.choice(OBJECTS), colour, place, x, scale))
    sky_thing = random.choice(SKY_THINGS) if random.random() < 0.35 else None
    sky_x, horizon = random.choice((0.2, 0.5, 0.8)), random.uniform(0.6, 0.7)
    return Scene(tuple(drawn), ground, sky, sky_thing, sky_x, horizon, random.getrandbits(32))


def parts(scene: Scene) -> Iterator[Part]:
    """The scene's outlines from back to front."""
    random = Random(scene.tint)
    sky, ground = jitter(SKIES[scene.sky], random), jitter(GROUNDS[scene.ground], random)
    yield Part("sky", tuple(_box(-0.1, -0.1, 1.1, 1.1)), 1.0, sky)
    if scene.sky_thing:
        colour, shape = SKY_SHAPES[scene.sky_thing]
        for role, outline in shape:
            moved = tuple((scene.sky_x + 0.1 * x, 0.16 + 0.1 * y) for x, y in outline)
            yield Part(role, moved, 0.7, jitter(colour, random))
    yield Part("ground", tuple(_box(-0.1, scene.horizon, 1.1, 1.1)), 0.6, ground)
    for thing in scene.things:
        main = jitter(COLOURS[thing.colour], random)
        foot = scene.horizon + 0.14
        for role, outline in SHAPES[thing.name]:
            colour, tone = _detail(role, main)
            moved = tuple((thing.x + thing.scale * x, foot + thing.scale * (y - 1)) for x, y in outline)
            yield Part(role, moved, tone, colour)


# --- treatments ---------------------------------------------------------------------------------------------------------

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
        clauses.append(f"on {scene.ground}" if len(clauses[0]) else scene.ground)
    if chance() > 0.1:
        clauses.append(scene.sky + (f" with a {scene.sky_thing}" if scene.sky_thing else ""))
    if treatment.words:
        clauses.append(treatment.words)
    return ", ".join(clauses)
