"""A small classifier that reads drawn scenes, and two distances between sets of pictures: what the starter is judged by.

    python assets/make/judge.py          # trains the classifier into the work folder, prints its accuracy on renders

The classifier has seen every treatment, the held-out ones too. It reads the first (or left) object and the second one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scenes import COLOURS, OBJECTS, Scene, random_scene
from torch import nn
from treatments import HELD_OUT_TREATMENTS, Treatment, draw, random_treatment
from work import cosine, device, load_state, save_state, work_folder

STEPS, BATCH = 2400, 64
RENDERS = 12_000
_COLOUR_NAMES = tuple(COLOURS)


class Judge(nn.Module):
    """Pictures (n, 3, 128, 128) in -1 … 1 -> logits of object 1, colour 1, object 2, colour 2."""

    sizes = (len(OBJECTS), len(COLOURS), len(OBJECTS), len(COLOURS))

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 96, 128)
        self.body = nn.Sequential(
            nn.AvgPool2d(2),
            *[
                layer
                for a, b in pairwise(widths)
                for layer in (nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.ReLU())
            ],
            nn.Flatten(),
            nn.Linear(128 * 16, 256),
            nn.ReLU(),
        )
        self.head = nn.Linear(256, sum(self.sizes))

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The four groups of logits."""
        logits: torch.Tensor = self.head(self.body(pictures))
        groups: tuple[torch.Tensor, ...] = logits.split(self.sizes, dim=1)
        return groups


def truth(scene: Scene, treatment: Treatment) -> list[int]:
    """Class numbers of object 1, colour 1, object 2, colour 2; -1 where there is none or it cannot be seen."""
    row = [-1] * 4
    for index, thing in enumerate(scene.things):
        row[2 * index] = OBJECTS.index(thing.name)
        if treatment.kind in ("flat", "outlined"):
            row[2 * index + 1] = _COLOUR_NAMES.index(thing.colour)
    return row


def render(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 (n, 128, 128, 3) and their classes (n, 4), in all treatments."""
    random = Random(seed)
    pictures, rows = [], []
    held_out = list(HELD_OUT_TREATMENTS.values())
    for _ in range(count):
        scene = random_scene(random)
        treatment = random.choice(held_out) if random.random() < 0.25 else random_treatment(random)
        pictures.append(np.asarray(draw(scene, treatment)))
        rows.append(truth(scene, treatment))
    return np.stack(pictures), np.array(rows)


def as_pixels(pictures: Sequence[Image.Image] | np.ndarray) -> torch.Tensor:
    """Pictures as (n, 3, h, w) in -1 … 1."""
    stacked = np.stack([np.asarray(picture) for picture in pictures])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 127.5 - 1


def _disturbed(pixels: torch.Tensor) -> torch.Tensor:
    """Blurred, noisy and shifted a little, as a model's pictures are."""
    if torch.rand(()) < 0.5:
        pixels = F.interpolate(F.avg_pool2d(pixels, 2), scale_factor=2, mode="bilinear")
    shift = [int(x) for x in torch.randint(-6, 7, (2,))]
    return torch.roll(pixels, shift, (2, 3)) + 0.1 * torch.rand(()) * torch.randn_like(pixels)


def load_judge(folder: Path | None = None) -> Judge:
    """The trained classifier, trained now if there is none yet."""
    path = (folder or work_folder()) / "judge.pt"
    judge = Judge()
    if not path.exists():
        train(judge, path)
    judge.load_state_dict(load_state(path)["model"])
    return judge.eval()


def train(judge: Judge, path: Path) -> None:
    """Train on renders."""
    torch.manual_seed(0)
    judge.to(device()).train()
    pictures, rows = render(5, RENDERS)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=1e-2)
    for step in range(STEPS):
        chosen = np.random.default_rng([5, step]).integers(len(pictures), size=BATCH)
        logits = judge(_disturbed(as_pixels(pictures[chosen])).to(device()))
        classes = torch.from_numpy(rows[chosen]).to(device())
        loss = torch.stack([F.cross_entropy(g, classes[:, i], ignore_index=-1) for i, g in enumerate(logits)]).nansum()
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * cosine(step, STEPS, warmup=50)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 200 == 0:
            print(f"judge {step + 1}/{STEPS} loss {loss.item():.4f}", flush=True)
    save_state(path, {"model": judge.state_dict()})


@torch.no_grad()
def read(judge: Judge, pictures: Sequence[Image.Image] | np.ndarray) -> np.ndarray:
    """Class numbers (n, 4) as the classifier sees them."""
    logits = judge(as_pixels(pictures))
    return torch.stack([group.argmax(1) for group in logits], 1).numpy()


def accuracy(judge: Judge) -> dict[str, float]:
    """Share of right answers on renders that were not trained on, per question."""
    pictures, rows = render(77, 1500)
    seen = np.concatenate([read(judge, part) for part in np.array_split(pictures, 15)])
    names = ("object", "colour", "second object", "second colour")
    return {n: float((seen[:, i] == rows[:, i])[rows[:, i] >= 0].mean()) for i, n in enumerate(names)}


# --- distances between sets of pictures -----------------------------------------------------------------------------------


def to_lab(pictures: np.ndarray) -> np.ndarray:
    """sRGB uint8 (…, 3) -> CIE Lab (D65), float64."""
    x = pictures.astype(np.float64) / 255
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
    xyz = linear @ matrix.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def colour_distance(a: np.ndarray, b: np.ndarray, directions: int = 64, points: int = 20_000) -> float:
    """Sliced Wasserstein-1 distance between the Lab colours of two sets of pictures, uint8 (n, h, w, 3)."""
    random = np.random.default_rng(0)
    unit = random.normal(size=(3, directions))
    unit /= np.linalg.norm(unit, axis=0)
    clouds = []
    for pictures in (a, b):
        pixels = pictures.reshape(-1, 3)
        clouds.append(np.sort(to_lab(pixels[random.integers(len(pixels), size=points)]) @ unit, axis=0))
    return float(np.abs(clouds[0] - clouds[1]).mean())


def edge_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean difference of the quantiles of the gradient magnitude of L, two sets of pictures, uint8 (n, h, w, 3)."""
    marks = np.linspace(0.005, 0.995, 100)
    rows = []
    for pictures in (a, b):
        light = to_lab(pictures)[..., 0]
        down, across = np.gradient(light, axis=(1, 2))
        rows.append(np.quantile(np.hypot(down, across), marks))
    return float(np.abs(rows[0] - rows[1]).mean())


if __name__ == "__main__":
    print(accuracy(load_judge()))
