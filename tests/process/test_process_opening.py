"""Every kind of file comes to the same upright sRGB pixels; what is no whole picture is set aside with a reason."""

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from item_pictures import RED, apart, data, item, on, thing
from PIL import Image, ImageCms

from itemforge.dataset.process.opening import open_picture
from itemforge.dataset.process.picture import process
from itemforge.dataset.process.recipe import Reason, Recipe, State, Unusable

RECIPE = Recipe(size=128, min_side=8)


def _opened(bytes_: bytes) -> Image.Image:
    return Image.fromarray(open_picture(bytes_, RECIPE).pixels)


def _palette(image: Image.Image) -> Image.Image:
    """With one wholly transparent entry, as GIF has it."""
    return image.quantize(255)


def _png(width: int, height: int, depth: int, kind: int, rows: bytes, extra: bytes = b"") -> bytes:
    """Kinds of PNG that Pillow does not write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


KINDS: dict[str, Callable[[Image.Image], bytes]] = {
    "png": lambda i: data(i),
    "palette png": lambda i: data(_palette(i)),
    "gif": lambda i: data(_palette(i), "GIF"),
    "webp": lambda i: data(i, "WEBP", quality=95),
    "lossless webp": lambda i: data(i, "WEBP", lossless=True),
    "animated webp": lambda i: data(i, "WEBP", save_all=True, append_images=[i.rotate(90)], lossless=True),
    "animated png": lambda i: data(i, save_all=True, append_images=[i.rotate(90)]),
    "animated gif": lambda i: data(_palette(i), "GIF", save_all=True, append_images=[_palette(i.rotate(90))]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_out_comes_to_the_same_from_every_kind_of_file(kind: str) -> None:
    image = item()
    if "gif" in kind:
        image.putalpha(image.getchannel("A").point(lambda a: 255 * (a > 127)))
    made = process(KINDS[kind](image), Recipe())
    assert made.record.state is State.OK and made.picture is not None
    assert ("animated: the first of 2 frames" in made.record.notes) == kind.startswith("animated")
    wanted = process(data(image), Recipe()).picture
    assert wanted is not None and apart(made.picture, wanted) < 1.5


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_an_opaque_picture_comes_to_the_same_from_every_kind_of_file(kind: str) -> None:
    picture = on(item(), (255, 255, 255))
    made = process(data(picture, kind, **({"quality": 92} if kind in ("JPEG", "WEBP") else {})), Recipe())
    wanted = process(data(item()), Recipe()).picture
    assert made.record.state is State.OK and made.picture is not None and wanted is not None
    assert apart(made.picture, wanted) < 2.5


def test_grey_with_alpha() -> None:
    opened = _opened(data(item(colour=(90, 90, 90)).convert("LA")))
    assert np.asarray(opened)[100, 60].tolist() == [90, 90, 90, 255]
    assert np.asarray(opened)[0, 0, 3] == 0


def test_16_bit_grey_keeps_its_shades() -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    opened = np.asarray(_opened(data(Image.fromarray(ramp))))
    assert np.abs(opened[..., 0].astype(int) - np.rint(ramp / 257)).max() <= 1
    assert (opened[..., 3] == 255).all()


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_16_bit_colours_and_alpha(kind: int, channels: int) -> None:
    values = np.random.default_rng(kind).integers(0, 65536, (20, 30, channels)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    opened = np.asarray(_opened(_png(30, 20, 16, kind, rows)))
    rgb = values[..., [0, 0, 0]] if channels == 2 else values[..., :3]
    assert np.abs(opened[..., :3] - rgb / 257).max() <= 1
    assert np.abs(opened[..., 3] - (values[..., -1] / 257 if channels != 3 else 255)).max() <= 1


@pytest.mark.parametrize(
    ("depth", "kind", "key"),
    [(16, 0, (40000,)), (8, 2, (1, 2, 3)), (16, 2, (256, 512, 800)), (8, 0, (9,)), (1, 0, (1,))],
)
def test_one_colour_of_a_png_may_be_transparent(depth: int, kind: int, key: tuple[int, ...]) -> None:
    other = 0 if depth == 1 else 200
    if depth == 1:
        rows = b"\0\x80" * 8
    else:
        type_ = ">u2" if depth == 16 else "u1"
        pixels = np.full((8, 8, len(key)), other, type_)
        pixels[:, 0] = key
        rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    body = struct.pack(f">{len(key)}H", *key)
    chunk = struct.pack(">I", len(body)) + b"tRNS" + body + struct.pack(">I", zlib.crc32(b"tRNS" + body))
    alpha = np.asarray(_opened(_png(8, 8, depth, kind, rows, chunk)))[..., 3]
    assert (alpha[:, 0] == 0).all() and (alpha[:, 1:] == 255).all()


def test_cmyk_jpeg_is_not_inverted() -> None:
    opened = np.asarray(_opened(data(on(item(), (255, 255, 255)).convert("CMYK"), "JPEG", quality=95)))
    assert opened[2, 2, :3].min() > 250, "white stays white"
    assert np.abs(opened[100, 60, :3].astype(int) - RED).max() < 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_pictures_are_turned_as_their_exif_says(kind: str, turn: int) -> None:
    upright = on(thing(3, 96), (255, 255, 255)).crop((0, 0, 96, 64))
    # How a camera that was held so would have stored it.
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(back[turn]) if turn in back else upright
    exif = Image.Exif()
    exif[0x0112] = turn
    lossy = {} if kind == "PNG" else {"quality": 95}
    opened = _opened(data(stored, kind, exif=exif.tobytes(), **lossy))
    assert opened.size == (96, 64) and apart(opened.convert("RGB"), upright) < 4


def test_broken_exif_is_ignored() -> None:
    whole = data(on(item(), (255, 255, 255)), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert open_picture(whole, RECIPE).pixels.shape == (200, 200, 4)


def _profile(space: str = "RGB") -> bytes:
    """A profile whose red and green stand in each other's place; Pillow makes none but sRGB and Lab."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", made, 128)[0]
    tags = {bytes(made[132 + 12 * n : 136 + 12 * n]): 132 + 12 * n for n in range(count)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    made[red : red + 4], made[green : green + 4] = b"gXYZ", b"rXYZ"
    made[16:20] = space.encode().ljust(4)
    return bytes(made)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_colour_profile_is_applied_and_dropped(kind: str) -> None:
    picture = on(item(), (255, 255, 255))
    made = process(
        data(picture, kind, icc_profile=_profile(), **({} if kind == "PNG" else {"quality": 95})), Recipe()
    )
    assert "colour profile applied" in made.record.notes and made.picture is not None
    middle = np.asarray(made.picture)[256, 100].astype(int)
    assert np.abs(middle - (RED[1], RED[0], RED[2])).max() <= 8, "red and green changed places"
    assert "icc_profile" not in made.picture.info and made.cutout is not None and not made.cutout.info


def test_a_colour_profile_leaves_alpha_alone() -> None:
    opened = open_picture(data(item(), icc_profile=_profile()), RECIPE)
    assert (opened.pixels[..., 3] == np.asarray(item())[..., 3]).all()
    assert np.abs(opened.pixels[100, 60, :3].astype(int) - (RED[1], RED[0], RED[2])).max() <= 2


@pytest.mark.parametrize("profile", [b"no profile at all", _profile("CMYK")])
def test_a_profile_that_cannot_be_used_is_ignored_and_noted(profile: bytes) -> None:
    opened = open_picture(data(item(), icc_profile=profile), RECIPE)
    assert any(note.startswith("colour profile ignored") for note in opened.notes)
    assert opened.pixels[100, 60].tolist() == [*RED, 255]


def _reason(bytes_: bytes, recipe: Recipe = RECIPE) -> Reason:
    made = process(bytes_, recipe)
    assert made.record.state is State.ASIDE and made.picture is None and made.record.reason is not Reason.BUG
    return made.record.reason


@pytest.mark.parametrize(
    ("bytes_", "reason"),
    [
        (b"", Reason.FORMAT),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", Reason.FORMAT),
        (data(on(item(), RED), "BMP"), Reason.FORMAT),
        (data(on(item(), RED), "TIFF"), Reason.FORMAT),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, Reason.DAMAGED),
        (data(Image.new("RGBA", (64, 64), (9, 9, 9, 0))), Reason.BLANK),
        (data(Image.new("RGBA", (64, 64), (9, 9, 9, 130))), Reason.BLANK),
        (data(Image.new("RGB", (64, 64), RED)), Reason.BLANK),
        (data(Image.new("RGB", (64, 64), RED), "JPEG"), Reason.BLANK),
        (data(item(colour=(255, 255, 255))), Reason.BLANK),
        (data(Image.new("RGB", (1, 1))), Reason.TINY),
        (data(item(6)), Reason.TINY),
        (data(thing(1).resize((6, 6)), "PNG"), Reason.TINY),
    ],
)
def test_what_is_no_picture_of_use_is_set_aside_with_its_reason(bytes_: bytes, reason: Reason) -> None:
    assert _reason(bytes_) is reason


