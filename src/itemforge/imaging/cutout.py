"""Takes an item off its plain ground: opaque pixels in, the same with alpha out.

Ground is what has the ground's colour and hangs together with the border. At the item's edge a pixel is a mix of
both; how much of each is told by the colours beside it, and the ground's part is taken out, so no rim of its
colour stays. A soft shadow is taken as black that lets the ground through.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from itemforge.contract import Holes
from itemforge.imaging import holes
from itemforge.imaging.ground import PlainGround
from itemforge.imaging.scaling import Pixels

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

#: An enclosed patch of the ground's colour is a hole from this share of the item's area on; less is a highlight.
_HOLE = 0.004
#: A zone of more than this share of the item's area is no shadow, but an item as pale as its ground.
_SHADOW = 0.35
#: Levels from the ground that are the item for sure, pixels about it that JPEG ripples reach, and levels they have.
_STRONG, _RIPPLES, _MOST = 48.0, 16.0, 28.0
_EVERY_WAY = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Whitened:
    """`pixels` are RGBA; nothing is left of the item where all is transparent."""

    pixels: Pixels
    notes: tuple[str, ...]


def whiten(colours: Pixels, ground: PlainGround, switch: Holes = Holes.CUT) -> Whitened:
    """The item of an opaque picture without its ground."""
    below = ground.colours(*colours.shape[:2])
    apart = colours.astype(np.float32) - below
    away = np.abs(apart).max(-1)
    limits = _limits(away, ground.tolerance)
    outside, enclosed = _by_border(_near(away, limits))
    item = _without_specks(~outside, away, ground.tolerance)
    notes = [] if not _touches_border(item) else ["the item reaches the edge of the picture"]
    if switch is Holes.GUESS:
        cut = _guessed(colours, ~outside, enclosed, away, limits)
    elif switch is Holes.CUT:
        cut = _holes(enclosed, away, limits, max(16, _HOLE * int(item.sum())))
    else:
        cut = np.zeros_like(item)
    if cut.any():
        notes.append(f"{ndimage.label(cut)[1]} enclosed patches of the ground's colour taken as holes")
    item &= ~cut
    alpha = item.astype(np.float32)
    shadow = _shadow(colours, below, away, ground.tolerance, ~item, item)
    mixed, share = _edges(apart, item & ~shadow, max(2, round(max(colours.shape) / 400)), ground.tolerance)
    alpha[mixed] = share
    made = below + apart / np.maximum(alpha, 1 / 255)[..., None]
    if shadow.any():
        notes.append("a soft shadow kept")
        alpha[shadow] = _darkness(colours, below, away, ground.tolerance)[shadow]
        made[shadow] = 0
    pixels = np.concatenate([made.clip(0, 255), alpha[..., None] * 255], -1).round().astype(np.uint8)
    return Whitened(pixels, tuple(notes))


def _limits(away: Floats, tolerance: float) -> Floats:
    """How far from the ground's colour a pixel may be: more near strong edges, where JPEG leaves ripples.

    How strong those are is measured beside the edges themselves; a picture that never was a JPEG has none.
    """
    limits = np.full_like(away, tolerance)
    distance = ndimage.distance_transform_edt(away <= _STRONG)
    beside = (distance > 3) & (distance <= _RIPPLES) & (away <= _STRONG)
    if (away > _STRONG).any() and beside.any():
        fine = away - ndimage.gaussian_filter(away, 1.5, mode="nearest")
        ripples = 10 * float(np.sqrt((fine[beside] ** 2).mean()))
        limits[distance <= _RIPPLES] = min(max(tolerance, ripples), max(tolerance, _MOST))
    return limits


def _near(away: Floats, limits: Floats) -> Mask:
    # The median looks past single specks, but not past a thin line.
    quiet = ndimage.median_filter(away, 3, mode="nearest")
    near: Mask = (away <= limits) | ((quiet <= limits) & (away <= 2 * limits))
    return near


def _by_border(near: Mask) -> tuple[Mask, NDArray[np.int32]]:
    """The part that hangs together with the border, and the numbered rest."""
    labels, count = ndimage.label(near)
    touching = np.zeros(count + 1, bool)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        touching[edge] = True
    touching[0] = False
    outside = touching[labels]
    return outside, np.where(outside, 0, labels)


def _touches_border(item: Mask) -> bool:
    edge = np.concatenate([item[0], item[-1], item[:, 0], item[:, -1]])
    return bool(edge.mean() > 0.01)


def _without_specks(item: Mask, away: Floats, tolerance: float) -> Mask:
    """Small faint spots on the ground are its noise."""
    labels, count = ndimage.label(item, _EVERY_WAY)
    if not count:
        return item
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    strongest = np.zeros(count + 1, np.float32)
    np.maximum.at(strongest, labels.ravel(), away.ravel())
    speck = (sizes <= max(6, 2e-5 * item.size)) & (strongest <= 5 * tolerance)
    kept: Mask = item & ~speck[labels]
    return kept


def _holes(enclosed: NDArray[np.int32], away: Floats, limits: Floats, least: float) -> Mask:
    """Enclosed patches that may be the ground seen through the item: large, and of just its colour."""
    return np.isin(enclosed, _of_ground(enclosed, away, limits, least))


def _of_ground(enclosed: NDArray[np.int32], away: Floats, limits: Floats, least: float) -> NDArray[np.intp]:
    """Their numbers, the largest first."""
    sizes = np.bincount(enclosed.ravel())
    sizes[0] = 0
    large = np.flatnonzero(sizes >= least)
    if not large.size:
        return large
    middle = np.asarray(ndimage.median(away, enclosed, large))
    allowed = np.asarray(ndimage.median(limits, enclosed, large))
    found = large[middle <= np.maximum(2.0, 0.2 * allowed)]
    return found[np.argsort(-sizes[found], kind="stable")]


def _guessed(
    colours: Pixels, inside: Mask, enclosed: NDArray[np.int32], away: Floats, limits: Floats
) -> Mask:
    """Those of the patches that are more likely a hole than paint."""
    least = max(9, holes.LEAST * int(inside.sum()))
    patches = _of_ground(enclosed, away, limits, least)[: holes.MOST]
    if not patches.size:
        return np.zeros_like(inside)
    return np.isin(enclosed, patches[holes.likely(colours, inside, enclosed, patches)])


def _edges(apart: Floats, item: Mask, reach: int, tolerance: float) -> tuple[Mask, Floats]:
    """The pixels near the ground, and how much of each is the item.

    Of the colours within reach the one farthest from the ground is the item's own. A pixel between the two is a
    mix; a pixel off the line between them is another colour of the item.
    """
    band = ndimage.binary_dilation(~item, _EVERY_WAY, iterations=reach) & item
    rows, columns = np.nonzero(band)
    if not rows.size:
        return band, np.zeros(0, np.float32)
    here = apart[rows, columns]
    own, most = here.copy(), (here**2).sum(-1)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            at = (rows + down).clip(0, item.shape[0] - 1), (columns + right).clip(0, item.shape[1] - 1)
            there = apart[at]
            length = np.where(item[at], (there**2).sum(-1), 0)
            farther = length > most
            own[farther], most[farther] = there[farther], length[farther]
    share = ((here * own).sum(-1) / np.maximum(most, 1e-6)).clip(0, 1)
    far = np.sqrt(most)
    off = np.sqrt(((here - share[:, None] * own) ** 2).sum(-1))
    # Chroma is coarser than light in JPEG, so a mix may lie a little off the line.
    doubt = ((off - 6 - 0.12 * far) / (14 + 0.18 * far)).clip(0, 1)
    share = np.where(far < 2.5 * tolerance, 1.0, share + (1 - share) * doubt)
    return band, np.where(share > 0.97, 1.0, share).astype(np.float32)


def _shadow(colours: Pixels, below: Floats, away: Floats, tolerance: float, ground: Mask, item: Mask) -> Mask:
    """What is gently darker than the ground in all channels alike, and hangs together with it."""
    lit = colours / np.maximum(below, 1)
    alike = (np.ptp(lit, axis=-1) < 0.08) & (lit.max(-1) < 1.02) & (lit.min(-1) > 0.4) & (below.min(-1) > 60)
    gentle = ndimage.gaussian_gradient_magnitude(away, 1.0, mode="nearest") < 3.0
    # A line of noise beside an edge is no shadow; one has some breadth.
    zone = ndimage.binary_opening(item & alike & gentle, _EVERY_WAY)
    labels, count = ndimage.label(zone | ground, _EVERY_WAY)
    beside = np.zeros(count + 1, bool)
    beside[labels[ground]] = True
    found = zone & beside[labels]
    return found if found.sum() <= _SHADOW * max(1, int(item.sum())) else np.zeros_like(found)


def _darkness(colours: Pixels, below: Floats, away: Floats, tolerance: float) -> Floats:
    lit: Floats = (colours / np.maximum(below, 1)).mean(-1)
    # From nothing where the ground ends, so that its border does not show.
    begin = ((away - 0.5 * tolerance) / tolerance).clip(0, 1)
    dark: Floats = ((1 - lit).clip(0, 1) * begin).astype(np.float32)
    return dark
