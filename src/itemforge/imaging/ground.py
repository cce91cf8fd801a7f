"""Tells whether an opaque picture stands on a plain ground, and which colour that ground has everywhere.

The ground is judged by the picture's border: one colour, or a soft gradient, with a little noise. It is written
as a polynomial of the place, so that it can be told below the item, too.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from itemforge.imaging.scaling import Pixels

#: So much of the border is ground at least; the rest may be an item that touches it.
_SHARE = 0.7
#: Noise (standard deviation, in levels) beyond which a ground is a texture.
_NOISY = 6.0
#: Levels over which a soft gradient goes at most.
_RANGE = 220.0
#: Points of the border that are looked at.
_POINTS = 6000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PlainGround:
    """`terms` are of the polynomial, one column a channel; a pixel within `tolerance` levels is ground."""

    terms: Floats
    tolerance: float

    def colours(self, height: int, width: int) -> NDArray[np.float32]:
        """The ground's colour at every pixel."""
        y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
        made = np.zeros((height, width, 3), np.float32)
        for term, weights in zip(_powers(x, y, len(self.terms)), self.terms, strict=True):
            made += (term[..., None] * weights).astype(np.float32)
        return made.clip(0, 255)


def find_ground(colours: Pixels) -> PlainGround | None:
    """The plain ground of an opaque picture; None if its border is not plain."""
    x, y, border = _border(colours)
    fits = [_fit(x, y, border, count) for count in (1, 3, 6)]
    quietest = min(noise for _, noise in fits)
    # The simplest that does: what a curve gains on a plain border is noise, and goes astray in the middle.
    terms, noise = next(fit for fit in fits if fit[1] <= 1.25 * quietest + 0.5)
    if noise > _NOISY:
        return None
    ground = PlainGround(terms, float(np.clip(4 * noise + 4, 6, 24)))
    is_ground = _away(x, y, border, terms) <= ground.tolerance
    corners = [
        is_ground[(np.sign(x) == a) & (np.sign(y) == b) & (abs(x) > 0.9) & (abs(y) > 0.9)]
        for a, b in _CORNERS
    ]
    plain_corners = sum(corner.size > 0 and corner.mean() > 0.5 for corner in corners)
    model = ground.colours(9, 9)
    if is_ground.mean() < _SHARE or plain_corners < 3 or np.ptp(model, axis=(0, 1)).max() > _RANGE:
        return None
    return ground


_CORNERS = ((-1, -1), (1, -1), (-1, 1), (1, 1))


def _border(colours: Pixels) -> tuple[Floats, Floats, Floats]:
    """Places (-1 to 1) and colours of the pixels along the border."""
    height, width = colours.shape[:2]
    thick = max(1, round(0.01 * min(height, width)))
    inside = np.zeros((height, width), bool)
    inside[thick:-thick, thick:-thick] = True
    rows, columns = np.nonzero(~inside)
    every = 1 + rows.size // _POINTS
    rows, columns = rows[::every], columns[::every]
    x, y = 2 * columns / max(1, width - 1) - 1, 2 * rows / max(1, height - 1) - 1
    return x, y, colours[rows, columns].astype(np.float64)


def _powers(x: Floats, y: Floats, count: int) -> list[Floats]:
    one = np.ones(np.broadcast_shapes(x.shape, y.shape))
    return [one, one * x, one * y, one * x * x, one * y * y, x * y][:count]


def _away(x: Floats, y: Floats, border: Floats, terms: Floats) -> Floats:
    """How far each point is from the polynomial, in the channel where it is farthest."""
    model = np.stack(_powers(x, y, len(terms)), -1)
    away: Floats = np.abs(border - np.einsum("nk,kc->nc", model, terms)).max(-1)
    return away


def _fit(x: Floats, y: Floats, border: Floats, count: int) -> tuple[Floats, float]:
    """Least squares over the points that agree, found step by step; and the noise about it."""
    terms = np.zeros((count, 3))
    terms[0] = np.median(border, axis=0)
    powers = np.stack(_powers(x, y, count), -1)
    for reach in (48, 40, 32, 28, 24, 24):
        near = _away(x, y, border, terms) <= reach
        if near.sum() < 4 * count:
            return terms, np.inf
        # Sums by einsum, not BLAS: the same in every process, however many threads it has.
        a = np.einsum("ni,nj->ij", powers[near], powers[near]) + 1e-3 * np.eye(count)
        terms = np.linalg.solve(a, np.einsum("ni,nc->ic", powers[near], border[near]))
    away = _away(x, y, border, terms)
    near = away <= 24
    agree = near.mean() >= _SHARE
    return terms, float(np.sqrt((away[near] ** 2).mean())) if agree else np.inf
