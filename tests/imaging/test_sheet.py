"""A contact sheet shows every picture, and a label below each."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from itemforge.imaging.sheet import CELL, GAP, INK, PAPER, contact_sheet


def ink(sheet: Image.Image, box: tuple[int, int, int, int]) -> int:
    """Dark pixels inside a box."""
    return int((np.asarray(sheet.crop(box).convert("L")) < 120).sum())


def test_pictures_are_enlarged_by_a_whole_factor_and_labelled():
    red, blue = Image.new("RGB", (64, 64), (255, 0, 0)), Image.new("RGB", (64, 64), (0, 0, 255))
    out = BytesIO()
    blue.save(out, "PNG")

    sheet = contact_sheet([(red, "a red apple"), (out.getvalue(), "a blue fish")], columns=2)

    assert sheet.getpixel((GAP + 1, GAP + 1)) == (255, 0, 0)
    assert sheet.getpixel((GAP + CELL - 1, GAP + CELL - 1)) == (255, 0, 0)
    assert sheet.getpixel((2 * GAP + CELL + 1, GAP + 1)) == (0, 0, 255)
    assert sheet.getpixel((1, 1)) == PAPER
    for left in (GAP, 2 * GAP + CELL):
        assert ink(sheet, (left, GAP + CELL + 2, left + CELL, sheet.height)) > 50


def test_rows_are_filled_from_the_left():
    pictures = [(Image.new("RGB", (192, 192), (n * 40, 0, 0)), str(n)) for n in range(5)]
    sheet = contact_sheet(pictures, columns=3)
    step = CELL + GAP
    assert sheet.width == 3 * step + GAP
    below = next(
        y for y in range(CELL + 2 * GAP, sheet.height) if sheet.getpixel((GAP + 5, y)) == (120, 0, 0)
    )
    assert below > CELL
    assert sheet.getpixel((GAP + 2 * step + 5, below + 20)) == PAPER


def test_a_long_label_is_wrapped_and_shortened_within_its_cell():
    sheet = contact_sheet([(Image.new("RGB", (64, 64), "white"), "a very long label " * 20)], columns=1)
    assert ink(sheet, (sheet.width - GAP + 2, 0, sheet.width, sheet.height)) == 0
    plain = contact_sheet([(Image.new("RGB", (64, 64), "white"), "")], columns=1)
    assert sheet.size == plain.size
    assert INK not in [color for _, color in plain.getcolors(2**16)]


def test_a_transparent_picture_lies_on_the_paper():
    sheet = contact_sheet([(Image.new("RGBA", (64, 64), (255, 0, 0, 0)), "ghost")])
    assert sheet.getpixel((GAP + 20, GAP + 20)) == PAPER


def test_nothing_to_show_is_a_programming_error():
    with pytest.raises(ValueError, match="at least one picture"):
        contact_sheet([])
