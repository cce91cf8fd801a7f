"""What can be measured of icons without another model: nearness, ground, colour, outline.

Pictures are uint8 (N, height, width, 3).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from itemforge.dataset.colours import Pixels, cielab

Floats = NDArray[np.float32]

#: Pictures are compared at this side.
SIDE = 32
#: A pixel darker than this (lightness of 100) is outline if it is grey, too.
_DARK, _GREY = 35.0, 20.0
#: A pixel whose darkest channel is below this is drawn on.
INK = 245
#: A border of this mean value is white.
WHITE_BORDER = 250.0
#: A part with less than this share of what is drawn is a speck.
SPECK = 0.01


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
    drawn = drawn_on(pictures)
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    dark = (lab[..., 0] < _DARK) & (chroma < _GREY) & drawn
    return float(dark.sum() / max(1, drawn.sum()))


def drawn_on(pictures: Pixels) -> NDArray[np.bool_]:
    """Where a picture is not its white ground: (N, height, width)."""
    return np.asarray(pictures.min(-1) < INK)


def icon_checks(pictures: Pixels) -> dict[str, float]:
    """What an item picture has to be, as shares of the pictures or of their pixels, 0 to 1.

    `white border`, `nothing cut off` and `one piece` are shares of pictures, `filled` is the mean share of
    pixels that are drawn on, `outline` that of dark grey ones in them, `colour` their mean chroma by 100.
    """
    ink = drawn_on(pictures)
    edges = np.concatenate([ink[:, 0], ink[:, -1], ink[:, :, 0], ink[:, :, -1]], axis=1)
    lab = cielab(pictures)
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    return {
        "white border": float((border_whiteness(pictures) >= WHITE_BORDER).mean()),
        "nothing cut off": float((~edges.any(1)).mean()),
        "one piece": float(np.mean([_pieces(each) == 1 for each in ink])),
        "filled": float(ink.mean()),
        "outline": outline_share(pictures),
        "colour": float(chroma[ink].mean() / 100) if ink.any() else 0.0,
    }


def _pieces(ink: NDArray[np.bool_]) -> int:
    """Connected parts that are no specks."""
    labels, count = ndimage.label(ink, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return int((sizes >= max(1.0, SPECK * ink.sum())).sum())


def mmd2(ours: Floats, theirs: Floats, bandwidth: float) -> float:
    """Squared maximum mean discrepancy of two samples with a Gaussian kernel, unbiased, so 0 on average if they are alike.

    Gretton et al. 2012, equation 3; used for pictures by Jayasumana et al. 2024. One alone is taken
    for a sample of ones that are all alike.
    """

    def kernel(a: Floats, b: Floats) -> Floats:
        return np.exp(-(distances(a, b) ** 2) / (2 * bandwidth**2))  # type: ignore[no-any-return]

    def among(a: Floats) -> float:
        if len(a) < 2:
            return 1.0
        whole = kernel(a, a)
        return float((whole.sum() - np.trace(whole)) / (len(a) * (len(a) - 1)))

    return among(ours) + among(theirs) - 2 * float(kernel(ours, theirs).mean())
