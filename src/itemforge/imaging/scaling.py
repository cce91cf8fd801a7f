"""Scales pictures with alpha in linear light.

Two mistakes make fringes. Colours that lie hidden under transparency must not count, so colours are weighed by
alpha; and mixing sRGB numbers darkens edges, so the light itself is mixed. Lanczos overshoots beside edges,
which light makes worse, so nothing becomes darker or lighter than what it was made from.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Pixels = NDArray[np.uint8]
Light = NDArray[np.float32]

#: Pictures are first averaged to not less than this many times the wanted size; Lanczos does the rest.
_GAP = 3.0


def _table() -> Light:
    code = np.arange(256) / 255.0
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4).astype(np.float32)


_LINEAR = _table()


def to_srgb(light: Light) -> Pixels:
    """Light from 0 to 1 as sRGB numbers."""
    light = light.clip(0.0, 1.0)
    code = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return (code * 255.0).round().astype(np.uint8)


def resize(pixels: Pixels, width: int, height: int) -> Pixels:
    """RGBA pixels at another size. Where nothing is left of the picture it is white under its transparency."""
    if pixels.shape[:2] == (height, width):
        return shown(pixels)
    step = max(1, int(min(pixels.shape[0] / height, pixels.shape[1] / width) / _GAP))
    light = _weighed(pixels, step)
    near = _Near(light.shape[:2], height, width)
    alpha = np.clip(_lanczos(light[..., 3], width, height), *near.bounds(light[..., 3]))
    made = np.empty((height, width, 4), np.float32)
    made[..., 3] = alpha
    for n in range(3):
        weighed, colour = _lanczos(light[..., n], width, height), _straight(light[..., n], light[..., 3])
        # Only what can be seen bounds a colour; where nothing is near, there is none.
        bounded = np.clip(_straight(weighed, alpha), *near.bounds(colour, light[..., 3] > 0))
        made[..., n] = np.where(alpha > 0, bounded, 0) * alpha
    return _unweighed(made)


def averaged(pixels: Pixels, step: int) -> Pixels:
    """RGBA pixels, each the average of a square of `step` of them."""
    return pixels if step == 1 else _unweighed(_weighed(pixels, step))


def _unweighed(light: Light) -> Pixels:
    alpha = light[..., 3:]
    colours = to_srgb(_straight(light[..., :3], alpha))
    return shown(np.concatenate([colours, (alpha * 255.0).round().astype(np.uint8)], -1))


def shown(pixels: Pixels) -> Pixels:
    """The same with white under full transparency: programs that drop alpha see a white ground then."""
    return np.where(pixels[..., 3:] > 0, pixels, np.array([255, 255, 255, 0], np.uint8))


def on_white(pixels: Pixels) -> Pixels:
    """RGBA over white, as every program composites: on the sRGB numbers that the artist saw."""
    colours, alpha = pixels[..., :3].astype(np.uint32), pixels[..., 3:].astype(np.uint32)
    return ((colours * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _weighed(pixels: Pixels, step: int) -> Light:
    """Light weighed by alpha, averaged over squares of `step` pixels, a band of rows at a time."""
    height, width = pixels.shape[:2]
    columns = np.arange(0, width, step)
    widths = np.diff(columns, append=width).astype(np.float32)[:, None]
    bands = []
    for top in range(0, height, step):
        band = pixels[top : top + step]
        alpha = band[..., 3:].astype(np.float32) / 255.0
        light = np.concatenate([_LINEAR[band[..., :3]] * alpha, alpha], -1).mean(0)
        bands.append(np.add.reduceat(light, columns, axis=0) / widths)
    return np.stack(bands)


def _straight(weighed: Light, alpha: Light) -> Light:
    straight: Light = (weighed / np.maximum(alpha, 1e-6)).astype(np.float32)
    return straight


def _lanczos(channel: Light, width: int, height: int) -> Light:
    image = Image.fromarray(np.ascontiguousarray(channel))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


class _Near:
    """Which pixels each one of a scaled picture is mainly made from."""

    def __init__(self, of: tuple[int, ...], height: int, width: int) -> None:
        self._places = np.ix_(_centres(of[0], height), _centres(of[1], width))
        self._reach = [
            2 * int(np.ceil(max(1.0, a / b))) + 1 for a, b in zip(of, (height, width), strict=True)
        ]

    def bounds(self, channel: Light, counts: NDArray[np.bool_] | None = None) -> tuple[Light, Light]:
        """The least and the greatest of them; infinite where none counts."""
        low = channel if counts is None else np.where(counts, channel, np.float32(np.inf))
        high = channel if counts is None else np.where(counts, channel, np.float32(-np.inf))
        least = ndimage.minimum_filter(low, self._reach, mode="nearest")[self._places]
        return least, ndimage.maximum_filter(high, self._reach, mode="nearest")[self._places]


def _centres(of: int, to: int) -> NDArray[np.int64]:
    return ((np.arange(to) + 0.5) * of / to).astype(np.int64).clip(0, of - 1)
