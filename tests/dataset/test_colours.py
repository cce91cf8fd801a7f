"""Colour words: seen in a picture, and painted into one."""

import colorsys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itemforge.dataset.colours import HUES, dominant_colour, other_colours, recolour


def _disc(rgb: tuple[float, float, float], second: tuple[float, float, float] | None = None) -> np.ndarray:
    """A disc in one colour on white, its lower tenth in a second one."""
    y, x = np.mgrid[-32:32, -32:32]
    pixels = np.full((64, 64, 3), 255, dtype=np.uint8)
    inside = x**2 + y**2 < 24**2
    pixels[inside] = [round(255 * channel) for channel in rgb]
    if second is not None:
        pixels[inside & (y > 15)] = [round(255 * channel) for channel in second]
    return pixels


@pytest.mark.parametrize("name", HUES)
def test_each_hue_has_its_name_in_light_and_in_shade(name: str) -> None:
    for saturation, value in ((1.0, 1.0), (0.5, 0.9), (0.9, 0.4)):
        rgb = colorsys.hsv_to_rgb(HUES[name] / 360, saturation, value)
        assert dominant_colour(_disc(rgb)) == name


def test_grey_and_many_coloured_things_have_no_colour() -> None:
    assert dominant_colour(_disc((0.5, 0.5, 0.5))) is None
    assert dominant_colour(np.full((8, 8, 3), 255, dtype=np.uint8)) is None
    half = _disc((1, 0, 0))
    half[:, 32:] = _disc((0, 0, 1))[:, 32:]
    assert dominant_colour(half) is None


@given(st.sampled_from(sorted(HUES)), st.sampled_from(sorted(HUES)))
def test_a_turned_picture_has_the_new_colour_and_keeps_its_light_and_its_ground(old: str, new: str) -> None:
    before = _disc(colorsys.hsv_to_rgb(HUES[old] / 360, 0.8, 0.7))
    after = recolour(before, old, new)
    assert dominant_colour(after) == new
    assert np.array_equal(after.max(-1), before.max(-1)), "value stays"
    assert np.array_equal(after == 255, before == 255)


def test_only_the_own_colour_turns() -> None:
    green = (0.1, 0.7, 0.2)
    before = _disc((0.9, 0.1, 0.1), green)
    after = recolour(before, "red", "blue")
    assert np.array_equal(after[48:], before[48:]), "the leaf stays green"
    assert dominant_colour(after) == "blue"


def test_other_colours_are_others_each_once() -> None:
    for number in range(50):
        found = other_colours("red", 3, ["blue", "pink"], number)
        assert len(set(found)) == 3 and not {"red", "blue", "pink"} & set(found)
    assert other_colours("red", 9, [], 0) != [] and len(other_colours("red", 9, [], 0)) == len(HUES) - 1
    assert other_colours(None, 2, list(HUES), 1) == []
