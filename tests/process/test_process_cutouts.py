"""Onto white without fringes: what is transparent, what is opaque on a plain ground, and what is neither."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from item_pictures import RED, apart, data, item, on, thing
from PIL import Image, ImageDraw, ImageFilter

from itemforge.dataset.process.picture import Made, process
from itemforge.dataset.process.recipe import Ground, Reason, Recipe, State
from itemforge.errors import InvalidInput
from itemforge.imaging.scaling import on_white, resize

COLOUR = st.tuples(*[st.integers(0, 250)] * 3)


def _arrays(made: Made) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert made.picture is not None and made.cutout is not None and made.mask is not None
    assert (made.picture.mode, made.cutout.mode, made.mask.mode) == ("RGB", "RGBA", "L")
    return tuple(np.asarray(each).astype(int) for each in (made.picture, made.cutout, made.mask))  # type: ignore[return-value]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    colour=COLOUR,
    hidden=COLOUR,
    size=st.integers(30, 300),
    to=st.integers(32, 200),
    margin=st.floats(0.02, 0.3),
    wide=st.booleans(),
)
def test_a_cut_out_of_one_colour_has_no_fringe(
    colour: tuple[int, int, int], hidden: tuple[int, int, int], size: int, to: int, margin: float, wide: bool
) -> None:
    recipe = Recipe(size=to, margin=margin, min_side=4)
    image = item(size, colour, hidden)
    made = process(data(image.resize((size, size // 2)) if wide else image), recipe)
    picture, cutout, mask = _arrays(made)
    assert made.picture is not None and made.picture.size == (to, to)
    # A level more or less is rounding; the wide one was scaled by Pillow, which rounds weighed colours.
    slack = 1 if not wide else 30
    assert (picture >= np.array(colour) - slack).all() and (picture <= 255).all()
    if not wide:
        # All of one straight line from the colour to white, not only within the box of both.
        expected = (np.array(colour) * mask[..., None] + 255 * (255 - mask[..., None])) / 255
        assert np.abs(picture - expected).max() <= 1.01
    assert (mask == cutout[..., 3]).all()
    edge = round(to * margin)
    for strip in (picture[:edge], picture[to - edge :], picture[:, :edge], picture[:, to - edge :]):
        assert (strip == 255).all(), "a white border"
    longest = max(np.ptp(np.flatnonzero(mask.any(n))) + 1 for n in (0, 1))
    assert abs(longest - recipe.inner) <= 2, "trimmed, and as large as the margin lets it be"
    for n in (0, 1):
        there = np.flatnonzero(mask.any(n))
        assert abs(there[0] - (to - 1 - there[-1])) <= 3, "in the middle"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(COLOUR, st.sampled_from([0, 255])), min_size=9, max_size=9), st.integers(3, 40))
def test_scaling_makes_nothing_darker_or_lighter_than_it_was(
    cells: list[tuple[tuple[int, int, int], int]], to: int
) -> None:
    grid = np.array([[*colour, alpha] for colour, alpha in cells], np.uint8).reshape(3, 3, 4)
    picture = np.kron(grid, np.ones((8, 8, 1), np.uint8))
    scaled = resize(picture, to, to)
    seen = scaled[..., 3] > 8
    opaque = picture[picture[..., 3] > 0][:, :3].astype(int)
    if seen.any():
        assert (scaled[seen][:, :3] >= opaque.min(0)).all()
        assert (scaled[seen][:, :3] <= opaque.max(0)).all()
    assert (scaled[scaled[..., 3] == 0] == (255, 255, 255, 0)).all()


def test_it_is_light_that_is_averaged() -> None:
    board = np.kron(np.indices((64, 64)).sum(0) % 2, np.ones((4, 4))) * 255
    pixels = np.stack([board] * 3 + [np.full_like(board, 255)], -1).astype(np.uint8)
    grey = resize(pixels, 16, 16)[4:-4, 4:-4, :3]
    assert np.abs(grey.astype(int) - 188).max() <= 2, "128 would be the average of the numbers"


def test_at_its_own_size_a_picture_is_what_every_program_shows() -> None:
    half = np.zeros((64, 64, 4), np.uint8)
    half[8:56, 8:56] = (200, 0, 0, 128)
    made = process(data(Image.fromarray(half)), Recipe(size=64, margin=8 / 64))
    wanted = Image.new("RGBA", (64, 64), "white")
    wanted.alpha_composite(Image.fromarray(half))
    picture, _, _ = _arrays(made)
    assert made.record.scale == 1 and np.abs(picture - np.asarray(wanted.convert("RGB"))).max() <= 1
    assert not any("enlarged" in note for note in made.record.notes)


def test_the_cutout_over_white_is_the_picture() -> None:
    made = process(data(thing(1)), Recipe())
    _, cutout, _ = _arrays(made)
    assert made.picture is not None
    assert (on_white(cutout.astype(np.uint8)) == np.asarray(made.picture)).all()


def test_enlarging_is_recorded_and_much_of_it_flagged() -> None:
    a_little = process(data(item(100)), Recipe(size=128)).record
    assert a_little.state is State.OK and a_little.scale > 1
    assert any(note.startswith("enlarged") for note in a_little.notes)
    much = process(data(item(100)), Recipe(size=512)).record
    assert (much.state, much.reason) == (State.FLAGGED, Reason.ENLARGED) and "5.53 times" in much.detail
    assert process(data(item(100)), Recipe(size=512, max_upscale=6)).record.state is State.OK


def test_a_far_speck_that_nobody_sees_does_not_make_the_item_small() -> None:
    image = item(100)
    image.putpixel((99, 99), (0, 0, 0, 5))
    assert (
        process(data(image), Recipe()).record.content_width
        == process(data(item(100)), Recipe()).record.content_width
    )


GROUNDS = [(128, 128, 128), (40, 60, 90), (255, 255, 255), (20, 160, 60), (250, 240, 200), (0, 0, 0)]


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("size", [120, 400])
def test_an_item_on_a_plain_ground_is_as_one_that_came_with_alpha(
    ground: tuple[int, int, int], size: int
) -> None:
    recipe = Recipe(size=256)
    made = process(data(on(item(size), ground)), recipe)
    wanted = process(data(item(size)), recipe)
    assert made.record.ground is (Ground.WHITE if min(ground) > 245 else Ground.PLAIN)
    assert made.record.state is State.OK and made.record.scale == pytest.approx(wanted.record.scale, rel=0.03)
    picture, _, mask = _arrays(made)
    assert made.picture is not None and wanted.picture is not None and wanted.mask is not None
    assert apart(made.picture, wanted.picture) < 2.5
    assert np.abs(mask - np.asarray(wanted.mask)).mean() < 3, "its hole, too"
    # No rim of the ground's colour: every pixel is red, white, or between.
    share = (255 - picture) / (255 - np.array(RED))
    solid = mask > 60
    assert np.ptp(share[solid], axis=-1).max() < 0.15
    assert picture[(mask > 0)].min() >= min(RED) - 12


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("quality", [85, 60])
def test_jpeg_leaves_no_dirt_around_an_item(ground: tuple[int, int, int], quality: int) -> None:
    made = process(data(on(item(400), ground), "JPEG", quality=quality), Recipe())
    wanted = process(data(item(400)), Recipe())
    assert made.record.state is State.OK and made.picture is not None and wanted.picture is not None
    _, _, mask = _arrays(made)
    assert wanted.mask is not None
    away = np.asarray(wanted.mask.filter(ImageFilter.MaxFilter(13))) == 0
    assert (mask[away] > 100).mean() < 0.001
    assert apart(made.picture, wanted.picture) < 5


def _gradient(size: int, round_: bool) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]  # type: ignore[misc]
    light = 0.5 - 0.25 * (x**2 + y**2) if round_ else 0.5 + 0.2 * (0.7 * x + 0.5 * y)
    return np.rint(np.stack([light * 300, light * 250, light * 280], -1)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("round_", [False, True])
def test_a_soft_gradient_is_a_plain_ground(round_: bool) -> None:
    ground = Image.fromarray(_gradient(300, round_)).convert("RGBA")
    ground.alpha_composite(item(300))
    made = process(data(ground.convert("RGB")), Recipe(size=256))
    wanted = process(data(item(300)), Recipe(size=256))
    assert made.record.ground is Ground.PLAIN and made.picture is not None and wanted.picture is not None
    assert apart(made.picture, wanted.picture) < 3


def test_a_soft_shadow_stays_a_shadow_without_the_ground() -> None:
    size, ground = 300, (170, 170, 175)
    black = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    ImageDraw.Draw(black).ellipse((60, 220, 240, 280), fill=(0, 0, 0, 110))
    shade = black.filter(ImageFilter.GaussianBlur(12))
    below = Image.new("RGBA", (size, size), (*ground, 255))
    below.alpha_composite(shade)
    box = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    ImageDraw.Draw(box).rectangle((90, 40, 210, 230), fill=(40, 90, 200, 255))
    below.alpha_composite(box)
    made = process(data(below.convert("RGB")), Recipe(size=300, margin=0))
    picture, _, mask = _arrays(made)
    assert "a soft shadow kept" in made.record.notes
    soft = (mask > 5) & (mask < 150)
    assert soft.sum() > 500
    assert np.abs(picture[soft] - (255 - mask[soft])[:, None]).mean() < 12, (
        "black over white, not grey ground"
    )


def test_a_detail_of_nearly_the_grounds_colour_is_no_hole() -> None:
    picture = Image.new("RGB", (300, 300), (120, 120, 120))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((60, 60, 240, 240), fill=(90, 20, 20))
    pen.rectangle((90, 90, 130, 200), fill=(125, 120, 117))  # a detail
    pen.rectangle((170, 90, 210, 200), fill=(120, 120, 120))  # a hole
    pen.rectangle((145, 100, 148, 103), fill=(120, 120, 120))  # a glint
    _, cutout, mask = _arrays(process(data(picture), Recipe(size=181, margin=0)))
    assert mask[80, 50] == 255 and cutout[80, 50, :3].tolist() == [125, 120, 117]
    assert mask[80, 130] == 0
    assert mask[41, 86] == 255


def _scene(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    return Image.fromarray(noise).resize((300, 260), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("seed", range(6))
def test_a_busy_background_is_flagged_and_kept(seed: int) -> None:
    scene = _scene(seed)
    made = process(data(scene), Recipe(size=256))
    assert (made.record.state, made.record.reason) == (State.FLAGGED, Reason.BUSY)
    picture, _, mask = _arrays(made)
    assert mask.max() == 255 and (mask == 255).sum() == pytest.approx(224 * 224 * 260 / 300, rel=0.02)
    assert (picture[:16] == 255).all() and (picture[:, :16] == 255).all()


def test_two_halves_are_no_ground() -> None:
    picture = Image.new("RGB", (200, 200), (200, 180, 160))
    ImageDraw.Draw(picture).rectangle((0, 0, 200, 100), fill=(60, 90, 160))
    assert process(data(picture), Recipe()).record.reason is Reason.BUSY


def test_large_opaque_pictures_know_their_own_scale() -> None:
    record = process(data(on(item(1000), (90, 90, 90))), Recipe(size=64)).record
    assert record.content_height == pytest.approx(800, rel=0.01) and record.scale == pytest.approx(
        56 / 800, rel=0.01
    )


@pytest.mark.parametrize(
    "bad",
    [
        {"size": 0},
        {"margin": 0.6},
        {"max_upscale": 0.5},
        {"max_upscale": math.nan},
        {"max_pixels": 10**9},
        {"min_side": 0},
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(bad))):
        Recipe(**bad)
