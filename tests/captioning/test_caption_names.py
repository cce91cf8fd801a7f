"""What a wiki's file names say."""

import pytest
from captioning_pictures import picture
from hypothesis import given
from hypothesis import strategies as st

from itemforge.dataset.captioning.by_name import NameCaptioner, plain_name
from itemforge.dataset.captioning.costs import Price, estimate
from itemforge.dataset.captioning.face import Captioned, Failed, Reason


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("File:Iron_Sword_Icon_v2.png", "iron sword"),
        ("Iron Sword", "iron sword"),
        ("IronSword2.png", "iron sword"),
        ("GOLD COIN.PNG", "gold coin"),
        ("Sword-1.png", "sword"),
        ("Sword v 2", "sword"),
        ("Sword_(Icon).webp.png", "sword"),
        ("Potion of Healing (Large) 64px.png", "potion of healing"),
        ("Icon_Apple_128x128.png", "apple"),
        ("potion_of_healing-icon_03", "potion of healing"),
        ("Sword II.png", "sword"),
        ("HP_Potion_Lv3", "hp potion"),
        ("%C3%89clair.png", "éclair"),
        ("(Key).png", "key"),
        ("T_Axe", "axe"),
        ("Old Boot.png", "old boot"),
        ("Mother-of-pearl_Ring.png", "mother-of-pearl ring"),
        ("Map of Old.png", "map of old"),
        ("Icon.png", ""),
        ("Item 12", ""),
        ("007.png", ""),
        ("", ""),
        ("File:.png", ""),
    ],
)
def test_names(name: str, expected: str) -> None:
    assert plain_name(name) == expected
    answer = NameCaptioner().caption(picture(1, name))
    if expected:
        assert isinstance(answer, Captioned)
        assert answer.fields.object == expected
    else:
        assert isinstance(answer, Failed)
        assert (answer.reason, answer.retryable) == (Reason.NO_NAME, False)


@given(st.text(max_size=300))
def test_any_name_has_an_answer(name: str) -> None:
    answer = NameCaptioner().caption(picture(1, name))
    assert isinstance(answer, (Captioned, Failed))
    assert plain_name(plain_name(name)) == plain_name(plain_name(plain_name(name)))


@pytest.mark.parametrize("name", ["Let me think.png", "I'm sorry.png", "word " * 40])
def test_a_sentence_is_no_crash(name: str) -> None:
    assert isinstance(NameCaptioner().caption(picture(1, name)), (Captioned, Failed))


def test_a_picture_under_another_name_is_another_question() -> None:
    keys = {NameCaptioner().key(picture(1, name)) for name in ("key", "ring", "key")}
    assert len(keys) == 2


def test_what_it_will_cost() -> None:
    cost = estimate(1000, "gemini-3.5-flash-lite")
    assert (cost.tokens_in, cost.tokens_out) == (600_000, 110_000)
    assert cost.dollars == pytest.approx(0.6 * 0.30 + 0.11 * 2.50)
    assert "2026-10-07" in str(cost)
    assert "ai.google.dev" in str(cost)
    half = estimate(1000, "gemini-3.5-flash-lite", batch=True).dollars
    assert half == pytest.approx(cost.dollars / 2 if cost.dollars else 0)


def test_other_prices_and_none() -> None:
    mine = {"m": Price(1.0, 2.0, "2026-11-01", "an offer")}
    assert estimate(1_000_000, "m", prices=mine, tokens_in=1, tokens_out=1).dollars == pytest.approx(3.0)
    unknown = estimate(10, "m")
    assert unknown.dollars is None
    assert "price unknown" in str(unknown)
