"""Cel shading: an outline around what is there, lines where colours meet, flat colours between."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from itemforge.dataset.cel import SCALE, cel_shaded
from itemforge.dataset.colours import Pixels
from itemforge.errors import InvalidInput

SIDE = 32
BOX = tuple(SCALE * n for n in (8, 8, 24, 24))


def _icon(left: str, right: str) -> Image.Image:
    icon = Image.new("RGBA", (SCALE * SIDE, SCALE * SIDE))
    draw = ImageDraw.Draw(icon)
    draw.rectangle((BOX[0], BOX[1], BOX[2] - 1, BOX[3] - 1), left)
    draw.rectangle((SCALE * 16, BOX[1], BOX[2] - 1, BOX[3] - 1), right)
    return icon


def _dark(pixels: Pixels) -> Pixels:
    return (pixels.max(-1) < 90).astype(np.uint8)


def test_an_outline_lies_around_the_icon_on_white_ground() -> None:
    drawn = cel_shaded(_icon("red", "red"))
    assert (drawn.shape, drawn.dtype) == ((SIDE, SIDE, 3), np.uint8)
    dark = _dark(drawn)
    assert dark[16, 7] and dark[16, 24] and dark[7, 16] and dark[24, 16], "just outside of it"
    assert not dark[10:22, 10:22].any() and (drawn[:5] == 255).all() and (drawn[:, -5:] == 255).all()
    assert np.abs(drawn[12, 12].astype(int) - (255, 0, 0)).max() < 8


def test_a_line_lies_where_two_colours_meet_and_none_where_they_are_nearly_one() -> None:
    assert _dark(cel_shaded(_icon("red", "blue")))[11:21, 15:17].any(1).all()
    assert not _dark(cel_shaded(_icon("#ff0000", "#f40a0a")))[11:21, 11:21].any()


def test_shades_become_few_flat_colours() -> None:
    icon = _icon("red", "red")
    shade = Image.linear_gradient("L").resize(icon.size)
    shaded = Image.merge("RGBA", (shade, shade, shade, icon.getchannel("A")))
    inside = cel_shaded(shaded)[10:22, 10:22].reshape(-1, 3)
    assert len(np.unique(np.asarray(shaded.convert("RGB"))[BOX[1] : BOX[3], 64], axis=0)) > 30
    assert 2 <= len(np.unique(inside // 8, axis=0)) <= 14, "seven, and where two meet in one pixel"


def test_an_icon_that_is_hardly_there_is_refused() -> None:
    with pytest.raises(InvalidInput, match="too faint"):
        cel_shaded(Image.new("RGBA", (SCALE * SIDE, SCALE * SIDE), (255, 0, 0, 20)))
