"""The drawn world that the starter base learns: its objects, and scenes with their outlines and own colours.

Everything is a pure function of a seed. How a scene is drawn and described is said in `treatments.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

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
    "moon": ((244, 240, 206), [("sky thing", _oval(0, 0, 0.8, 0.8, 40, 320) + _oval(0.45, 0, 0.55, 0.6, 290, 70))]),
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
