"""Figures of pictures whose truth is known."""

from collections.abc import Sequence

import numpy as np
import pytest

from itemforge.training.embedders import PlainEmbedder
from itemforge.training.judge import Judge, between
from itemforge.training.measures import Floats, Pixels, icon_checks, mmd2
from itemforge.training.suite import Asked

SIDE = 32


def _disc(colour: tuple[int, int, int], outline: int, radius: int, at: tuple[int, int] = (16, 16)) -> Pixels:
    picture = np.full((SIDE, SIDE, 3), 255, dtype=np.uint8)
    y, x = np.mgrid[:SIDE, :SIDE]
    far = np.hypot(y - at[0], x - at[1])
    picture[far <= radius] = colour
    picture[(far <= radius) & (far > radius - outline)] = 20
    return picture


def _set(outline: int, seed: int, count: int = 12) -> list[Pixels]:
    dice = np.random.default_rng(seed)
    return [
        _disc(tuple(dice.integers(80, 230, 3)), outline, int(dice.integers(8, 13)))  # type: ignore[arg-type]
        for _ in range(count)
    ]


TRAIN, HELD_OUT = _set(3, 1), _set(3, 2, 6)
CAPTIONS = [Asked(f"disc {n}", f"disc {n}", n, picture=n) for n in range(len(HELD_OUT))]


@pytest.fixture
def judge() -> Judge:
    return Judge(PlainEmbedder(), TRAIN, HELD_OUT)


def test_pictures_of_the_style_are_nearer_than_others(judge: Judge) -> None:
    alike, other = judge.figures(CAPTIONS, _set(3, 3, 6)), judge.figures(CAPTIONS, _set(0, 3, 6))
    assert alike.style < other.style / 3
    assert between(alike.style, other.style, judge.ceiling) == pytest.approx(1, abs=0.35)


def test_a_picture_of_its_caption_is_nearer_than_the_other_held_out_ones(judge: Judge) -> None:
    right = judge.figures(CAPTIONS, HELD_OUT).prompt
    wrong = judge.figures(CAPTIONS, HELD_OUT[1:] + HELD_OUT[:1]).prompt
    assert right == 1.0 and wrong is not None and wrong < 0.7
    assert judge.prompt_ceiling([each.prompt for each in CAPTIONS], HELD_OUT) == 1.0


def test_copies_of_what_was_trained_on_are_told_from_new_pictures(judge: Judge) -> None:
    copies = judge.figures(CAPTIONS, TRAIN[:6])
    new = [judge.figures(CAPTIONS, _set(3, seed, 6)).copied or 0.0 for seed in range(4, 12)]
    assert copies.copied is not None and copies.copied > 0.5
    assert judge.figures(CAPTIONS, HELD_OUT).copied == 0.0
    assert 0.3 < float(np.mean(new)) < 0.7
    mirrored = np.ascontiguousarray(TRAIN[4][:, ::-1])
    found = judge.nearest([HELD_OUT[0], mirrored], 1)[0]
    assert (found.drawn, found.train, found.apart) == (1, 4, pytest.approx(0, abs=2))


def test_without_held_out_pictures_only_the_style_is_measured() -> None:
    judge = Judge(PlainEmbedder(), TRAIN, [])
    figures = judge.figures(CAPTIONS, TRAIN[:6])
    assert figures.prompt is None and figures.copied is None
    assert judge.prompt_ceiling([], []) is None


class Words:
    """Reads: a text is its picture's first pixel."""

    name = "words"

    def pictures(self, pictures: Sequence[Pixels]) -> Floats:
        return np.stack([np.eye(4, dtype=np.float32)[each[0, 0, 0] % 4] for each in pictures])

    def texts(self, texts: Sequence[str]) -> Floats:
        return np.stack([np.eye(4, dtype=np.float32)[int(text)] for text in texts])


def test_an_embedder_that_reads_is_asked_for_words_and_pictures() -> None:
    pictures = [np.full((SIDE, SIDE, 3), n, dtype=np.uint8) for n in range(4)]
    asked = [Asked(str(n), "", n) for n in (0, 1, 3)]
    judge = Judge(Words(), pictures, pictures[:2])
    assert judge.figures(asked, pictures[:3]).prompt == pytest.approx(2 / 3)
    assert judge.prompt_ceiling(["0", "0"], pictures[:2]) == pytest.approx(0.5)


def test_icons_are_checked() -> None:
    good = _disc((200, 60, 60), 2, 10)
    cut = _disc((200, 60, 60), 2, 10, at=(4, 16))
    two = np.minimum(_disc((60, 60, 200), 0, 5, at=(8, 8)), _disc((60, 60, 200), 0, 5, at=(24, 24)))
    speck = good.copy()
    speck[2, 2] = 0
    checks = icon_checks(np.stack([good, cut, two, speck]))
    assert checks["white border"] == 0.75 and checks["nothing cut off"] == 0.75
    assert checks["one piece"] == 0.75  # a speck is no piece
    assert 0.1 < checks["filled"] < 0.4 and 0.1 < checks["outline"] < 0.5 and checks["colour"] > 0.3
    assert icon_checks(np.full((1, 8, 8, 3), 255, dtype=np.uint8))["colour"] == 0.0


def test_the_discrepancy_is_nothing_for_samples_of_one_kind() -> None:
    dice = np.random.default_rng(0)
    a, b, far = (dice.normal(shift, 1, (200, 3)).astype(np.float32) for shift in (0, 0, 2))
    assert abs(mmd2(a, b, 1.7)) < 0.01 and mmd2(a, far, 1.7) > 0.2


def test_between_has_ends() -> None:
    assert between(0.3, 0.2, 0.4) == pytest.approx(0.5)
    assert between(None, 0.2, 0.4) is None and between(0.3, 0.2, 0.2) is None
