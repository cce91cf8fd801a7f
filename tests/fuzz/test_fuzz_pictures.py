"""Hostile PNG files: whatever opens one says what is wrong with it, soon, and in little memory."""

import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from rig import picture, png, running, settings_for
from size import SEED, count, dice

from itemforge.contract import Scheduler
from itemforge.errors import InvalidInput
from itemforge.imaging import opening
from itemforge.imaging.opening import open_png, read_file
from itemforge.imaging.png import SIGNATURE, encode_png, read_recipe
from itemforge.imaging.recipe import Recipe
from itemforge.imaging.sheet import contact_sheet

RECIPE = Recipe("a key", "", 5, Scheduler.DDIM, 4.0, 7, 64, 64, "ab" * 32, "starter")
GOOD = encode_png(np.zeros((64, 64, 3), np.uint8), RECIPE)
BOMB = zlib.compress(b"a" * 100_000_000)
END = b"\0\0\0\0IEND\xaeB`\x82"
#: Bytes that a refusal may take, the file's own apart.
MEMORY = 30_000_000


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def header(width: int, height: int, bits: int = 8, colour: int = 2) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))


def file(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks) + END


def _text(kind: bytes, body: bytes) -> bytes:
    return file(header(1, 1), chunk(kind, b"itemforge\0" + body))


NO_RECIPE = {
    "compressed text that unpacks to 100 MB": _text(b"zTXt", b"\0" + BOMB),
    "international text that does": _text(b"iTXt", b"\1\0\0\0" + BOMB),
    "a text that is too long": _text(b"tEXt", b" " * 300_000),
    "a text that is not what it says": _text(b"zTXt", b"\0not compressed"),
    "a text chunk that ends in its head": _text(b"iTXt", b""),
    "nested JSON": _text(b"tEXt", b"[" * 200_000),
    "a number of 100,000 digits": _text(b"tEXt", b'{"format": 1, "seed": ' + b"9" * 100_000 + b"}"),
    "numbers that are none": _text(b"tEXt", RECIPE.to_json().replace("4.0", "NaN").encode()),
    "a lone surrogate": _text(b"tEXt", RECIPE.to_json().replace("a key", "\\ud800").encode()),
    "a NUL in the prompt": _text(b"tEXt", RECIPE.to_json().replace("a key", "\\u0000").encode()),
    "a side of 2^31": _text(b"tEXt", RECIPE.to_json().replace("64", str(2**31)).encode()),
    "a LoRA named by a path": _text(
        b"tEXt", RECIPE.to_json().replace('"loras": []', '"loras": [{"sha256": "../../x", "weight": 1}]').encode()
    ),
    "a wrong checksum": GOOD.replace(b"a key", b"a kex"),
    "a chunk longer than the file": SIGNATURE + struct.pack(">I4s", 2**32 - 1, b"tEXt"),
    "100,000 empty chunks": SIGNATURE + chunk(b"tEXt", b"") * 100_000 + END,
    "parameters of another tool alone": file(header(1, 1), chunk(b"tEXt", b"parameters\0a key\nSteps: 5")),
    "nothing": b"",
    "a signature alone": SIGNATURE,
}  # fmt: skip


@pytest.mark.parametrize("what", NO_RECIPE)
def test_a_forged_recipe_is_refused(what: str) -> None:
    assert _peak(lambda: _refused(lambda: read_recipe(NO_RECIPE[what]))) < MEMORY


def _pixels(width: int, height: int, data: bytes) -> bytes:
    return file(header(width, height), chunk(b"IDAT", zlib.compress(data)))


def _of_another_format(name: str) -> bytes:
    out = BytesIO()
    Image.new("RGB", (16, 16)).save(out, name)
    return out.getvalue()


