"""Drawn items for the tests of processing: shapes with smooth edges, and their files."""

import io
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

RED = (200, 30, 40)


def item(
    size: int = 200, colour: tuple[int, int, int] = RED, hidden: tuple[int, int, int] = (0, 0, 0)
) -> Image.Image:
    """A ring of one colour with smooth edges; `hidden` lies under what is transparent."""
    big = Image.new("L", (4 * size, 4 * size), 0)
    pen = ImageDraw.Draw(big)
    pen.ellipse((0.6 * size, 0.4 * size, 3.2 * size, 3.6 * size), fill=255)
    pen.ellipse((1.5 * size, 1.4 * size, 2.3 * size, 2.6 * size), fill=0)
    alpha = big.resize((size, size), Image.Resampling.BOX)
    pixels = np.empty((size, size, 4), np.uint8)
    pixels[..., :3] = np.where(np.asarray(alpha)[..., None] > 0, colour, hidden)
    pixels[..., 3] = np.asarray(alpha)
    return Image.fromarray(pixels)


def thing(seed: int, size: int = 200, shift: int = 0) -> Image.Image:
    """An item of several shapes and colours, another for each seed; `shift` turns its hues."""
    draw = np.random.default_rng(seed)
    image = Image.new("RGBA", (size * 2, size * 2), (0, 0, 0, 0))
    pen = ImageDraw.Draw(image)
    for n in range(7):
        x, y = draw.integers(size // 4, size * 5 // 4, 2)
        width, height = draw.integers(size // 5, size * 3 // 4, 2)
        hue, light = int(draw.integers(360)), int(draw.integers(25, 70))
        box = (int(x), int(y), int(min(x + width, 2 * size - 8)), int(min(y + height, 2 * size - 8)))
        shape = (pen.ellipse, pen.rectangle)[n % 2]
        shape(box, fill=f"hsl({(hue + shift) % 360},80%,{light}%)")  # type: ignore[operator]
    return image.resize((size, size), Image.Resampling.BOX)


def on(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """An opaque picture of it on a ground."""
    ground = Image.new("RGBA", image.size, (*colour, 255))
    ground.alpha_composite(image)
    return ground.convert("RGB")


def data(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def apart(a: Image.Image, b: Image.Image) -> float:
    """Mean levels between two pictures."""
    return float(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).mean())
