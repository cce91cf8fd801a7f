"""The whole way of one picture: bytes in, what was made of them and a record out. Pure: no file, no clock."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from itemforge.dataset.process.framing import Framed, frame
from itemforge.dataset.process.opening import Opened, open_picture
from itemforge.dataset.process.recipe import Ground, Reason, Recipe, Record, State, Unusable
from itemforge.imaging.cutout import whiten
from itemforge.imaging.framing import FAINT
from itemforge.imaging.ground import find_ground
from itemforge.imaging.scaling import Pixels, averaged, on_white, shown

#: A picture is a cut-out if this share of it can be seen through; fewer pixels are a slip.
_TRANSPARENT = 0.001
#: Grounds are looked for at this many times the recipe's size at most.
_WORK = 4
#: Pixels of the longer side of what the report shows of the source.
PREVIEW = 160


@dataclass(frozen=True)
class Made:
    """`picture` is RGB on white, `cutout` RGBA, `mask` L and white where the item is; None if set aside.

    `before` is the source, small, over light grey; None if it could not be opened.
    """

    record: Record
    picture: Image.Image | None = None
    cutout: Image.Image | None = None
    mask: Image.Image | None = None
    before: Image.Image | None = None


def process(data: bytes, recipe: Recipe) -> Made:
    """Make a picture by a recipe. Nothing that the bytes hold makes it raise.

    Raises:
        MemoryError: the machine has too little memory for it.
    """
    record = Record(sha256=hashlib.sha256(data).hexdigest(), state=State.ASIDE, bytes=len(data))
    before = None
    try:
        opened = open_picture(data, recipe)
        height, width = opened.pixels.shape[:2]
        record = replace(
            record,
            format=opened.format,
            lossless=opened.lossless,
            notes=opened.notes,
            width=width,
            height=height,
            pixels=_pixel_sha256(opened.pixels),
        )
        before = _preview(opened.pixels)
        _check_worth(opened, recipe)
        ground, framed, notes = _framed(opened.pixels, recipe)
        return _made(replace(record, ground=ground, notes=(*record.notes, *notes)), framed, before, recipe)
    except Unusable as why:
        return Made(replace(record, reason=why.reason, detail=why.detail), before=before)


def _check_worth(opened: Opened, recipe: Recipe) -> None:
    height, width = opened.pixels.shape[:2]
    if max(height, width) < recipe.min_side:
        raise Unusable(Reason.TINY, f"{width}x{height} pixels, less than {recipe.min_side}")
    if opened.pixels[..., 3].max() <= FAINT:
        raise Unusable(Reason.BLANK, "it is transparent")
    if (opened.pixels == opened.pixels[0, 0]).all():
        raise Unusable(Reason.BLANK, "it is of one colour")


def _framed(pixels: Pixels, recipe: Recipe) -> tuple[Ground, Framed, tuple[str, ...]]:
    if (pixels[..., 3] < 250).mean() >= _TRANSPARENT:
        return Ground.ALPHA, frame(pixels, recipe), ()
    longest = max(pixels.shape[:2])
    colours = on_white(averaged(pixels, -(-longest // (_WORK * recipe.size))))
    scale = max(colours.shape[:2]) / longest
    ground = find_ground(colours)
    if ground is None:
        opaque = np.concatenate([colours, np.full_like(colours[..., :1], 255)], -1)
        return Ground.BUSY, frame(opaque, recipe, scale), ()
    whitened = whiten(colours, ground)
    kind = Ground.WHITE if ground.terms[0].min() >= 245 else Ground.PLAIN
    return kind, frame(whitened.pixels, recipe, scale), whitened.notes


def _made(record: Record, framed: Framed, before: Image.Image, recipe: Recipe) -> Made:
    picture = on_white(framed.cutout)
    if picture.min() >= 252:
        raise Unusable(Reason.BLANK, "it cannot be seen on white")
    notes = list(record.notes)
    if framed.scale > 1.0:
        notes.append(f"enlarged {framed.scale:.2f} times")
    state, reason, detail = State.OK, Reason.NONE, ""
    if framed.scale > recipe.max_upscale:
        state, reason = State.FLAGGED, Reason.ENLARGED
        detail = f"{framed.scale:.2f} times, more than {recipe.max_upscale:g}"
    if record.ground is Ground.BUSY:
        state, reason, detail = State.FLAGGED, Reason.BUSY, detail and f"and enlarged {detail}"
    record = replace(
        record,
        state=state,
        reason=reason,
        detail=detail,
        notes=tuple(notes),
        content_width=framed.content[0],
        content_height=framed.content[1],
        scale=round(framed.scale, 6),
    )
    cutout = Image.fromarray(framed.cutout)
    return Made(record, Image.fromarray(picture), cutout, cutout.getchannel("A"), before)


def _pixel_sha256(pixels: Pixels) -> str:
    """Of what can be seen: what lies hidden under transparency, and how it was packed, does not count."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    # A band at a time, so that a large picture is not copied whole.
    for top in range(0, len(pixels), 256):
        digest.update(shown(pixels[top : top + 256]).tobytes())
    return digest.hexdigest()


def _preview(pixels: Pixels) -> Image.Image:
    image = Image.fromarray(pixels)
    image.thumbnail((PREVIEW, PREVIEW), Image.Resampling.BOX)
    ground = Image.new("RGBA", image.size, (216, 216, 216, 255))
    ground.alpha_composite(image)
    return ground.convert("RGB")
