"""Tells a hole in an item from white paint in it: both are the ground's colour with the item all around.

Nothing in the pixels decides it, so it is a guess, by what sets them apart in published icons whose alpha is
known: three of four patches are told rightly (`bench/cutout.py --holes` counts). A hole has the item's own
outline around it, the same that stands against the ground outside; an eye or a label lies within another
colour. What black lines enclose is mostly paint, but for handles; and so is whatever has something in it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from itemforge.imaging.scaling import Pixels

Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]

#: Less than this share of the item's area is a glint, whatever it looks like.
LEAST = 0.0015
#: So many patches are looked at, the largest ones; a picture with more is a texture.
MOST = 64
#: Brightness (0 to 1) of lines, and of what is so pale that it is the ground's neighbour.
_LINE, _PALE = 0.13, 0.66
#: Among black lines: a larger share of the item's area than this is paint, or a hole in a thin wall; and what is
#: paint in any case. A wall is thin below this share of the item's side.
_LARGE, _HUGE, _THIN = 0.017, 0.12, 0.2
#: Levels up to which a pixel belongs to a line, and how far (in 200ths of the item's side) one looks for its end.
_DARK, _BEHIND = 70, 14
#: Levels within which two colours are one.
_SAME = 40


def likely(colours: Pixels, item: Mask, enclosed: Labels, numbers: NDArray[np.intp]) -> Mask:
    """Which of the enclosed patches with these numbers are more likely holes than paint.

    `item` is all that is not the ground outside, patches included.
    """
    area = float(item.sum())
    unit = max(1.0, area**0.5 / 200)
    deep = ndimage.distance_transform_edt(item)
    rim = colours[(deep > 1.5 * unit) & (deep <= 4 * unit) & (enclosed == 0)].astype(np.float64)
    boxes = ndimage.find_objects(enclosed)
    found = []
    for number in numbers:
        window = _grown(boxes[number - 1], int(_BEHIND * unit) + 2, item.shape)
        patch, solid = enclosed[window] == number, item[window] & (enclosed[window] == 0)
        near = _Surroundings(patch, colours[window], solid, deep[window], area, unit)
        found.append(near.around_hole(rim))
    return np.array(found, bool)


@dataclass(frozen=True)
class _Surroundings:
    """A patch and what is about it; `solid` is the item without patches, `deep` pixels from the ground outside."""

    patch: Mask
    colours: Pixels
    solid: Mask
    deep: NDArray[np.float64]
    area: float
    unit: float

    def around_hole(self, rim: NDArray[np.float64]) -> bool:
        away = ndimage.distance_transform_edt(~self.patch)
        size = float(self.patch.sum()) / self.area
        beside = (away > 1.5 * self.unit) & (away <= 4 * self.unit) & self.solid
        filled = float(ndimage.binary_fill_holes(self.patch).sum()) / self.area
        if not beside.any() or not len(rim) or filled > 1.01 * size:
            return False
        colour = np.median(self.colours[beside].astype(np.float64), axis=0)
        light = float(colour.mean()) / 255
        outline = float((np.abs(rim - colour).max(-1) < _SAME).mean())
        if light <= _LINE:
            return (size < _LARGE and outline < 0.98) or (size < _HUGE and self._has_thin_wall(away))
        return outline > 0 if light <= _PALE else outline <= 0.21

    def _has_thin_wall(self, away: NDArray[np.float64]) -> bool:
        """Whether behind the line the item goes on everywhere, but not far: a handle, and no label."""
        behind = (self.colours.mean(-1) > _DARK) & ~self.patch & (away > 1.5 * self.unit)
        behind &= away <= _BEHIND * self.unit
        if not behind.any():
            return False
        line = float(np.percentile(away[behind], 3))
        behind &= away <= line + 2.5 * self.unit
        wall = float(np.median(self.deep[(away > 0) & (away <= 1.5)]))
        return float(self.solid[behind].mean()) > 0.9 and wall < _THIN * self.area**0.5


def _grown(box: tuple[slice, slice], by: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    rows, columns = (
        slice(max(0, each.start - by), min(most, each.stop + by))
        for each, most in zip(box, shape, strict=True)
    )
    return rows, columns
