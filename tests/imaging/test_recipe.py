"""A recipe survives JSON and PNG, and hostile files are refused with a clear text."""

import json
import struct
import zlib
from contextlib import suppress
from dataclasses import fields, replace
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from itemforge.contract import Scheduler
from itemforge.errors import InvalidInput
from itemforge.imaging.png import MAX_RECIPE, RECIPE, SIGNATURE, encode_png, read_recipe
from itemforge.imaging.recipe import Recipe, RecipeLora, library_versions

PLAIN = Recipe(
    prompt="a red apple, white background",
    negative_prompt="blurry",
    steps=25,
    sampler=Scheduler.DDIM,
    guidance=4.0,
    seed=7,
    width=64,
    height=32,
    base="ab" * 32,
    model="starter",
    versions=(("itemforge", "0.1.0"), ("torch", "2.13.0")),
)
STYLED = replace(PLAIN, loras=(RecipeLora("cd" * 32, 0.8, "tsuki"), RecipeLora("ef" * 32, -0.25)))
PIXELS = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)

texts = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00"), max_size=200)


def test_the_parameters_text_is_what_other_tools_read():
    assert PLAIN.parameters_text() == (
        "a red apple, white background\n"
        "Negative prompt: blurry\n"
        "Steps: 25, Sampler: DDIM, CFG scale: 4, Seed: 7, Size: 64x32, Model hash: ababababab, "
        "Model: starter, Version: itemforge 0.1.0"
    )


def test_the_parameters_text_names_loras_with_their_hashes_and_weights():
    last = STYLED.parameters_text().splitlines()[-1]
    assert 'Lora hashes: "tsuki: cdcdcdcdcdcd, efefefefefef: efefefefefef"' in last
    assert 'Lora weights: "tsuki: 0.8, efefefefefef: -0.25"' in last


@pytest.mark.parametrize(
    ("sampler", "name"),
    [(Scheduler.DDIM, "DDIM"), (Scheduler.DPMPP_2M_KARRAS, "DPM++ 2M Karras"), (Scheduler.EULER, "Euler")],
)
def test_samplers_have_the_names_that_other_tools_know(sampler, name):
    assert f"Sampler: {name}," in replace(PLAIN, sampler=sampler).parameters_text()


def test_a_model_name_with_commas_is_quoted_and_an_empty_negative_left_out():
    text = replace(PLAIN, model='my, "best" model', negative_prompt="").parameters_text()
    assert r'Model: "my, \"best\" model"' in text
    assert "Negative prompt" not in text


@settings(deadline=None, max_examples=50)
@given(prompt=texts.filter(str.strip), negative=texts, seed=st.integers(0, 2**63 - 1))
def test_any_prompt_survives_the_png(prompt, negative, seed):
    recipe = replace(STYLED, prompt=prompt, negative_prompt=negative, seed=seed)
    assert read_recipe(encode_png(PIXELS, recipe)) == recipe


@pytest.mark.parametrize(
    "prompt", ['"quoted", (word:1.2)\nsecond line\r\nthird', "赤いリンゴ 🍎", "é\x7f<lora:x:1>"]
)
def test_prompts_with_newlines_quotes_and_other_scripts_reach_both_chunks(prompt):
    recipe = replace(PLAIN, prompt=prompt)
    data = encode_png(PIXELS, recipe)
    assert read_recipe(data).prompt == prompt
    with Image.open(BytesIO(data)) as image:
        assert image.text["parameters"] == recipe.parameters_text()
        assert json.loads(image.text[RECIPE])["prompt"] == prompt


def test_encoding_keeps_the_pixels_and_gives_the_same_bytes_each_time():
    data = encode_png(PIXELS, STYLED)
    assert encode_png(PIXELS.copy(), STYLED) == data
    with Image.open(BytesIO(data)) as image:
        assert np.array_equal(np.asarray(image), PIXELS)


def test_pixels_of_another_kind_are_a_programming_error():
    with pytest.raises(ValueError, match="uint8"):
        encode_png(PIXELS.astype(np.float32), PLAIN)
    with pytest.raises(ValueError, match="height x width x 3"):
        encode_png(PIXELS[:, :, 0], PLAIN)


