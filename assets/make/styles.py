"""Draw the sample styles: `assets/styles/NAME/`, from treatments that the starter base has never seen.

    python assets/make/styles.py

The captions say what is in a picture and nothing of how it is drawn: the style must be the only thing not named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

from scenes import OBJECTS, Scene, random_scene
from treatments import HELD_OUT_TREATMENTS, describe, draw

STYLES = Path(__file__).resolve().parents[1] / "styles"
TRIGGERS = {"blueprint": "vellorn", "stained-glass": "quazmir", "risograph": "brisotto"}
PICTURES = 18
SIDE = 512


def scenes(seed: int, count: int = PICTURES) -> Iterator[Scene]:
    """Scenes in which every object comes about equally often."""
    random = Random(seed)
    for index in range(count):
        scene = random_scene(random, things=2 if index % 3 == 2 else 1)
        first = replace(scene.things[0], name=OBJECTS[index % len(OBJECTS)])
        yield replace(scene, things=(first, *scene.things[1:]))


def write(name: str, folder: Path) -> None:
    """One style's pictures, captions and trigger word."""
    folder.mkdir(parents=True, exist_ok=True)
    treatment = replace(HELD_OUT_TREATMENTS[name], words="", names_colours=True)
    for index, scene in enumerate(scenes(seed=1000 + len(name))):
        draw(scene, treatment, SIDE).save(folder / f"{index + 1:02d}.png", optimize=True)
        (folder / f"{index + 1:02d}.txt").write_text(describe(scene, treatment) + "\n", encoding="utf-8")
    (folder / "dataset.toml").write_text(f'trigger = "{TRIGGERS[name]}"\n', encoding="utf-8")


if __name__ == "__main__":
    for style in HELD_OUT_TREATMENTS:
        write(style, STYLES / style)
