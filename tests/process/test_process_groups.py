"""Copies and variants are found, and a group never stands on both sides of the split."""

import colorsys
import hashlib
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from item_pictures import data, item, on, thing
from PIL import Image

from itemforge.dataset.process.comparing import LOOK
from itemforge.dataset.process.duplicates import Group, Member, find_groups, look_of
from itemforge.dataset.process.picture import process
from itemforge.dataset.process.recipe import Recipe
from itemforge.dataset.process.split import held_out, split
from itemforge.errors import InvalidInput

RECIPE = Recipe(size=256, max_upscale=99)


def _member(key: str, bytes_: bytes, rank: tuple[float, ...] | None = None) -> Member:
    made = process(bytes_, RECIPE)
    assert made.cutout is not None, made.record
    size = max(made.record.content_width, made.record.content_height)
    return Member(key, made.record.pixels, look_of(np.asarray(made.cutout)), rank or (float(size),))


def _recoloured(image: Image.Image, degrees: float) -> Image.Image:
    turn = np.vectorize(
        lambda r, g, b: colorsys.hsv_to_rgb(
            (colorsys.rgb_to_hsv(r, g, b)[0] + degrees / 360) % 1, *colorsys.rgb_to_hsv(r, g, b)[1:]
        )
    )
    pixels = np.asarray(image).copy()
    made = np.stack(turn(*(pixels[..., n] / 255 for n in range(3))), -1)
    pixels[..., :3] = np.rint(made * 255)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5, 6])
def test_other_sizes_formats_grounds_and_slight_crops_are_copies(seed: int) -> None:
    whole = thing(seed, 300)
    box = whole.getbbox()
    assert box is not None
    left, top, right, bottom = box
    cut = round(0.05 * (right - left))
    copies = {
        "small": data(whole.resize((120, 120), Image.Resampling.LANCZOS)),
        "webp": data(whole, "WEBP", quality=60),
        "jpeg": data(on(whole, (255, 255, 255)), "JPEG", quality=55),
        "grey ground": data(on(whole, (150, 150, 150))),
        "moved": data(whole.crop((-50, -10, 300, 330))),
        "left cut": data(whole.crop((left + cut, top, right, bottom))),
        "foot cut": data(whole.crop((left, top, right, bottom - cut))),
    }
    members = [_member("whole", data(whole), (9999.0,))] + [
        _member(key, each) for key, each in copies.items()
    ]
    (group,) = find_groups(members)
    assert group.kept == ["whole"] and group.copies == dict.fromkeys(copies, "whole")


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5, 6])
def test_recolours_and_mirrored_ones_are_variants(seed: int) -> None:
    whole = thing(seed, 200)
    variants = {
        "blue": data(_recoloured(whole, 200)),
        "green": data(_recoloured(whole, 110)),
        "mirrored": data(whole.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        "small and green": data(_recoloured(whole, 110).resize((130, 130), Image.Resampling.LANCZOS)),
    }
    (group,) = find_groups(
        [_member("whole", data(whole)), *(_member(k, each) for k, each in variants.items())]
    )
    assert set(group.kept) == {"whole", "blue", "green", "mirrored"}
    assert group.copies == {"small and green": "green"}


def test_another_colour_in_one_small_place_is_a_variant() -> None:
    one, other = item(200), item(200)
    for image, colour in ((one, (250, 220, 0, 255)), (other, (0, 90, 250, 255))):
        image.paste(colour, (50, 60, 68, 78))
    (group,) = find_groups([_member("gold", data(one)), _member("sapphire", data(other))])
    assert sorted(group.kept) == ["gold", "sapphire"]


def test_plain_shapes_in_other_colours_are_variants() -> None:
    (group,) = find_groups([_member("a", data(item(200))), _member("b", data(item(200, (20, 60, 200))))])
    assert len(group.kept) == 2


def test_different_things_stay_apart() -> None:
    members = [_member(str(seed), data(thing(seed))) for seed in range(30)]
    assert len(find_groups(members)) == 30


def test_busy_pictures_are_told_apart_and_their_copies_found() -> None:
    scenes = [
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (12, 12, 3)).astype(np.uint8)).resize(
            (240, 240), Image.Resampling.BICUBIC
        )
        for n in range(12)
    ]
    members = [_member(f"{n}", data(scene), (1000.0,)) for n, scene in enumerate(scenes)]
    members += [
        _member(f"{n} cut", data(scene.crop((10, 0, 240, 240)), "JPEG", quality=80))
        for n, scene in enumerate(scenes)
    ]
    groups = find_groups(members)
    assert sorted((g.kept, list(g.copies)) for g in groups) == sorted(
        ([f"{n}"], [f"{n} cut"]) for n in range(12)
    )


