"""Lays two looks on each other, moved and scaled as they fit best, and says how they are related."""

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from itemforge.imaging.scaling import Pixels

#: Pixels of a look's side.
LOOK = 64
#: Share of two silhouettes' union by which they differ at most.
_APART = 0.12
#: Levels by which copies differ: on the whole, and in the place where they do most.
_COPY, _COPY_PLACE = 16.0, 44.0
#: How well light and shade of variants agree.
_AGREE = 0.9
#: Of variants that differ in one place: levels that pass for the same, and the share that is.
_SAME, _MOSTLY = 28.0, 0.85

Floats = NDArray[np.float32]


def _moves() -> NDArray[np.int64]:
    """For each way to move and scale a look, which of its pixels lies below each pixel of half the size."""
    centre, half = (LOOK - 1) / 2, np.arange(LOOK // 2) * 2 + 0.5 - (LOOK - 1) / 2
    moves = []
    for scale in (1.0, 0.97, 1.03, 0.95, 1.05, 0.9, 1.1, 0.86, 1.16):
        # A crop that changes the scale by a share moves the middle by at most half of that.
        reach = 2 + round(abs(scale - 1) * LOOK / 2)
        steps = range(-reach, reach + 1)
        # The smallest first, so that none at all is.
        for down, right in sorted(product(steps, steps), key=lambda by: abs(by[0]) + abs(by[1])):
            rows = np.floor(half * scale + centre + down).astype(np.int64)
            columns = np.floor(half * scale + centre + right).astype(np.int64)
            rows[(rows < 0) | (rows >= LOOK)] = LOOK
            columns[(columns < 0) | (columns >= LOOK)] = LOOK
            moves.append(rows[:, None] * (LOOK + 1) + columns[None])
    return np.array(moves).reshape(len(moves), -1)


_MOVES = _moves()
#: How many of those that fit best are looked at closely.
_TRIES = 12
#: Every second row and column of those: enough to see which move fits.
_FEW = np.arange((LOOK // 2) ** 2).reshape(LOOK // 2, -1)[::2, ::2].ravel()


def compare(moved: Pixels, fixed: Pixels) -> bool | None:
    """Whether one look, moved and scaled as it fits best, is the other (True), or that in other colours (False)."""
    still = _averaged(fixed)[::2, ::2].reshape(-1, 4)
    padded = np.zeros((LOOK + 1, LOOK + 1, 4), np.float32)
    padded[:LOOK, :LOOK] = _averaged(moved)
    flat = padded.reshape(-1, 4)
    few = still[_FEW]
    alphas = flat[:, 3][_MOVES[:, _FEW]]
    apart = np.abs(alphas - few[:, 3]).sum(1) / np.maximum(np.maximum(alphas, few[:, 3]).sum(1), 1e-6)
    fitting = np.flatnonzero(apart <= _APART)
    if not fitting.size:
        return None
    both = (np.minimum(alphas[fitting], few[:, 3]) / 255).astype(np.float32)
    colours = flat[:, :3][_MOVES[np.ix_(fitting, _FEW)]]
    off = np.abs(colours - few[:, :3])
    wrong = (off[..., 0] ** 2 + off[..., 1] ** 2 + off[..., 2] ** 2) * both
    whole = np.sqrt(wrong.sum(1) / np.maximum(3 * both.sum(1), 1e-6))
    # By few pixels several moves fit as well; the first is none at all.
    for best in [0, *np.argsort(whole, kind="stable")[:_TRIES]]:
        if whole[best] <= _COPY and _worst_place(flat[_MOVES[fitting[best]]], still) <= _COPY_PLACE:
            return True
    # Most of it is the same, and a place is not: a gem of another colour.
    same = (views_of(off)[1] <= _SAME) * both
    if (same.sum(1) / np.maximum(both.sum(1), 1e-6)).max() >= _MOSTLY:
        return False
    pairs = zip(views_of(colours), views_of(few[:, :3]), strict=True)
    return False if max(_agreement(theirs, own, both) for theirs, own in pairs) >= _AGREE else None


def _averaged(look: Pixels) -> Floats:
    """Each pixel's average with its neighbours to the right and below, weighed by alpha."""
    weighed = look.astype(np.float32)
    weighed[..., :3] *= weighed[..., 3:] / 255
    mean: Floats = ndimage.uniform_filter(weighed, (2, 2, 1), mode="nearest", origin=(-1, -1, 0))
    mean[..., :3] /= np.maximum(mean[..., 3:], 1e-3) / 255
    return mean


def _worst_place(moved: Floats, still: Floats) -> float:
    """Levels by which the mean colours of a place of 4 x 4 pixels differ at most."""
    side = LOOK // 8
    both = np.minimum(moved[:, 3], still[:, 3])[:, None] / 255
    apart = ((moved - still)[:, :3] * both).reshape(side, 4, side, 4, 3).sum((1, 3))
    weight = both.reshape(side, 4, side, 4).sum((1, 3))
    return float(np.where(weight > 4, np.abs(apart).max(-1) / np.maximum(weight, 1e-6), 0).max())


def _agreement(views: Floats, own: Floats, both: Floats) -> float:
    """The best correlation of one view over all moves; 1 if both are plain, for then only the silhouette speaks."""
    total = np.maximum(both.sum(1), 1e-6)
    theirs = views - ((views * both).sum(1) / total)[:, None]
    mine = own - ((own * both).sum(1) / total)[:, None]
    spread = np.sqrt((theirs**2 * both).sum(1) / total), np.sqrt((mine**2 * both).sum(1) / total)
    if max(spread[0].min(), spread[1].min()) <= 4.0:
        return 1.0 if max(spread[0].max(), spread[1].max()) <= 8.0 else 0.0
    product = (theirs * mine * both).sum(1) / total / np.maximum(spread[0] * spread[1], 1e-6)
    return float(np.abs(product).max())


def views_of(colours: Floats) -> list[Floats]:
    """Light, strongest and weakest channel: a picture in another colour keeps its shades in one of them."""
    # Channel by channel: numpy is slow along so short an axis.
    red, green, blue = (colours[..., n] for n in range(3))
    light: Floats = 0.299 * red + 0.587 * green + 0.114 * blue
    return [light, np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)]
