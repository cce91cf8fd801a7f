"""What the starter is asked, and how answers are judged."""

from pathlib import Path

import numpy as np
import pytest

from itemforge.dataset.concepts import Concept
from itemforge.dataset.icons import Told, read_told
from itemforge.dataset.phrases import captions
from itemforge.training.measures import signatures
from itemforge.training.starter_eval import (
    Figure,
    Icons,
    Question,
    colour_figure,
    ground_figure,
    questions,
    read_icons,
    real_icons,
    retrieval,
    table,
)
from itemforge.training.style_eval import style_figures


def _told(count: int) -> list[Told]:
    things = [Concept(f"1f{n}", f"thing {n}", "objects", (f"syn{n}",), (f"held{n}",)) for n in range(count)]
    return [Told(thing, ("red",), ("blue", "green")) for thing in things]


def test_what_is_asked_is_always_the_same_and_was_never_a_caption() -> None:
    told = _told(40)
    asked = questions(told)
    assert asked == questions(told)
    trained = {
        text
        for each in told
        for text in captions(each.concept.label, each.concept.synonyms, "look", 200, colour=None, number=1)
    }
    for name in ("phrasings", "synonyms", "colours"):
        assert asked[name], name
        assert not {question.prompt for question in asked[name]} & {
            text.split(", look")[0] for text in trained
        }
    assert all("held" in question.prompt for question in asked["synonyms"])
    assert all(question.colour in ("blue", "green") for question in asked["colours"])


@pytest.fixture
def known() -> Icons:
    dice = np.random.default_rng(5)
    shapes = [
        np.kron(dice.integers(0, 256, (8, 8, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8))
        for _ in range(9)
    ]
    near = [np.clip(shape.astype(int) + 6, 0, 255).astype(np.uint8) for shape in shapes]
    pixels = shapes + near
    names = [str(n) for n in range(9)]
    return Icons(pixels, signatures(pixels), names * 2, ["a"] * 9 + ["b"] * 9)


def test_right_pictures_are_right_and_shuffled_ones_are_not(known: Icons) -> None:
    asked = [Question("x", str(n)) for n in range(9)]
    figure = retrieval("x", asked, known.pixels[:9], known, 0.5)
    assert (figure.value, figure.ceiling) == (1.0, 1.0)
    assert figure.floor is not None and figure.floor < 0.9
    assert figure.chance == pytest.approx(5 / 9)
    assert real_icons(["1", "2"], known) == 1.0


def test_the_strongest_hue_is_what_counts() -> None:
    red = np.full((8, 8, 3), (220, 30, 30), dtype=np.uint8)
    blue = np.full((8, 8, 3), (30, 60, 220), dtype=np.uint8)
    asked = [Question("a", "1", "red"), Question("b", "2", "blue"), Question("c", "3", "blue")]
    figure = colour_figure(asked, [red, blue, red])
    assert figure.value == pytest.approx(2 / 3) and figure.chance == 1 / 8


def test_ground_and_style_are_measured() -> None:
    white = np.full((32, 32, 3), 255, dtype=np.uint8)
    outlined = white.copy()
    outlined[8:24, 8:24] = 10
    coloured = white.copy()
    coloured[8:24, 8:24] = (200, 120, 40)
    coloured[8:10, 8:24] = 10
    grey = np.full((32, 32, 3), 200, dtype=np.uint8)
    assert ground_figure([white, outlined, coloured, grey]).value == 0.75
    icons = Icons([coloured], signatures([coloured]), ["1"], ["a"])
    *nearer, outline = style_figures([coloured], [outlined], icons, [outlined])
    assert [each.value for each in nearer] == [1.0, 1.0] and outline.value == pytest.approx(8.0)
    assert [each.ceiling for each in nearer] == [0.0, 0.0], "one picture alone has no others"


def test_the_icons_are_those_that_came_not_the_copies(icons: Path) -> None:
    read = read_icons(icons / "base")
    assert len(read.pixels) == len(read.concepts) == 6
    assert set(read.sets) == {"fluent-3d", "fluent-flat", "noto"}
    assert {each.concept.code for each in read_told(icons)} == set(read.concepts)


def test_the_table_shows_shares_and_times() -> None:
    text = table([Figure("a", 3, 0.5, 0.6, chance=0.01), Figure("b", 3, 2.5, 2.0)])
    assert "| a | 3 | 50.0% | 60.0% | 1.0% |  |  |" in text and "| b | 3 | 2.5× | 2.0× |" in text
