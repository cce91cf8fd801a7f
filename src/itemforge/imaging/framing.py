"""Where a cut-out item stands in its picture: trimmed, scaled, padded, in the middle."""

import numpy as np

from itemforge.contract import Output
from itemforge.errors import InvalidInput
from itemforge.imaging.scaling import Pixels, resize

#: Alpha up to this is nothing that one sees; a picture is not made smaller for its sake.
FAINT = 8


def content_box(alpha: Pixels, faint: int = FAINT) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of what has more than `faint` alpha; None if nothing has."""
    seen = alpha > faint
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    if not rows.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def centred(pixels: Pixels, width: int, height: int) -> Pixels:
    """RGBA pixels in the middle of a transparent canvas that is at least as large."""
    canvas = np.zeros((height, width, 4), np.uint8)
    canvas[..., :3] = 255
    x, y = (width - pixels.shape[1]) // 2, (height - pixels.shape[0]) // 2
    canvas[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
    return canvas


def fitted(pixels: Pixels, side: int) -> Pixels:
    """RGBA pixels scaled so that the longer side has `side` pixels."""
    height, width = pixels.shape[:2]
    scale = side / max(width, height)
    return resize(pixels, max(1, round(width * scale)), max(1, round(height * scale)))


def framed(pixels: Pixels, output: Output) -> Pixels:
    """RGBA pixels as `output` wants them to stand.

    Raises:
        InvalidInput: it shall be trimmed, and nothing of it can be seen.
    """
    if output.trim:
        box = content_box(pixels[..., 3])
        if box is None:
            raise InvalidInput("the picture is empty: there is no item to trim it to")
        left, top, right, bottom = box
        pixels = pixels[top:bottom, left:right]
    if output.size is not None:
        return centred(fitted(pixels, output.size - 2 * output.pad), output.size, output.size)
    height, width = pixels.shape[:2]
    return centred(pixels, width + 2 * output.pad, height + 2 * output.pad)
