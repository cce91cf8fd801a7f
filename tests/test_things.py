"""Lists as people write them: what is read, what is said of what cannot be, and by which line."""

import doctest
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from itemforge import things
from itemforge.things import read_things


def _read(text: str) -> list[dict[str, Any]]:
    listing = read_things(text)
    assert listing.problems == []
    return [thing.model_dump(exclude_none=True, mode="json") for thing in listing.things]


def test_the_examples_hold() -> None:
    assert doctest.testmod(things).failed == 0


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_one_thing_a_line(end: str) -> None:
    text = "\ufeff" + end.join(["a red apple", "", "  an iron key, old ", '"a ""quoted"" cup', ""])
    assert _read(text) == [
        {"prompt": "a red apple"},
        {"prompt": "an iron key, old"},
        {"prompt": '"a ""quoted"" cup'},
    ]
    assert read_things(text).lines == [1, 3, 4]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table(delimiter: str) -> None:
    rows = [
        ["Thing", "Name", "Seed", "Variations", "Steps", "Negative"],
        ['"an ""old"" key"', "Key", "7", "2", "", "rust"],
        [],
        ['"a cup\nof tea"', "", "", "", "30", ""],
        ["", "shield", "", "", "", ""],
    ]
    listing = read_things("\r\n".join(delimiter.join(row) for row in rows))
    assert listing.problems == []
    assert [thing.model_dump(exclude_none=True, mode="json") for thing in listing.things] == [
        {"prompt": 'an "old" key', "name": "Key", "seed": 7, "variations": 2, "negative_prompt": "rust"},
        {"prompt": "a cup\nof tea", "num_inference_steps": 30},
        {"prompt": "shield", "name": "shield"},
    ]
    assert listing.lines == [2, 4, 6], "a field over two lines counts by its first"
    assert listing.requests(4) == 2 + 4 + 4
    assert listing.things[1].title == "a cup of tea"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the list is empty"),
        ("\n \n", "the list is empty"),
        ("thing,colour\na cup,red", "line 1: does not know the columns colour"),
        ("thing,prompt\na cup,b", "line 1: names a column twice: prompt"),
        ("thing,seed\na cup,7\na big, old hat,8", "line 3: has 3 fields"),
        ("thing,seed\na cup,-1", "line 2: seed: must be greater than or equal to 0"),
        ("thing,seed\n,7", "line 2: prompt:"),
        ("thing,variations\na cup,17\na hat,0", "line 3: variations"),
        ('thing,seed\n"a cup,7\na hat,8', "line 2: is no CSV"),
        ("thing,sampler\na cup,fast", "line 2: scheduler"),
        ("a cup\na h\x00at", "line 2: prompt: must not contain NUL"),
        ("x" * 2001, "line 1: prompt: must have at most 2000"),
    ],
)
def test_what_cannot_be_read_is_told_by_line(text: str, said: str) -> None:
    told = [str(problem) for problem in read_things(text).problems]
    assert any(said in each for each in told), told


def test_good_lines_are_read_beside_wrong_ones_and_not_all_are_told() -> None:
    listing = read_things("thing,seed\n" + "a cup,x\n" * 50 + "a hat,1")
    assert [thing.prompt for thing in listing.things] == ["a hat"]
    assert len(listing.problems) == 21 and "30 more lines" in str(listing.problems[-1])


def test_what_stands_twice_is_noted_and_drawn_twice() -> None:
    listing = read_things("a cup\na hat\na cup")
    assert [str(note) for note in listing.notes] == [
        "line 3: 'a cup' stands in line 1 already, and is drawn again"
    ]
    assert len(listing.things) == 3


def test_a_first_line_with_a_comma_is_no_table_by_that() -> None:
    assert _read("a cup, blue\na thing, small")[0] == {"prompt": "a cup, blue"}
    assert _read("thing\na cup") == [{"prompt": "a cup"}], "a table of one column"


@given(st.text(alphabet=st.sampled_from('athing,;\t"\n\r \ufeff\x00é'), max_size=60))
def test_any_text_is_things_or_problems(text: str) -> None:
    listing = read_things(text)
    assert listing.things or listing.problems
    assert len(listing.things) == len(listing.lines)
