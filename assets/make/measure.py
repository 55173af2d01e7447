"""Measure the starter base and the sample styles by the figures that the README gives.

    python assets/make/measure.py base            # 40 single-object prompts x 4 seeds, 40 two-object prompts x 2 seeds
    python assets/make/measure.py styles RUNS     # trains what is missing in RUNS with the default preset, then measures
    python assets/make/measure.py grid PNG        # the grid of the README

A style's distances are relative: 0 is what two sets of true pictures of the style have between them, 1 is the base's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import torch
from judge import colour_distance, edge_distance, load_judge, read
from PIL import Image
from scenes import COLOURS, OBJECTS, SIZE, Scene, random_scene
from styles import STYLES, TRIGGERS
from treatments import HELD_OUT_TREATMENTS, Treatment, describe, draw

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the scripts run from a checkout, installed or not

from trainer import cli
from trainer.lora.file import LoraFile
from trainer.lora.mix import Canvas
from trainer.lora.weights import Weighted
from trainer.sdxl.base import Base, load_base
from trainer.sdxl.device import best_device
from trainer.sdxl.sampler import Sampling, sample, to_picture
from trainer.sdxl.text import encode_text, unconditional

FLAT = Treatment("flat", "")
STEPS, CFG = 20, 3.5


def pictures(base: Base, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
    """Every prompt with every seed, seeds outermost; uint8 (n, 128, 128, 3)."""
    made = []
    with torch.no_grad():
        for seed in seeds:
            for start in range(0, len(prompts), 8):
                batch = list(prompts[start : start + 8])
                text = encode_text(base, batch)
                how = Sampling(SIZE, SIZE, STEPS, CFG, tuple(seed * 1000 + start + i for i in range(len(batch))))
                *_, latents = sample(base, text, unconditional(text), how)
                made += [np.asarray(to_picture(pixels)) for pixels in base.decode(latents)]
    return np.stack(made)


def scenes(seed: int, count: int, things: int | None) -> list[Scene]:
    """Scenes for measuring, objects and colours in turn."""
    random, found = Random(seed), list[Scene]()
    while len(found) < count:
        scene = random_scene(random, things)
        first = scene.things[0]
        if things == 1 and (first.name != OBJECTS[len(found) % 8] or first.colour != list(COLOURS)[len(found) % 9]):
            continue
        found.append(scene)
    return found


def wanted(these: Sequence[Scene]) -> np.ndarray:
    """Class numbers (n, 4); -1 where there is no second object."""
    names = tuple(COLOURS)
    rows = []
    for scene in these:
        row = [value for thing in scene.things for value in (OBJECTS.index(thing.name), names.index(thing.colour))]
        rows.append(row + [-1] * (4 - len(row)))
    return np.array(rows)


def measure_base(base: Base) -> dict[str, float]:
    """How often the classifier reads from the base's pictures what was asked for."""
    judge = load_judge()
    single, double = scenes(31, 40, 1), scenes(32, 40, 2)
    seen = read(judge, pictures(base, [describe(s, FLAT) for s in single], (1, 2, 3, 4)))
    true = np.tile(wanted(single), (4, 1))
    both_seen = read(judge, pictures(base, [describe(s, FLAT) for s in double], (1, 2)))
    both_true = np.tile(wanted(double), (2, 1))
    return {
        "object": float((seen[:, 0] == true[:, 0]).mean()),
        "colour": float((seen[:, 1] == true[:, 1]).mean()),
        "both of two objects": float(((both_seen == both_true)[:, [0, 2]]).all(1).mean()),
    }


def true_pictures(name: str, seed: int, count: int = 48) -> np.ndarray:
    """Pictures of a style that nothing was trained on."""
    random = Random(seed)
    return np.stack([np.asarray(draw(random_scene(random, 1), HELD_OUT_TREATMENTS[name])) for _ in range(count)])


def relative(made: np.ndarray, base: np.ndarray, name: str) -> tuple[float, float]:
    """(colour, edges): 0 = the style's other half, 1 = the base."""
    half, other = true_pictures(name, 501), true_pictures(name, 502)
    answers = []
    for distance in (colour_distance, edge_distance):
        nothing, everything = distance(other, half), distance(base, half)
        answers.append((distance(made, half) - nothing) / (everything - nothing))
    return answers[0], answers[1]


def lora_of(name: str, runs: Path) -> Path:
    """The style's LoRA, trained now with the default preset if it is not there."""
    path = runs / name / f"{name}.safetensors"
    if not path.exists() and cli.main(["train", str(STYLES / name), "--out", str(runs / name), "--json"]) != 0:
        raise SystemExit(1)
    return path


def measure_styles(base: Base, runs: Path) -> None:
    """Print every style's figures, and those of two styles at 0.6 + 0.6."""
    judge, canvas = load_judge(), Canvas(base.parts, base.version)
    held_out = scenes(41, 24, 1)
    prompts, true = [describe(scene, FLAT) for scene in held_out], np.tile(wanted(held_out)[:, 0], 2)
    plain = pictures(base, prompts, (1, 2))
    plain_right = float((read(judge, plain)[:, 0] == true).mean())
    print(f"base: object {plain_right:.3f}", flush=True)
    files = {name: LoraFile.read(lora_of(name, runs)) for name in HELD_OUT_TREATMENTS}
    for name, lora in files.items():
        canvas.lay([Weighted(lora, 1.0, 1.0)])
        made = pictures(base, [f"{TRIGGERS[name]}, {prompt}" for prompt in prompts], (1, 2))
        canvas.lay([])
        colour, edges = relative(made, plain, name)
        right = float((read(judge, made)[:, 0] == true).mean())
        print(
            f"{name}: colour {colour:.3f} edges {edges:.3f} object {right:.3f} (falls {plain_right - right:+.3f})", flush=True
        )
        save_rows(runs / f"{name}.png", plain[:12], made[:12], true_pictures(name, 501)[:12])
    first, second = "stained-glass", "risograph"
    canvas.lay([Weighted(files[first], 0.6, 0.6), Weighted(files[second], 0.6, 0.6)])
    mixed = pictures(base, [f"{TRIGGERS[first]}, {TRIGGERS[second]}, {prompt}" for prompt in prompts], (1, 2))
    canvas.lay([])
    for name in (first, second):
        colour, edges = relative(mixed, plain, name)
        print(f"{first} 0.6 + {second} 0.6, to {name}: colour {colour:.3f} edges {edges:.3f}")
    save_rows(runs / "mixed.png", plain[:12], mixed[:12])
    print("base again, byte for byte:", bool((pictures(base, prompts, (1,)) == plain[:24]).all()))


def save_rows(path: Path, *rows: np.ndarray) -> None:
    """Rows of pictures as one PNG."""
    Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)).save(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("base", "styles", "grid"))
    parser.add_argument("path", type=Path, nargs="?", default=Path("build/measured"))
    asked = parser.parse_args()
    starter = load_base("starter", best_device(), torch.float32)
    if asked.what == "base":
        print(measure_base(starter))
    elif asked.what == "styles":
        asked.path.mkdir(parents=True, exist_ok=True)
        measure_styles(starter, asked.path)
    else:
        chosen = [scene for seed in (61, 62) for scene in scenes(seed, 12, 1 if seed == 61 else 2)]
        grid = pictures(starter, [describe(scene, FLAT) for scene in chosen], (1, 2))
        save_rows(asked.path, *np.split(grid, 4))
