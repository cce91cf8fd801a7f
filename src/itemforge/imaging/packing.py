"""Places rectangles on sheets by the MaxRects way (best short side fit), without turning them.

J. Jylänki, "A Thousand Ways to Pack the Bin" (2010): all largest free rectangles are kept, overlapping as
they are; each new one goes where the shorter left-over side is least. (rectpack, which does the same, has had
no release since 2021; rectangle-packer needs 20 s for 500 pictures and knows one sheet only.)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from itemforge.errors import InvalidInput

Size = tuple[int, int]


@dataclass(frozen=True)
class Packed:
    """One sheet: its size, and left and top of those rectangles that are on it, by their number."""

    size: Size
    places: dict[int, Size]


def pack(sizes: Sequence[Size], max_side: int, gap: int, power_of_two: bool) -> list[Packed]:
    """As few sheets as it takes, each as small as may be, with `gap` pixels between two rectangles.

    Raises:
        InvalidInput: one rectangle is larger than a sheet.
    """
    for width, height in sizes:
        if max(width, height) > max_side:
            raise InvalidInput(
                f"a picture needs {width}x{height} pixels, and a sheet has at most {max_side}x{max_side}; "
                "make the pictures smaller, or the sheets larger"
            )
    left = sorted(range(len(sizes)), key=lambda n: (-max(sizes[n]), -min(sizes[n]), n))
    sheets = []
    while left:
        sheet = _smallest(sizes, left, max_side, gap, power_of_two)
        sheets.append(sheet)
        left = [n for n in left if n not in sheet.places]
    return sheets


def _smallest(
    sizes: Sequence[Size], left: Sequence[int], max_side: int, gap: int, power_of_two: bool
) -> Packed:
    """The smallest sheet that takes all of `left`; or else a largest one with what fits."""
    area = sum(sizes[n][0] * sizes[n][1] for n in left)
    sheet = Packed((0, 0), {})
    for width, height in _candidates(max_side):
        largest = (width, height) == (max_side, max_side)
        if width * height < area and not largest:
            continue
        sheet = Packed((width, height), _filled(sizes, left, width, height, gap))
        if len(sheet.places) == len(left):
            break
    return sheet if power_of_two else Packed(_used(sizes, sheet), sheet.places)


def _candidates(max_side: int) -> Iterator[Size]:
    """Sheets with sides of powers of two, the smaller ones first and squares before long ones."""
    sides = [2**n for n in range(max_side.bit_length()) if 2**n <= max_side]
    if sides[-1] != max_side:
        sides.append(max_side)
    pairs = [(a, b) for a in sides for b in sides if max(a, b) <= 2 * min(a, b)]
    return iter(sorted(pairs, key=lambda pair: (pair[0] * pair[1], max(pair), -pair[0])))


def _filled(sizes: Sequence[Size], left: Sequence[int], width: int, height: int, gap: int) -> dict[int, Size]:
    # Each rectangle with the gap right of it and below; the sheet so much larger, for its edge needs none.
    free = np.array([[0, 0, width + gap, height + gap]])
    places: dict[int, Size] = {}
    for n in left:
        taken = np.array(sizes[n]) + gap
        room = free[:, 2:] - free[:, :2] - taken
        fits = np.flatnonzero((room >= 0).all(1))
        if not fits.size:
            continue
        room = np.sort(room[fits], axis=1)
        best = fits[np.lexsort((free[fits, 0], free[fits, 1], room[:, 1], room[:, 0]))[0]]
        x, y = int(free[best, 0]), int(free[best, 1])
        places[n] = (x, y)
        free = _without(free, np.array([x, y, x + taken[0], y + taken[1]]))
    return places


def _without(free: NDArray[np.int64], taken: NDArray[np.int64]) -> NDArray[np.int64]:
    """The largest free rectangles (left, top, right, bottom) beside `taken`."""
    hit = (free[:, :2] < taken[2:]).all(1) & (free[:, 2:] > taken[:2]).all(1)
    old, parts = free[~hit], []
    for side in range(4):
        part = free[hit].copy()
        part[:, (side + 2) % 4] = taken[side]  # what lies left of it, above, right of it, below
        parts.append(part[(part[:, 2:] > part[:, :2]).all(1)])
    new = np.unique(np.concatenate(parts), axis=0)
    # A part may lie within another; what was largest before still is.
    every = np.concatenate([new, old])
    low, high = new[:, None, :2] >= every[None, :, :2], new[:, None, 2:] <= every[None, :, 2:]
    within = np.asarray(np.concatenate([low, high], -1).all(-1))
    np.fill_diagonal(within, False)
    return np.concatenate([new[~within.any(1)], old])


def _used(sizes: Sequence[Size], sheet: Packed) -> Size:
    right = max(x + sizes[n][0] for n, (x, _) in sheet.places.items())
    bottom = max(y + sizes[n][1] for n, (_, y) in sheet.places.items())
    return right, bottom
