"""What can be measured of icons without another model: nearness, ground, colour, outline.

Pictures are uint8 (N, height, width, 3).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

#: Pictures are compared at this side.
SIDE = 32
#: D65 white, CIE 1931 2°.
_WHITE = np.array([0.95047, 1.0, 1.08883], dtype=np.float32)
_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    dtype=np.float32,
)
#: A pixel darker than this (lightness of 100) is outline if it is grey, too.
_DARK, _GREY = 35.0, 20.0


def cielab(pictures: Pixels) -> Floats:
    """sRGB to CIELAB (IEC 61966-2-1, CIE 15): float32 of the same shape."""
    srgb = pictures.astype(np.float32) / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T / _WHITE
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1).astype(np.float32)


def signatures(pictures: Sequence[Pixels]) -> Floats:
    """Pictures as they are compared: CIELAB at 32x32, one line each, (N, 3072)."""
    small = [
        np.asarray(Image.fromarray(each).resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.uint8)
        for each in pictures
    ]
    return cielab(np.stack(small)).reshape(len(small), -1)


def distances(asked: Floats, known: Floats) -> Floats:
    """L2 distance of each to each: (N, M)."""
    squares = (asked**2).sum(1)[:, None] + (known**2).sum(1)[None] - 2 * asked @ known.T
    apart: Floats = np.sqrt(np.maximum(squares, 0)).astype(np.float32)
    return apart


def share_among_nearest(
    apart: Floats, wanted: Sequence[str], labels: Sequence[str], nearest: int = 5
) -> float:
    """How often one of the nearest known pictures has the wanted label."""
    order = np.argsort(apart, axis=1)[:, :nearest]
    hits = [want in {labels[n] for n in row} for want, row in zip(wanted, order, strict=True)]
    return float(np.mean(hits))


def border_whiteness(pictures: Pixels) -> Floats:
    """Mean of the darkest channel over the outermost pixels of each picture, 0 to 255."""
    least = pictures.min(-1).astype(np.float32)
    edges = [least[:, 0], least[:, -1], least[:, 1:-1, 0], least[:, 1:-1, -1]]
    means: Floats = np.concatenate(edges, axis=1).mean(1)
    return means


def outline_share(pictures: Pixels) -> float:
    """Share of dark grey pixels in all that is not white."""
    lab = cielab(pictures)
    drawn = pictures.min(-1) < 245
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    dark = (lab[..., 0] < _DARK) & (chroma < _GREY) & drawn
    return float(dark.sum() / max(1, drawn.sum()))
