"""Colour words: which one a picture has, and the same picture in another.

Hues are those of HSV, in degrees. Turning the hue keeps light, shade and saturation, so a blue apple looks
painted as the red one is.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: Colour words by the hue (degrees) that stands for them.
HUES = {
    "red": 0.0,
    "orange": 28.0,
    "yellow": 52.0,
    "green": 120.0,
    "cyan": 185.0,
    "blue": 222.0,
    "purple": 275.0,
    "pink": 325.0,
}
#: A pixel has a colour from this saturation and value on; below it is white, grey or black.
_SATURATED, _BRIGHT = 0.25, 0.18
#: A picture has a colour if this share of what is not white has one, and this share of that has the same.
_COLOURED, _OF_ONE_COLOUR = 0.4, 0.6
#: Pixels this near (degrees) to a picture's own hue turn with it.
_REACH = 50.0

Pixels = NDArray[np.uint8]
#: D65 white, CIE 1931 2°.
_WHITE = np.array([0.95047, 1.0, 1.08883], dtype=np.float32)
_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    dtype=np.float32,
)


def hue_names(degrees: NDArray[np.float32]) -> NDArray[np.int64]:
    """The place in `HUES` that each hue is nearest to, around the circle."""
    away = np.abs(_apart(degrees[..., None], np.array(list(HUES.values()), dtype=np.float32)))
    nearest: NDArray[np.int64] = away.argmin(-1)
    return nearest


def dominant_colour(pixels: Pixels) -> str | None:
    """The colour word of a picture on white (uint8, height x width x 3), or None if it has no single one."""
    shares, coloured = _hue_shares(pixels)
    best = int(shares.argmax())
    return list(HUES)[best] if coloured >= _COLOURED and shares[best] >= _OF_ONE_COLOUR else None


def strongest_hue(pixels: Pixels) -> str | None:
    """The colour word that most of a picture's coloured pixels have, however many they are; None if there are none."""
    shares, coloured = _hue_shares(pixels)
    return list(HUES)[int(shares.argmax())] if coloured else None


def _hue_shares(pixels: Pixels) -> tuple[NDArray[np.float64], float]:
    """Each colour word's share of what is coloured, and how much of what is not white is coloured."""
    hue, saturation, value = _hsv(pixels)
    drawn = pixels.min(-1) < 245
    coloured = drawn & (saturation >= _SATURATED) & (value >= _BRIGHT)
    if not coloured.any():
        return np.zeros(len(HUES)), 0.0
    weights = saturation[coloured] * value[coloured]
    shares = np.bincount(hue_names(hue[coloured]), weights, len(HUES)) / weights.sum()
    return shares, float(coloured.sum() / drawn.sum())


def recolour(pixels: Pixels, old: str, new: str) -> Pixels:
    """The picture with its pixels of about the colour `old` turned to `new`; all others stay."""
    hue, saturation, value = _hsv(pixels)
    own = (np.abs(_apart(hue, np.float32(HUES[old]))) <= _REACH) & (saturation > 0.02)
    # The hues themselves stay apart from each other by half of what they were: "blue" is narrower than "orange".
    spread = _apart(hue, np.float32(HUES[old])) / 2
    turned = _rgb(((HUES[new] + spread) % 360.0).astype(np.float32), saturation, value)
    return np.where(own[..., None], turned, pixels)


def other_colours(own: str | None, count: int, avoid: Sequence[str], number: int) -> list[str]:
    """`count` colour words that are neither `own` nor in `avoid`, chosen by `number`."""
    free = [name for name in HUES if name != own and name not in avoid]
    if not free:
        return []
    # A step that has no divisor in common with the length visits every word once.
    step = next(s for s in (3, 1) if np.gcd(s, len(free)) == 1)
    return [free[(number + n * step) % len(free)] for n in range(min(count, len(free)))]


def _apart(hue: NDArray[np.float32], of: NDArray[np.float32] | np.float32) -> NDArray[np.float32]:
    """Degrees from `of` to `hue` the short way round, from -180 to 180."""
    return (hue - of + 180.0) % 360.0 - 180.0


def _hsv(pixels: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    rgb = pixels.astype(np.float32) / 255.0
    value, least = rgb.max(-1), rgb.min(-1)
    span = value - least
    safe = np.where(span > 0, span, 1.0)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    hue = np.where(
        value == red,
        (green - blue) / safe % 6.0,
        np.where(value == green, (blue - red) / safe + 2.0, (red - green) / safe + 4.0),
    )
    saturation = np.where(value > 0, span / np.where(value > 0, value, 1.0), 0.0)
    return (hue * 60.0).astype(np.float32), saturation.astype(np.float32), value


def _rgb(hue: NDArray[np.float32], saturation: NDArray[np.float32], value: NDArray[np.float32]) -> Pixels:
    sixth = hue / 60.0
    channels = []
    for offset in (5.0, 3.0, 1.0):
        k = (offset + sixth) % 6.0
        channels.append(value - value * saturation * np.clip(np.minimum(k, 4.0 - k), 0.0, 1.0))
    return (np.stack(channels, -1) * 255.0).round().astype(np.uint8)


def cielab(pictures: Pixels) -> NDArray[np.float32]:
    """sRGB to CIELAB (IEC 61966-2-1, CIE 15): float32 of the same shape."""
    srgb = pictures.astype(np.float32) / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T / _WHITE
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1).astype(np.float32)
