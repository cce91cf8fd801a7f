"""Cuts a picture down to its item and puts that in the middle of a square."""

from dataclasses import dataclass

from itemforge.dataset.process.recipe import Reason, Recipe, Unusable
from itemforge.imaging.framing import centred, content_box, fitted
from itemforge.imaging.scaling import Pixels


@dataclass(frozen=True)
class Framed:
    """`cutout` is size x size x RGBA; `content` is width and height of the item before, `scale` from there."""

    cutout: Pixels
    content: tuple[int, int]
    scale: float


def frame(pixels: Pixels, recipe: Recipe, drawn_at: float = 1.0) -> Framed:
    """Trimmed, scaled and padded. `drawn_at` is the scale that the pixels have already been through.

    Raises:
        Unusable: nothing can be seen, or it is too small.
    """
    box = content_box(pixels[..., 3])
    if box is None:
        raise Unusable(Reason.BLANK, "it is transparent, or of one colour")
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    content = round(width / drawn_at), round(height / drawn_at)
    if max(content) < recipe.min_side:
        raise Unusable(
            Reason.TINY, f"the item has {content[0]}x{content[1]} pixels, less than {recipe.min_side}"
        )
    scale = recipe.inner / max(width, height)
    item = fitted(pixels[top:bottom, left:right], recipe.inner)
    return Framed(centred(item, recipe.size, recipe.size), content, scale * drawn_at)
