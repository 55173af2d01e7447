"""Pictures that measure like photographs: fractal noise and shapes, and what is usually wrong with such."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Resampling = Image.Resampling

WORDS = ("© Studio 2024", "www.example.com", "SAMPLE", "J. Smith", "@painter_12", "shutterpic")


@cache
def _noise(slope: float, side: int) -> np.ndarray[Any, Any]:
    """Three channels of noise, of whose power a share of 1/f^slope is at each frequency; periodic, of deviation 1."""
    random = np.random.default_rng(round(100 * slope))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1
    channels = []
    for _ in range(3):
        waves = random.normal(size=(2, side, side // 2 + 1))
        spectrum = (waves[0] + 1j * waves[1]) / frequency**slope
        spectrum[0, 0] = 0
        channel = np.fft.irfft2(spectrum, s=(side, side))
        channels.append(channel / channel.std())
    grey = channels[0]
    return np.stack([0.8 * grey + 0.2 * channel for channel in channels], axis=-1).astype(np.float32)


def photograph(seed: int, size: tuple[int, int] = (832, 640)) -> Image.Image:
    """A background and some shapes, each of a texture of its own, as through a lens and with a sensor's noise."""
    random = np.random.default_rng(seed)
    width, height = size

    def texture() -> Image.Image:
        noise = np.roll(_noise(random.choice([1.0, 1.15, 1.3]), 1024), random.integers(0, 1024, 2), (0, 1))[:height, :width]
        values = noise * random.uniform(8, 38) + random.uniform(50, 200, size=3)
        return Image.fromarray(values.clip(0, 255).astype(np.uint8))

    picture, other = texture(), texture()
    for _ in range(random.integers(4, 10)):
        mask = Image.new("L", (2 * width, 2 * height))
        across, down = random.uniform(0, 2 * width), random.uniform(0, 2 * height)
        radius = random.uniform(0.1, 0.6) * height
        if random.random() < 0.5:
            ImageDraw.Draw(mask).ellipse((across - radius, down - radius, across + radius, down + radius), fill=255)
        else:
            corners = [(across + radius * np.cos(a), down + radius * np.sin(a)) for a in np.sort(random.uniform(0, 6.28, 5))]
            ImageDraw.Draw(mask).polygon(corners, fill=255)
        shade = Image.blend(other, Image.new("RGB", size, tuple(int(part) for part in random.integers(0, 256, 3))), 0.6)
        picture.paste(shade, mask=mask.resize(size, Resampling.BOX))
    picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 0.6)))
    noisy = np.asarray(picture, np.float32) + random.normal(size=(height, width, 1)) * random.uniform(0.5, 2.5)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def blurred(picture: Image.Image, sigma: float) -> Image.Image:
    """Out of focus."""
    return picture.filter(ImageFilter.GaussianBlur(sigma))


def enlarged(picture: Image.Image, times: float) -> Image.Image:
    """The same size, but once it had so many times fewer pixels a side."""
    small = picture.resize((round(picture.width / times), round(picture.height / times)), Resampling.LANCZOS)
    return small.resize(picture.size, Resampling.BICUBIC)


def compressed(picture: Image.Image, quality: int) -> Image.Image:
    """What a JPEG of this quality leaves of it."""
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=quality)
    return Image.open(content).convert("RGB")


def framed(picture: Image.Image, border: tuple[int, int, int, int], colour: tuple[int, int, int]) -> Image.Image:
    """With so many pixels of a colour at the left, top, right and bottom."""
    left, top, right, bottom = border
    whole = Image.new("RGB", (picture.width + left + right, picture.height + top + bottom), colour)
    whole.paste(picture, (left, top))
    return whole


def marked(picture: Image.Image, seed: int) -> Image.Image:
    """With words in a corner."""
    random = np.random.default_rng(seed)
    whole = picture.copy()
    pen = ImageDraw.Draw(whole, "RGBA")
    font = ImageFont.load_default(size=int(random.uniform(20, 30)))
    words = WORDS[seed % len(WORDS)]
    _, _, wide, high = pen.textbbox((0, 0), words, font=font)
    at = ([12, picture.width - wide - 14][seed % 2], [10, picture.height - high - 14][seed // 2 % 2])
    pen.text(at, words, font=font, fill=(255, 255, 255, 225), stroke_width=1, stroke_fill=(0, 0, 0, 140))
    return whole
