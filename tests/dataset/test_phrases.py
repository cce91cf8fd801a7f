"""Captions: what is trained on, and what is kept for evaluation."""

import pytest

from itemforge.dataset.phrases import GROUND, HELD_OUT, TRAINED, captions, phrase, with_article


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("key", "a key"),
        ("orange", "an orange"),
        ("scissors", "scissors"),
        ("glass", "a glass"),
        ("bus", "a bus"),
    ],
)
def test_a_name_gets_its_article(name: str, text: str) -> None:
    assert with_article(name) == text


def test_captions_differ_and_the_first_is_the_plainest() -> None:
    made = captions("key", ["opener"], "flat icon", 12, colour=None, number=3)
    assert made[0] == f"a key, flat icon, {GROUND}"
    assert len(set(made)) == len(made) == 12
    assert made == captions("key", ["opener"], "flat icon", 12, colour=None, number=3)
    assert made != captions("key", ["opener"], "flat icon", 12, colour=None, number=4)
    assert all("key" in text or "opener" in text for text in made)


def test_few_words_give_few_captions_and_no_endless_search() -> None:
    assert len(captions("key", [], "flat icon", 500, colour=None, number=1)) < 500


def test_a_colour_stands_before_the_name_in_every_caption() -> None:
    for text in captions("apple", ["pome"], "flat icon", 6, colour="blue", number=1):
        assert "blue apple" in text or "blue pome" in text


def test_what_evaluation_asks_is_no_trained_phrasing() -> None:
    assert not set(HELD_OUT) & set(TRAINED)
    trained = {phrase(template, "key") for template in TRAINED}
    for template in HELD_OUT:
        text = phrase(template, "key")
        assert text not in trained and text.replace("a key", "key") not in trained