def test_too_many_pixels_are_not_decoded() -> None:
    rows = b""  # no pixel at all: had anybody tried to decode it, it would be damaged
    assert _reason(_png(60000, 60000, 8, 6, rows)) is Reason.PIXELS
    canvas = struct.pack("<I", 16000)[:3]
    webp = b"VP8X" + struct.pack("<I", 10) + b"\x10\0\0\0" + canvas + canvas + b"VP8L" + b"\0" * 20
    assert _reason(b"RIFF" + struct.pack("<I", len(webp) + 4) + b"WEBP" + webp) is Reason.PIXELS
    assert _reason(data(item(100)), Recipe(max_pixels=9_999)) is Reason.PIXELS
    for kind in ("GIF", "JPEG", "WEBP"):
        assert _reason(data(on(item(100), RED), kind), Recipe(max_pixels=9_999)) is Reason.PIXELS
    assert _reason(data(on(item(100), RED), "WEBP", lossless=True), Recipe(max_pixels=9_999)) is Reason.PIXELS


def test_too_large_a_file_is_not_decoded() -> None:
    assert _reason(b"\0" * 1001, Recipe(max_bytes=1000)) is Reason.BYTES


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "progressive JPEG", "animated WEBP"])
def test_a_file_that_was_cut_off_is_set_aside_wherever_that_was(kind: str) -> None:
    options = {
        "progressive": {"progressive": True},
        "animated": {"save_all": True, "append_images": [thing(4)]},
    }
    *extra, name = kind.split()
    whole = data(on(thing(3), (250, 250, 250)), name, **(options[extra[0]] if extra else {}))
    assert process(whole, RECIPE).record.made
    for at in [*range(1, len(whole), max(1, len(whole) // 60)), len(whole) - 1]:
        assert _reason(whole[:at]) in (Reason.DAMAGED, Reason.FORMAT), at


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]), st.data())
def test_no_bytes_make_it_raise(kind: str, draw: st.DataObject) -> None:
    bytes_ = bytearray(data(on(thing(5, 40), (250, 250, 250)), kind))
    for _ in range(draw.draw(st.integers(1, 6))):
        bytes_[draw.draw(st.integers(0, len(bytes_) - 1))] = draw.draw(st.integers(0, 255))
    process(bytes(bytes_), RECIPE)


def test_damage_that_only_a_checksum_shows_is_damage() -> None:
    bytes_ = bytearray(data(thing(2)))
    bytes_[-30] ^= 1
    with pytest.raises(Unusable) as caught:
        open_picture(bytes(bytes_), RECIPE)
    assert caught.value.reason is Reason.DAMAGED


def test_pixels_have_one_name_whatever_packs_them() -> None:
    names = {process(b, RECIPE).record.pixels for b in (data(item()), data(item(), "WEBP", lossless=True))}
    names.add(process(data(item(hidden=(77, 1, 2))), RECIPE).record.pixels)
    assert len(names) == 1 and process(data(item(colour=(1, 2, 3))), RECIPE).record.pixels not in names


def test_another_recipe_has_another_key() -> None:
    assert len({Recipe().key, Recipe(size=256).key, Recipe(margin=0.1).key, Recipe(max_upscale=3).key}) == 4
    assert Recipe().key == Recipe().key