def test_the_longest_prompts_that_the_contract_allows_fit():
    recipe = replace(PLAIN, prompt="🍎" * 8000, negative_prompt="猫" * 8000)
    assert read_recipe(encode_png(PIXELS, recipe)) == recipe


def test_json_holds_every_field_of_the_recipe():
    stored = json.loads(STYLED.to_json())
    assert {field.name for field in fields(Recipe)} <= stored.keys()
    assert stored["versions"] == {"itemforge": "0.1.0", "torch": "2.13.0"}


def test_versions_are_those_of_what_is_installed():
    versions = dict(library_versions())
    assert versions["torch"]
    assert versions["itemforge"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 2}, "another format"),
        ({"steps": 0}, "steps"),
        ({"seed": -1}, "seed"),
        ({"width": 12}, "width"),
        ({"guidance": float("nan")}, "guidance"),
        ({"base": "abc"}, "base"),
        ({"sampler": "magic"}, "sampler"),
        ({"loras": [{"sha256": "x", "weight": 1}]}, "loras.0.sha256"),
        ({"prompt": "nul\x00"}, "prompt"),
        ({"versions": "new"}, "versions"),
    ],
)
def test_a_changed_recipe_is_refused_by_the_field_name(change, says):
    stored = json.loads(PLAIN.to_json()) | change
    with pytest.raises(InvalidInput, match=says):
        Recipe.from_json(json.dumps(stored))


@pytest.mark.parametrize("text", ["", "[1]", "{", "null", "[" * 100_000])
def test_what_is_no_recipe_at_all_is_refused(text):
    with pytest.raises(InvalidInput, match="recipe"):
        Recipe.from_json(text)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes) -> bytes:
    """A PNG with `chunks` before its end."""
    out = BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG")
    whole = out.getvalue()
    return whole[:-12] + b"".join(chunks) + whole[-12:]


JSON = PLAIN.to_json().encode()


@pytest.mark.parametrize(
    "written",
    [
        chunk(b"tEXt", b"itemforge\0" + JSON),
        chunk(b"zTXt", b"itemforge\0\0" + zlib.compress(JSON)),
        chunk(b"iTXt", b"itemforge\0\0\0\0\0" + JSON),
        chunk(b"iTXt", b"itemforge\0\1\0en\0Rezept\0" + zlib.compress(JSON)),
    ],
    ids=["text", "compressed", "international", "international compressed"],
)
def test_a_recipe_that_another_tool_rewrote_is_still_read(written):
    assert read_recipe(png(written)) == PLAIN


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a PNG"),
        (b"\xff\xd8\xff\xe0 jpeg", "not a PNG"),
        (png(), "carries no ItemForge recipe"),
        (png(chunk(b"tEXt", b"parameters\0a cat\nSteps: 20")), "carries no ItemForge recipe"),
        (SIGNATURE, "cut off"),
        (encode_png(PIXELS, PLAIN)[:60], "cut off"),
        (SIGNATURE + struct.pack(">I", 2**32 - 1) + b"tEXt" + b"x" * 100, "cut off"),
        (png(chunk(b"tEXt", b"itemforge\0" + JSON)[:-1] + b"!"), "wrong checksum"),
        (png(chunk(b"zTXt", b"itemforge\0\0not zlib")), "cannot be decompressed"),
        (
            png(chunk(b"zTXt", b"itemforge\0\0" + zlib.compress(b" " * 50_000_000))),
            f"larger than {MAX_RECIPE}",
        ),
        (png(chunk(b"tEXt", b"itemforge\0" + b" " * (MAX_RECIPE + 1))), f"larger than {MAX_RECIPE}"),
        (png(chunk(b"tEXt", b"itemforge\0{}")), "another format"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_and_foreign_files_get_a_clear_error(data, says):
    with pytest.raises(InvalidInput, match=says):
        read_recipe(data)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_no_damage_to_a_file_ends_in_another_error(noise, place):
    data = encode_png(PIXELS[:8, :8], PLAIN)
    damaged = data[:place] + noise + data[place + len(noise) :]
    with suppress(InvalidInput):
        read_recipe(damaged)