NO_PICTURE = {
    "60000 x 60000 pixels": _pixels(60_000, 60_000, b""),
    "10000 x 10000 pixels, of which Pillow only warns": _pixels(10_000, 10_000, b""),
    "one pixel high and 4 billion wide": _pixels(2**32 - 1, 1, b""),
    "no pixels at all": _pixels(0, 0, b""),
    "pixels cut off": GOOD[:200],
    "fewer pixels than it says": _pixels(64, 64, b"\0" * 100),
    "pixels that are not compressed": file(header(8, 8), chunk(b"IDAT", b"\xff" * 50)),
    "a compressed text of 100 MB": file(header(1, 1), chunk(b"zTXt", b"a\0\0" + BOMB), chunk(b"IDAT", BOMB[:9])),
    "a colour profile of 100 MB": file(header(1, 1), chunk(b"iCCP", b"a\0\0" + BOMB), chunk(b"IDAT", BOMB[:9])),
    "a kind of colour that does not exist": file(header(8, 8, colour=5), chunk(b"IDAT", zlib.compress(b"\0" * 99))),
    "a header in the wrong place": SIGNATURE + chunk(b"IDAT", zlib.compress(b"\0")) + header(8, 8) + END,
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
    "TIFF": _of_another_format("TIFF"),
    "WEBP": _of_another_format("WEBP"),
    "a page": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("what", NO_PICTURE)
def test_a_file_that_is_no_sound_png_is_not_opened(what: str) -> None:
    data = NO_PICTURE[what]
    assert _peak(lambda: _refused(lambda: open_png(data, "RGB"))) < MEMORY
    _refused(lambda: contact_sheet([(GOOD, "good"), (data, "hostile")]))


def _refused(call: Callable[[], object]) -> None:
    with pytest.raises(InvalidInput) as error:
        call()
    assert len(str(error.value)) < 1000


def _peak(call: Callable[[], None]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_mutated_picture_is_read_or_refused() -> None:
    random = dice("pictures")
    outcomes = {True: 0, False: 0}
    for _ in range(count(300, 20_000)):
        data = bytearray(GOOD)
        match random.randrange(3):
            case 0:
                for _ in range(random.choice((1, 2, 16))):
                    data[random.randrange(len(data))] = random.randrange(256)
            case 1:
                del data[random.randrange(len(data)) :]
            case 2:
                at = random.randrange(len(data))
                data[at:at] = random.randbytes(random.choice((1, 12, 300)))
        for read in (read_recipe, lambda d: open_png(d, "RGBA")):
            try:
                read(bytes(data))
            except InvalidInput:
                outcomes[False] += 1
            else:
                outcomes[True] += 1
    assert all(outcomes.values()), outcomes


_kinds = st.sampled_from(
    [b"tEXt", b"zTXt", b"iTXt", b"IDAT", b"PLTE", b"tRNS", b"IHDR", b"eXIf", b"acTL", b"fdAT"]
)
_bodies = st.one_of(
    st.binary(max_size=60),
    st.binary(max_size=60).map(lambda rest: b"itemforge\0" + rest),
    st.text(max_size=40).map(lambda text: b"itemforge\0" + text.encode("utf-8", "replace")),
)


@pytest.mark.filterwarnings("ignore:Invalid APNG:UserWarning")
@seed(SEED)
@settings(max_examples=count(100, 5000), deadline=None, database=None)
@given(st.lists(st.tuples(_kinds, _bodies), max_size=6), st.binary(max_size=20))
def test_chunks_in_any_order_are_read_or_refused(chunks: list[tuple[bytes, bytes]], tail: bytes) -> None:
    data = SIGNATURE + header(4, 4) + b"".join(chunk(kind, body) for kind, body in chunks) + tail + END
    for read in (read_recipe, lambda d: open_png(d, "RGB")):
        try:
            read(data)
        except InvalidInput:
            continue


async def test_hostile_objects_in_the_store_spoil_no_other_thumbnail(tmp_path: Path) -> None:
    async with running(settings_for(f"sqlite+aiosqlite:///{tmp_path / 'x.db'}", tmp_path)) as rig:
        for data in NO_PICTURE.values():
            request_id = (await rig.submit())["id"]
            attempt = (await rig.claim(request_id))["attempt"]
            await rig.store.put(picture(request_id, rig.store)["key"], data, "image/png")
            assert await rig.report(request_id, attempt) == 200
            answer = await rig.http.get(f"/v1/generations/{request_id}/thumbnail")
            assert answer.status_code == 422, answer.text
            master = await rig.http.get(f"/v1/generations/{request_id}/image")
            assert master.headers["content-type"] == "image/png"  # never as what a browser would run
            assert master.headers["x-content-type-options"] == "nosniff"
        good = (await rig.submit())["id"]
        await rig.draw(good)
        assert (await rig.http.get(f"/v1/generations/{good}/thumbnail")).status_code == 200
        assert len(png()) < opening.MAX_FILE


def test_a_file_that_never_ends_or_is_none_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "huge.png").open("wb") as huge:
        huge.truncate(opening.MAX_FILE + 1)
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    hostile = ("pipe.png", "huge.png", "circle.png", "none.png", ".", "\0.png", "n" * 300)
    for path in (*(tmp_path / name for name in hostile), Path("/dev/zero")):
        _refused(lambda path=path: read_file(path))
    (tmp_path / "good.png").write_bytes(GOOD)
    assert read_recipe(read_file(tmp_path / "good.png")) == RECIPE
