"""Prompts: A1111's weights, chunks that lose nothing, hidden states as the pipeline's."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from itemforge.engine import prompt as prompts
from itemforge.engine.model import Model
from itemforge.engine.prompt import Chunk, PromptEncoder, parse_weights
from itemforge.errors import InvalidInput


@pytest.fixture
def encoder(starter: Model) -> Iterator[PromptEncoder]:
    with torch.inference_mode():
        yield PromptEncoder(starter.parts.tokenizer, starter.parts.text_encoder)


def rounded(text: str) -> list[tuple[str, float]]:
    return [(piece, round(weight, 4)) for piece, weight in parse_weights(text)]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("a red apple", [("a red apple", 1.0)]),
        ("(apple)", [("apple", 1.1)]),
        ("((apple))", [("apple", 1.21)]),
        ("[apple]", [("apple", 0.9091)]),
        ("(apple:1.5)", [("apple", 1.5)]),
        ("(apple : .5 )", [("apple ", 0.5)]),
        ("(apple:-1)", [("apple", -1.0)]),
        ("(apple:0)", [("apple", 0.0)]),
        ("a (red:1.2) apple", [("a ", 1.0), ("red", 1.2), (" apple", 1.0)]),
        ("(a (red:1.5) apple)", [("a ", 1.1), ("red", 1.65), (" apple", 1.1)]),
        ("(a [red] apple:2)", [("a ", 2.0), ("red", 1.8182), (" apple", 2.0)]),
        ("(open", [("open", 1.1)]),
        ("[(open", [("open", 1.0)]),
        ("close) ] too", [("close) ] too", 1.0)]),
        (r"\(apple\) \[x\] \\", [(r"(apple) [x] " + "\\", 1.0)]),
        (r"(apple\):1.3)", [("apple)", 1.3)]),
        ("a ratio of 3:2", [("a ratio of 3:2", 1.0)]),
        ("(a:b:1.2)", [("a:b", 1.2)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("smile :) and :1.5)", [("smile :) and :1.5)", 1.0)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        ("back\\slash", [("back\\slash", 1.0)]),
        ("()", []),
    ],
)
def test_weights_are_read_as_a1111_reads_them(text: str, pieces: list[tuple[str, float]]) -> None:
    assert rounded(text) == pieces


@pytest.mark.parametrize("text", ["(x:21)", "(x:-21)", "(" * 40 + "x", "((x:15):15)", f"(x:{'9' * 400})"])
def test_an_absurd_weight_is_refused_with_advice(text: str) -> None:
    with pytest.raises(InvalidInput, match="keep weights within 20"):
        parse_weights(text)


@settings(deadline=None)
@given(st.text(alphabet="ab ()[]:\\1.5-+", max_size=60))
def test_any_text_is_read_and_no_word_is_lost(text: str) -> None:
    try:
        pieces = parse_weights(text)
    except InvalidInput:
        return

    def letters(some: str) -> str:
        return "".join(c for c in some if c in "ab")

    assert letters("".join(piece for piece, _ in pieces)) == letters(text)
    assert all(one[1] != other[1] for one, other in pairwise(pieces))


def test_plain_prompts_have_the_pipelines_hidden_states_exactly(
    starter: Model, encoder: PromptEncoder
) -> None:
    tokenizer, text_encoder = starter.parts.tokenizer, starter.parts.text_encoder
    for text in ("a red apple, white background", "", "smile :)", "日本 ünï 😀 <|endoftext|>"):
        ids = tokenizer(
            text, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
        ).input_ids
        (got,) = encoder.encode((), [encoder.chunks(text)], 1)
        assert torch.equal(got, text_encoder(ids)[0][0]), text


def test_chunks_hold_every_token_in_order(starter: Model, encoder: PromptEncoder) -> None:
    text = "apple key dog cake fish boat hat tree " * 40
    wanted = starter.parts.tokenizer(
        text, add_special_tokens=False, truncation=False, padding=False
    ).input_ids

    chunks = encoder.chunks(text)

    assert [token for chunk in chunks for token in chunk.ids[1:76]][: len(wanted)] == wanted
    assert len(chunks) == -(-len(wanted) // 75)
    bos, eos = starter.parts.tokenizer.bos_token_id, starter.parts.tokenizer.eos_token_id
    for chunk in chunks:
        assert (len(chunk.ids), chunk.ids[0], chunk.ids[-1]) == (77, bos, eos)
        assert len(chunk.weights) == 77


def test_exactly_75_tokens_are_one_chunk_and_76_are_two(encoder: PromptEncoder) -> None:
    assert len(encoder.chunks("apple " * 75)) == 1
    assert len(encoder.chunks("apple " * 76)) == 2


def test_a_short_prompt_is_padded_with_empty_chunks(encoder: PromptEncoder) -> None:
    short, empty = encoder.chunks("a key"), encoder.chunks("")

    (got,) = encoder.encode((), [short], 3)
    (alone,) = encoder.encode((), [short], 1)
    (nothing,) = encoder.encode((), [empty], 1)

    assert torch.equal(got, torch.cat([alone, nothing, nothing]))


def test_weights_multiply_hidden_states_and_the_mean_is_restored(encoder: PromptEncoder) -> None:
    weighted, plain = encoder.chunks("a (red:1.5) apple"), encoder.chunks("a red apple")
    (got,) = encoder.encode((), [weighted], 1)
    (states,) = encoder.encode((), [plain], 1)
    assert weighted[0].ids == plain[0].ids

    expected = states * torch.tensor(weighted[0].weights)[:, None]
    expected = expected * (states.mean() / expected.mean())

    assert sum(weight == 1.5 for weight in weighted[0].weights) == 1
    assert torch.allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(got, states, atol=1e-2)


def test_a_weighted_neighbour_does_not_change_a_plain_prompt(encoder: PromptEncoder) -> None:
    plain, weighted = encoder.chunks("a red apple"), encoder.chunks("a (blue:1.7) key")

    together, _ = encoder.encode((), [plain, weighted], 1)
    encoder.forget()
    (alone,) = encoder.encode((), [plain], 1)

    assert torch.allclose(together, alone, atol=1e-5)


def test_weights_that_leave_nothing_do_not_become_nan(encoder: PromptEncoder) -> None:
    states = torch.ones(1, 77, 8)

    assert prompts._emphasise(states, torch.zeros(1, 77)).isfinite().all()


def test_what_was_encoded_is_remembered_for_its_style_only(starter: Model, encoder: PromptEncoder) -> None:
    calls = []
    hook = starter.parts.text_encoder.register_forward_pre_hook(
        lambda module, inputs: calls.append(len(inputs[0]))
    )
    one, two = encoder.chunks("an apple"), encoder.chunks("a key")

    for style in ("plain", "plain", "other"):
        encoder.encode(style, [one, two, one], 1)
    hook.remove()

    assert calls == [2, 2], "one call for what is new, none for what is known"


def test_memory_of_encoded_prompts_is_bounded(
    encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "CACHED_CHUNKS", 3)
    some: list[tuple[Chunk, ...]] = [encoder.chunks(f"apple {n}") for n in range(6)]

    first = encoder.encode((), some, 1)

    assert len(first) == 6
    assert len(encoder._cache) == 3
    assert torch.allclose(encoder.encode((), some[:1], 1)[0], first[0], atol=1e-5)
