"""Words beside the captions' own: nearest by the teacher's states, nothing that evaluation asks for, copies left alone."""

import torch
from torch import Tensor

from itemforge.dataset.concepts import Concept
from itemforge.dataset.metadata import Line
from itemforge.training import neighbours

DOG = Concept("d", "dog", "animals", ("puppy",), ("canine tooth",))
KEY = Concept("k", "key", "objects", (), ("lock",))
NAMES = torch.eye(3)  # dog, puppy, key


def _states(*rows: tuple[float, float, float]) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows), dim=-1)


def test_names_inflections_and_what_evaluation_asks_for_are_not_free() -> None:
    words = ["dog", "canine", "canines", "tooth", "toothbrush", "locks", "locksmith", "hound", "loc"]
    assert neighbours.free_words(words, [DOG, KEY]) == ["hound", "loc"]


def test_a_word_goes_to_the_thing_whose_name_is_nearest() -> None:
    states = _states((1, 0.9, 0), (0, 1, 0.1), (0.1, 0, 1), (1, 1, 1), (-1, -1, -0.9))
    words = ["hound", "whelp", "latch", "vague", "away"]
    found = neighbours.nearest(words, states, [DOG, KEY], NAMES, 9, 0.6)
    assert found == {"d": ["whelp", "hound"], "k": ["latch"]}
    assert neighbours.nearest(words, states, [DOG, KEY], NAMES, 1, 0.6) == {"d": ["whelp"], "k": ["latch"]}


def test_each_word_is_one_more_phrasing_with_the_same_ending_but_not_of_copies() -> None:
    lines = [
        Line(file_name="d.png", text="a dog, flat, white", captions=["a dog, flat, white"], concept="d"),
        Line(
            file_name="d2.png",
            text="a red dog, flat",
            captions=["a red dog, flat"],
            concept="d",
            colour="red",
        ),
        Line(file_name="k.png", text="a key, flat", captions=["a key, flat"], concept="k"),
    ]
    more = neighbours.with_neighbours(lines, {"d": ["hound", "whelp"]}, 1)
    assert more[0].captions[0] == "a dog, flat, white"
    assert ["hound" in text and text.endswith(", flat, white") for text in more[0].captions] == [
        False,
        True,
        False,
    ]
    assert "whelp" in more[0].captions[2]
    assert more[1:] == lines[1:]
    assert more == neighbours.with_neighbours(lines, {"d": ["hound", "whelp"]}, 1)
