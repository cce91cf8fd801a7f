"""Figures of pictures, against values from the standards and pictures made to have them."""

import numpy as np
import pytest

from itemforge.training.measures import (
    border_whiteness,
    cielab,
    distances,
    outline_share,
    share_among_nearest,
    signatures,
)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0.0, 0.0)),
    ],
)
def test_cielab_is_the_standards(rgb: tuple[int, int, int], lab: tuple[float, float, float]) -> None:
    assert cielab(np.array([[rgb]], dtype=np.uint8))[0, 0] == pytest.approx(lab, abs=0.05)


def test_distances_are_those_of_euclid_and_the_nearest_has_the_label() -> None:
    dice = np.random.default_rng(3)
    asked, known = dice.normal(size=(4, 9)).astype(np.float32), dice.normal(size=(5, 9)).astype(np.float32)
    apart = distances(asked, known)
    assert apart == pytest.approx(np.linalg.norm(asked[:, None] - known[None], axis=-1), abs=1e-4)
    nearest = [str(n) for n in apart.argmin(1)]
    labels = [str(n) for n in range(5)]
    assert share_among_nearest(apart, nearest, labels, nearest=1) == 1.0
    farthest = [str(n) for n in apart.argmax(1)]
    assert share_among_nearest(apart, farthest, labels, nearest=1) == 0.0
    assert share_among_nearest(apart, farthest, labels, nearest=5) == 1.0


def test_a_picture_is_nearest_to_itself_whatever_its_size() -> None:
    dice = np.random.default_rng(1)
    small = [
        np.kron(dice.integers(0, 256, (8, 8, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8)) for _ in "abc"
    ]
    large = [np.kron(each, np.ones((2, 2, 1), np.uint8)) for each in small]
    assert distances(signatures(large), signatures(small)).argmin(1).tolist() == [0, 1, 2]


def test_a_border_is_as_white_as_its_darkest_channel() -> None:
    picture = np.full((1, 8, 8, 3), 255, dtype=np.uint8)
    picture[0, 2:6, 2:6] = 0
    assert border_whiteness(picture) == pytest.approx([255.0])
    picture[0, 0, :, 2] = 0
    assert border_whiteness(picture) == pytest.approx([255 * 20 / 28])


def test_outline_is_what_is_dark_and_grey() -> None:
    picture = np.full((1, 8, 8, 3), 255, dtype=np.uint8)
    assert outline_share(picture) == 0.0
    picture[0, :4] = (200, 30, 30)
    picture[0, :2] = (20, 20, 24)
    assert outline_share(picture) == pytest.approx(0.5)
    picture[0, :2] = (0, 0, 90)
    assert outline_share(picture) == 0.0, "dark blue is a colour"
