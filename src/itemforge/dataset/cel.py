"""Cel shading: an icon as comics and many games draw it, in few flat colours with dark outlines.

No artist drew these: the filter makes, of a set in another look, a style of its own to learn, in which each thing is where it was.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from itemforge.dataset.colours import Pixels, cielab
from itemforge.errors import InvalidInput

#: Icons are drawn over at this many times their size, and made smaller then.
SCALE = 4
_OUTLINE = (27, 27, 31)
#: Flat colours of an icon, and by how much two must differ (CIELAB) for a line to be drawn where they meet.
_COLOURS, _CONTRAST = 7, 22.0
#: In pixels of the picture: the outline outside the icon and inside it, and half of a line within.
_OUTSIDE, _INSIDE, _HALF_LINE = 2.2, 0.8, 0.6

_Mask = NDArray[np.bool_]


def cel_shaded(icon: Image.Image) -> Pixels:
    """An RGBA icon of (SCALE * side)² pixels, with room for its outline, on white: uint8, side x side x 3.

    Raises:
        InvalidInput: no pixel of it is half opaque.
    """
    there = np.asarray(icon.getchannel("A")) > 127
    if not there.any():
        raise InvalidInput("an icon is too faint for an outline")
    ground = Image.new("RGBA", icon.size, "white")
    ground.alpha_composite(icon)
    flat = _flat(np.asarray(ground.convert("RGB")), there)
    drawn = np.where(there[..., None], flat, 255).astype(np.uint8)
    core = ndimage.binary_erosion(there, iterations=round(SCALE * _INSIDE))
    outline = _near(there, _OUTSIDE) & ~core
    lines = _near(_borders(flat) & ndimage.binary_erosion(there, iterations=3), _HALF_LINE) & there
    drawn[outline | lines] = _OUTLINE
    side = icon.width // SCALE
    return np.asarray(Image.fromarray(drawn).resize((side, side), Image.Resampling.BOX))


def _flat(pixels: Pixels, there: _Mask) -> Pixels:
    """In few colours, without shine and specks."""
    smooth = _median(pixels, 2 * SCALE + 1)
    # The palette is of the icon alone: white ground would take one of its colours.
    own = Image.fromarray(smooth[there][None])
    palette = own.quantize(_COLOURS, method=Image.Quantize.MEDIANCUT, kmeans=3)
    few = Image.fromarray(smooth).quantize(palette=palette, dither=Image.Dither.NONE)
    return _median(np.asarray(few.convert("RGB")), 2 * SCALE - 1)


def _median(pixels: Pixels, size: int) -> Pixels:
    return np.stack([ndimage.median_filter(pixels[..., n], size) for n in range(3)], axis=-1)


def _borders(flat: Pixels) -> _Mask:
    """Where a pixel differs much from the one above it or left of it."""
    lab = cielab(flat)
    steps = [np.linalg.norm(lab - np.roll(lab, 1, axis), axis=-1) for axis in (0, 1)]
    return np.asarray(np.maximum(*steps) > _CONTRAST)


def _near(mask: _Mask, pixels: float) -> _Mask:
    if not mask.any():
        return mask
    return np.asarray(ndimage.distance_transform_edt(~mask) <= pixels * SCALE)
