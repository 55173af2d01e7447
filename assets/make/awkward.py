"""Draw the folder of awkward but good pictures that the tests train on: `tests/awkward/`.

    python assets/make/awkward.py

Different sizes and ratios, a JPEG that is upright only by its EXIF, transparency, WebP, AVIF, and a 12-megapixel JPEG
with the noise of a camera.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
from PIL import ExifTags, Image
from scenes import random_scene
from treatments import Treatment, describe, draw

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "awkward"


def noisy(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Enlarged, with coarse noise as a small sensor and its denoiser leave it."""
    grain = np.random.default_rng(3).normal(0, 7, size=(size[1] // 3 + 1, size[0] // 3 + 1, 3))
    layer = Image.fromarray((grain + 128).clip(0, 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    large = np.asarray(picture.resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
    return Image.fromarray((large + np.asarray(layer).astype(np.int16) - 128).clip(0, 255).astype(np.uint8))


def write() -> None:
    """Every picture with its caption."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    random = Random(8)
    flat = Treatment("flat", "")
    scenes = [random_scene(random) for _ in range(8)]
    drawn = [draw(scene, flat, 512) for scene in scenes]

    drawn[0].crop((0, 96, 512, 416)).save(FOLDER / "wide 8 to 5.png", optimize=True)
    drawn[1].crop((128, 0, 384, 512)).save(FOLDER / "tall.webp", quality=90)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    drawn[2].crop((64, 0, 448, 512)).transpose(Image.Transpose.ROTATE_90).save(FOLDER / "turned.jpg", quality=92, exif=exif)
    alpha = Image.new("L", (512, 512), 255)
    alpha.paste(0, (0, 0, 512, 120))
    cut = drawn[3].copy()
    cut.putalpha(alpha)
    cut.save(FOLDER / "cut out.png", optimize=True)
    drawn[4].resize((300, 300)).save(FOLDER / "modern.avif", quality=80)
    noisy(drawn[5].crop((0, 64, 512, 448)), (4000, 3000)).save(FOLDER / "IMG_0001.JPG", quality=60)
    drawn[6].resize((96, 96)).save(FOLDER / "small.png")
    drawn[7].convert("P", palette=Image.Palette.ADAPTIVE, colors=32).save(FOLDER / "palette.gif")
    names = ("wide 8 to 5.png", "tall.webp", "turned.jpg", "cut out.png", "modern.avif", "IMG_0001.JPG", "small.png")
    for name, scene in zip(names, scenes, strict=False):  # the last picture has no caption, on purpose
        (FOLDER / name).with_suffix(".txt").write_text(describe(scene, flat) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
