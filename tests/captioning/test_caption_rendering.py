"""Captions as code writes them: counted as CLIP counts, and whole whatever the fields say."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import CLIPTokenizer

from itemforge.dataset.captioning.fields import CaptionFields, clean
from itemforge.dataset.captioning.rendering import TAIL, TSUKI, Look, describe, render
from itemforge.dataset.captioning.tokens import MAX_TOKENS, count_tokens, read_bpe, token_ids
from itemforge.errors import InvalidInput

SWORD = CaptionFields(
    object="curved sword",
    parts=["leather grip", "blue gem"],
    colours=["grey", "red"],
    material="iron",
    view="side",
    background="white",
)
_WORDS = st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=40)
_PLAIN = st.text(alphabet="abcdefghijklmnopqrstuvwxyz -'", min_size=1, max_size=60)


@st.composite
def anything(draw: st.DrawFn) -> CaptionFields:
    texts = st.one_of(_PLAIN, _WORDS)
    try:
        return CaptionFields(
            object=draw(texts),
            parts=draw(st.lists(texts, max_size=6)),
            colours=draw(st.lists(texts, max_size=6)),
            material=draw(texts),
            view=draw(texts),
            background=draw(texts),
        )
    except ValidationError:
        return SWORD  # no name, or a sentence: never rendered


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("a photo of an astronaut riding a horse", [320, 1125, 539, 550, 18376, 6765, 320, 4558]),
        ("hello world", [3306, 1002]),
        ("", []),
    ],
)
def test_known_tokens(text: str, ids: list[int]) -> None:
    assert token_ids(text) == ids
    assert count_tokens(text) == len(ids)


def test_the_whole_vocabulary() -> None:
    vocab, merges = read_bpe()
    assert (len(vocab), len(merges)) == (49408, 48894)
    assert (vocab["<|startoftext|>"], vocab["<|endoftext|>"], vocab["!"]) == (49406, 49407, 0)


@pytest.fixture(scope="module")
def reference() -> CLIPTokenizer:
    vocab, merges = read_bpe()
    return CLIPTokenizer(vocab=vocab, merges=merges)


def test_as_transformers_counts(reference: CLIPTokenizer) -> None:
    @settings(max_examples=300, deadline=None)
    @given(st.one_of(_PLAIN, _WORDS))
    def same(text: str) -> None:
        if "<|" not in text:
            assert token_ids(text) == reference(text, add_special_tokens=False)["input_ids"]

    same()


def test_the_caption_of_the_original_style() -> None:
    made = render(SWORD)
    assert made.text == (
        "tsuki_advtr, grey and red curved sword with leather grip and blue gem, made of iron, side view, white background, "
        "thick outlines, pastel color, cartoon style, hand-drawn, 2D icon, game item, 2D game style, minimalist"
    )
    assert made.tokens == count_tokens(made.text) <= MAX_TOKENS
    assert made.dropped == ()


@pytest.mark.parametrize(
    "background",
    ["white", "none", "Plain white.", "white background", "transparent", "", "no background", "off-white"],
)
def test_a_white_background_is_said_once(background: str) -> None:
    fields = CaptionFields(object="key on a white background", background=background)
    assert describe(fields) == "key"
    assert render(fields).text.count("white background") == 1


def test_another_background_is_said() -> None:
    assert describe(CaptionFields(object="key", background="dark green")) == "key, dark green background"


def test_nothing_is_said_twice() -> None:
    fields = CaptionFields(
        object="red iron key", colours=["red", "gold"], material="iron", parts=["key", "gold ring"]
    )
    assert describe(fields) == "gold red iron key with gold ring"


def test_the_least_important_goes_first() -> None:
    long = CaptionFields(
        object="curved sword",
        parts=["long leather grip", "blue gem", "engraved silver blade", "tiny golden bells"],
        colours=["grey", "red", "gold"],
        material="dark forged iron",
        view="three-quarter view",
        background="green forest with tall old trees",
    )
    dropped = [render(long, limit=limit).dropped for limit in range(40, MAX_TOKENS + 1)]
    order = (
        "background",
        "view",
        "part tiny golden bells",
        "part engraved silver blade",
        "part blue gem",
        "part long leather grip",
        "material",
        "colour gold",
        "colour red",
        "colour grey",
        "word sword",
    )
    for each in dropped:
        gone = [what for what in each if not what.startswith("tail") and what != "object"]
        assert tuple(gone) == order[: len(gone)]
    assert len(dropped[0]) > len(dropped[20]) > 0


def test_words_stay_whole_and_no_name_ends_loosely() -> None:
    fields = CaptionFields(object="sword of the fallen king of the northern mountains")
    for limit in range(36, 50):
        made = render(fields, limit=limit)
        description = made.text.removeprefix("tsuki_advtr, ").removesuffix(TAIL).strip(", ")
        assert not description or fields.object.startswith(description)
        assert description.split()[-1:] not in (["of"], ["the"])
        assert set(description.split()) <= set(fields.object.split())


@settings(max_examples=300, deadline=None)
@given(anything())
def test_a_caption_is_well_formed_whatever_the_fields_say(fields: CaptionFields) -> None:
    made = render(fields)
    assert count_tokens(made.text) == made.tokens <= MAX_TOKENS
    assert made.text.startswith("tsuki_advtr, ")
    assert made.text.endswith(f", {TAIL}")
    assert all(piece.strip() for piece in made.text.split(","))
    assert not any(unicodedata.category(each).startswith("C") for each in made.text)
    assert made.text == " ".join(made.text.split())
    assert render(fields) == made


@settings(max_examples=150, deadline=None)
@given(
    anything(),
    st.lists(_PLAIN.map(lambda text: " ".join(text.split())).filter(bool), min_size=0, max_size=30),
    st.integers(20, MAX_TOKENS),
)
def test_other_styles(fields: CaptionFields, phrases: list[str], limit: int) -> None:
    look = Look(trigger="inkstyle", tail=", ".join(phrases))
    made = render(fields, look, limit)
    assert made.tokens <= limit
    assert made.text.startswith("inkstyle")
    alone = ", ".join(["inkstyle", *phrases])
    if count_tokens(alone) <= limit:
        assert made.text.endswith(look.tail)
    assert all(piece.strip() for piece in made.text.split(","))


def test_a_tail_that_is_too_long_gives_way_by_phrases() -> None:
    look = Look(tail=", ".join(f"phrase number {number}" for number in range(40)))
    made = render(SWORD, look)
    assert made.tokens <= MAX_TOKENS
    assert made.dropped[-1] == "tail phrase number 39"
    assert "object" in made.dropped


def test_a_trigger_that_is_too_long() -> None:
    with pytest.raises(InvalidInput, match="75"):
        render(SWORD, Look(trigger="word " * 79 + "word"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"trigger": ""},
        {"trigger": "two\nlines"},
        {"trigger": "{description}"},
        {"tail": "a,, b"},
        {"tail": "a, "},
        {"template": "{trigger}, {tail}"},
        {"template": "{description}"},
        {"template": "[trigger], {description}"},
        {"template": "{trigger}, {description}, {style}"},
    ],
)
def test_a_style_that_makes_no_caption(wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        Look(**wrong)


def test_fields_cannot_write_places() -> None:
    fields = CaptionFields(object="{trigger} sword {tail}")
    assert describe(fields) == "trigger sword tail"
    assert render(fields).text.count("tsuki_advtr") == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A Golden\tKey\x00.", "a golden key"),
        ("key, on a plain white background", "key"),
        ("(ornate:1.3) vase", "ornate:1.3 vase"),
        ("3/4 view", "three-quarter view"),
        ("zero\u200bwidth", "zero width"),
    ],
)
def test_cleaning(text: str, expected: str) -> None:
    assert clean(text) == expected


def test_lists_are_short_and_without_repeats() -> None:
    fields = CaptionFields(
        object="a Key", parts="ring, bit, ring", colours=[str(n) + " red" for n in range(20)]
    )
    assert fields.object == "key"
    assert fields.parts == ("ring", "bit")
    assert len(fields.colours) == 6
    assert CaptionFields(object="key", parts=None, material="n/a").material == ""


def test_the_look_of_the_pack_and_of_the_captions_is_the_same() -> None:
    from itemforge.pulling.recipe import read_recipe

    recipe = read_recipe("tsuki")
    assert (recipe.trigger, recipe.template) == (TSUKI.trigger, f"{{prompt}}, {TSUKI.tail}")