def test_the_same_pixels_are_copies_and_the_best_is_kept() -> None:
    members = [_member(key, data(thing(1)), (rank,)) for key, rank in (("a", 1.0), ("b", 3.0), ("c", 2.0))]
    (group,) = find_groups(members)
    assert group.kept == ["b"] and group.copies == {"a": "b", "c": "b"}


def test_the_order_of_the_files_does_not_matter() -> None:
    members = [_member(f"{seed} {size}", data(thing(seed, size))) for seed in range(4) for size in (120, 200)]
    wanted = find_groups(members)
    for seed in range(3):
        random.Random(seed).shuffle(members)
        assert find_groups(members) == wanted


def test_there_may_be_none() -> None:
    assert find_groups([]) == []


def test_thousands_of_pictures_are_grouped_in_seconds() -> None:
    draw = np.random.default_rng(0)
    members = []
    for n in range(2000):
        # Coarse shapes: of each a copy with a little noise follows.
        coarse = draw.integers(0, 256, (8, 8, 4)).astype(np.uint8)
        coarse[..., 3] = 255 * (draw.random((8, 8)) < 0.6)
        look = np.kron(coarse, np.ones((LOOK // 8, LOOK // 8, 1), np.uint8))
        if n % 10 == 0:
            noisy = look.copy()
            noisy[..., :3] ^= draw.integers(0, 4, noisy[..., :3].shape).astype(np.uint8)
            members.append(Member(f"{n} copy", hashlib.sha256(b"%d copy" % n).hexdigest(), noisy, (0.0,)))
        members.append(Member(f"{n}", hashlib.sha256(b"%d" % n).hexdigest(), look, (1.0,)))
    begun = time.monotonic()
    groups = find_groups(members)
    assert len(groups) == 2000 and sum(len(group.copies) for group in groups) == 200
    assert time.monotonic() - begun < 40, "on a busy machine; it is a few seconds"


KEYS = st.text("0123456789abcdef", min_size=64, max_size=64)


@settings(max_examples=50)
@given(st.lists(KEYS, min_size=1, max_size=30, unique=True), KEYS, st.floats(0, 1))
def test_a_picture_stays_on_its_side_when_others_come_and_go(
    keys: list[str], newcomer: str, fraction: float
) -> None:
    before = split([Group(key, [key]) for key in keys], fraction)
    after = split([Group(key, [key]) for key in [newcomer, *keys[1:]]], fraction)
    assert all(after[key] == before[key] for key in keys[1:] if key != newcomer)


@given(KEYS, st.lists(KEYS, max_size=5), st.lists(KEYS, max_size=5))
def test_a_group_stands_on_one_side(canonical: str, kept: list[str], copies: list[str]) -> None:
    sides = split([Group(canonical, kept, dict.fromkeys(copies, canonical))], 0.5)
    assert len(set(sides.values())) <= 1


def test_the_share_that_is_held_out_is_the_fraction() -> None:
    groups = [Group(hashlib.sha256(b"%d" % n).hexdigest(), [str(n)]) for n in range(5000)]
    for fraction in (0.0, 0.1, 0.3, 1.0):
        assert sum(split(groups, fraction).values()) / 5000 == pytest.approx(fraction, abs=0.02)
    # A side once given is kept when the fraction grows.
    assert all(held_out(group, 0.3) for group in groups if held_out(group, 0.1))


def test_no_share_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"1\.5"):
        held_out(Group("a"), 1.5)
