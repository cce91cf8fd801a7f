"""Prompts of an evaluation."""

from pathlib import Path

import pytest

from itemforge.errors import InvalidInput
from itemforge.styles.pack import Defaults, Size, StylePack
from itemforge.training.suite import GUIDANCE, STEPS, THINGS, Asked, caption_suite, fixed_suite, read_suite

PACK = StylePack(id="t", version=1, trigger="trg", template="{prompt}, icon", negative="blurry")


def test_the_fixed_suite_is_worded_and_drawn_as_the_style() -> None:
    asked = fixed_suite(PACK)
    assert asked[0] == Asked(f"trg, {THINGS[0]}, icon", THINGS[0], 0, "blurry")
    assert [each.seed for each in asked] == list(range(len(THINGS)))
    own = PACK.model_copy(
        update={"defaults": Defaults(num_inference_steps=9), "size": Size(width=64, height=96)}
    )
    drawn = fixed_suite(own)[0]
    assert (drawn.steps, drawn.guidance, drawn.width, drawn.height) == (9, GUIDANCE, 64, 96)


def test_captions_are_taken_from_all_over_the_set_as_they_are() -> None:
    asked = caption_suite([f"trg, thing {n}" for n in range(10)], PACK, 4)
    assert [each.picture for each in asked] == [0, 3, 6, 9]
    assert asked[1].prompt == "trg, thing 3"
    assert caption_suite([], PACK, 4) == []


def test_a_file_has_a_prompt_a_line_with_options(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(
        "# mine\n\na red fish\n[trigger], a dog --n bad, ugly --w 64 --h 96 --d 7 --l 3.5 --s 12\n"
    )
    first, second = read_suite(file, PACK)
    assert (first.prompt, first.seed, first.steps, first.negative) == (
        "trg, a red fish, icon",
        0,
        STEPS,
        "blurry",
    )
    assert second == Asked("trg, a dog, icon", "trg, a dog", 7, "bad, ugly", 12, 3.5, 64, 96)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a dog --q 3", "line 1: --q"),
        ("a dog --s 0", "--s: input should be greater"),
        ("a dog --w 63", "--w: input should be a multiple of 8"),
        ("a dog --d", "--d: input should be a valid integer"),
        ("# nothing", "has no prompts"),
    ],
)
def test_what_is_wrong_is_named(line: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(line)
    with pytest.raises(InvalidInput, match=said):
        read_suite(file, PACK)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot read"):
        read_suite(tmp_path / "none", PACK)
