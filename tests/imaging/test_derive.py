"""From a picture on white to one that a game takes."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from itemforge.contract import Holes, Output, Scheduler
from itemforge.errors import InvalidInput
from itemforge.imaging.derive import MAX_PIXELS, derive, derive_pixels, recipe_json
from itemforge.imaging.naming import derivative_key
from itemforge.imaging.png import encode_png
from itemforge.imaging.recipe import Recipe

RED, LINE = (200, 30, 40), (20, 20, 24)


def recipe(**fields: Any) -> Recipe:
    told = {
        "prompt": "a «cup»",
        "negative_prompt": "",
        "steps": 2,
        "sampler": Scheduler.DDIM,
        "guidance": 7.5,
        "seed": 7,
        "width": 256,
        "height": 256,
        "base": "a" * 64,
        "model": "starter",
    }
    return Recipe(**{**told, **fields})


def cup(side: int = 256, ground: tuple[int, int, int] = (255, 255, 255)) -> np.ndarray:
    """A red cup with an outline, a handle with a hole, and a white label within a blue frame."""
    big = Image.new("RGB", (4 * side, 4 * side), ground)
    pen = ImageDraw.Draw(big)
    unit = side / 64

    def box(*places: float) -> tuple[float, ...]:
        return tuple(place * unit for place in places)

    pen.ellipse(box(140, 88, 220, 168), fill=RED, outline=LINE, width=round(4 * unit))
    pen.ellipse(box(160, 108, 200, 148), fill=ground, outline=LINE, width=round(4 * unit))
    pen.rounded_rectangle(box(48, 64, 172, 200), 16 * unit, fill=RED, outline=LINE, width=round(4 * unit))
    pen.rectangle(box(68, 100, 140, 164), fill=(40, 60, 160))
    pen.rectangle(box(80, 112, 128, 152), fill=(255, 255, 255))
    return np.asarray(big.resize((side, side), Image.Resampling.BOX))


def png(pixels: np.ndarray, **fields: Any) -> bytes:
    return encode_png(pixels, recipe(**fields))


def transparent(**fields: Any) -> Output:
    return Output(background="transparent", **fields)


HOLE, LABEL, OUTSIDE, BODY = (32, 46), (33, 26), (4, 4), (24, 14)


def at(pixels: np.ndarray, place: tuple[int, int]) -> int:
    """Alpha at a place in 64ths."""
    side = pixels.shape[0]
    return int(pixels[place[0] * side // 64, place[1] * side // 64, 3])


@pytest.mark.parametrize("side", [64, 256, 512])
@pytest.mark.parametrize(
    ("holes", "hole", "label"), [(Holes.GUESS, 0, 255), (Holes.CUT, 0, 0), (Holes.KEEP, 255, 255)]
)
def test_a_handles_hole_and_white_paint(side: int, holes: Holes, hole: int, label: int) -> None:
    made = derive_pixels(png(cup(side)), transparent(holes=holes))
    assert made.shape == (side, side, 4)
    assert (at(made, HOLE), at(made, LABEL)) == (hole, label)
    assert (at(made, OUTSIDE), at(made, BODY)) == (0, 255)


@pytest.mark.parametrize("ground", [(255, 255, 255), (250, 250, 247)])
def test_no_white_rim_stays_and_the_outline_does(ground: tuple[int, int, int]) -> None:
    picture = cup(256, ground)
    made = derive_pixels(png(picture), transparent(holes=Holes.CUT)).astype(int)
    dark = (made[..., :3] * made[..., 3:] + 40 * (255 - made[..., 3:])) // 255
    # On dark nothing along the border of the item may be lighter than the item itself.
    solid = made[..., 3] == 255
    rim = (made[..., 3] > 8) & ~solid
    assert rim.sum() > 300, "a soft edge"
    assert dark[rim][:, 1].max() < 90, "the ground's white is out of the mixed pixels"
    outline = (np.abs(picture.astype(int) - LINE).max(-1) < 6) & (np.indices((256, 256)).sum(0) > 0)
    assert made[..., 3][outline].min() == 255
    assert (made[..., :3][outline] == picture[outline]).all(), "what is whole is left as it was"


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(64, 1024),
    trim=st.booleans(),
    share=st.integers(4, 40),
    wide=st.booleans(),
    background=st.sampled_from(["white", "transparent"]),
)
def test_the_size_is_exact_and_the_item_in_the_middle(
    size: int, trim: bool, share: int, wide: bool, background: str
) -> None:
    pad = min(256, size // share)
    picture = np.full((60 if wide else 100, 100, 3), 255, np.uint8)
    picture[10:40, 20:50] = RED
    made = derive_pixels(png(picture), Output(background=background, size=size, trim=trim, pad=pad))
    assert made.shape == (size, size, 4 if background == "transparent" else 3)
    seen = made[..., 3] > 8 if background == "transparent" else (made < 250).any(-1)
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    assert min(rows[0], columns[0]) >= pad and max(rows[-1], columns[-1]) < size - pad
    if trim:
        assert abs(rows[0] - (size - 1 - rows[-1])) <= 2 and abs(columns[0] - (size - 1 - columns[-1])) <= 2
        assert rows[-1] - rows[0] + 1 == pytest.approx(size - 2 * pad, abs=2)
    if background == "white":
        assert (made[0] == 255).all() and (made[-1] == 255).all()


def test_without_a_size_the_scale_stays() -> None:
    picture = np.full((80, 100, 3), 255, np.uint8)
    picture[10:40, 20:50] = RED
    assert derive_pixels(png(picture), Output()).shape == (80, 100, 3)
    assert derive_pixels(png(picture), Output(pad=5)).shape == (90, 110, 3)
    assert derive_pixels(png(picture), transparent(trim=True)).shape == (30, 30, 4)
    assert derive_pixels(png(picture), transparent(trim=True, pad=3)).shape == (36, 36, 4)


def test_an_off_white_ground_becomes_white() -> None:
    made = derive_pixels(png(cup(256, (243, 245, 240))), Output())
    assert (made[0] == 255).all() and (made[:, 0] == 255).all()


@pytest.mark.parametrize("kind", ["png", "webp"])
@pytest.mark.parametrize("background", ["white", "transparent"])
def test_a_file_has_the_pixels_and_the_recipe(kind: str, background: str) -> None:
    source, output = png(cup(128), prompt="ein Krug, 壺"), Output(background=background, format=kind)
    data = derive(source, output)
    assert data == derive(source, output)
    with Image.open(io.BytesIO(data)) as made:
        assert made.format == kind.upper()
        assert (np.asarray(made) == derive_pixels(source, output)).all()
        if kind == "webp":
            comment = made.getexif().get_ifd(0x8769)[0x9286]
            assert comment.startswith(b"UNICODE\0")
            assert comment[8:].decode("utf-16-be").startswith("ein Krug, 壺\nSteps: 2")
        else:
            assert made.info["parameters"].startswith("ein Krug, 壺\nSteps: 2")
    assert Recipe.from_json(recipe_json(data) or "") == recipe(prompt="ein Krug, 壺")


def test_a_picture_without_a_recipe_gets_none() -> None:
    file = io.BytesIO()
    Image.fromarray(cup(64)).save(file, "PNG")
    for kind in ("png", "webp"):
        assert recipe_json(derive(file.getvalue(), Output(format=kind))) is None


def test_alpha_that_came_with_the_picture_is_kept() -> None:
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[16:48, 16:48] = (255, 255, 255, 90)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    made = derive_pixels(file.getvalue(), transparent())
    assert (made[..., 3] == pixels[..., 3]).all()


def test_what_cannot_be_done_is_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    with pytest.raises(InvalidInput, match="not plain"):
        derive(png(noise), transparent())
    with pytest.raises(InvalidInput, match="empty"):
        derive(png(np.full((64, 64, 3), 255, np.uint8)), transparent(trim=True))
    with pytest.raises(InvalidInput, match="more than"):
        derive(png(np.zeros((1, MAX_PIXELS + 1, 3), np.uint8)), Output())
    with pytest.raises(InvalidInput, match="not a PNG"):
        derive(b"GIF89a", Output())
    for junk in (b"", b"RIFF____WEBP", b"\x89PNG\r\n\x1a\n"):
        with pytest.raises(InvalidInput):
            recipe_json(junk)


def test_each_form_has_a_key_of_its_own() -> None:
    from uuid import UUID

    name = UUID(int=5)
    forms = [Output(), Output(size=64), Output(size=65), transparent(), Output(format="webp"), Output(pad=1)]
    keys = {derivative_key(name, 0, form) for form in forms}
    assert len(keys) == len(forms)
    assert derivative_key(name, 0, Output(background="white")) == derivative_key(name, 0, Output())
