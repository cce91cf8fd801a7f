"""Opens pictures of unknown origin as upright sRGB pixels with alpha.

Only four decoders are ever tried, sizes are judged before anything is unpacked, and a picture that is not whole
is none: a grey lower half would be learnt.
"""

import io
import struct
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from itemforge.dataset.process.recipe import Reason, Recipe, Unusable
from itemforge.imaging.scaling import Pixels

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SPACES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}


@dataclass(frozen=True)
class Opened:
    """`pixels` are height x width x RGBA, sRGB, not premultiplied."""

    pixels: Pixels
    format: str
    lossless: bool
    notes: tuple[str, ...]


def open_picture(data: bytes, recipe: Recipe) -> Opened:
    """The first frame of a picture.

    Raises:
        Unusable: it must be set aside.
    """
    if len(data) > recipe.max_bytes:
        raise Unusable(Reason.BYTES, f"{len(data)} bytes, more than {recipe.max_bytes}")
    _check_pixels(*(_webp_canvas(data) or (0, 0)), recipe)
    try:
        with _opened(data) as picture:
            _check_pixels(*picture.size, recipe)
            _check_whole(data, picture.format or "")
            picture.load()
            notes: list[str] = []
            frames = getattr(picture, "n_frames", 1)
            if frames > 1:
                notes.append(f"animated: the first of {frames} frames")
            upright = _upright(picture, _in_srgb(picture, notes), notes)
            return Opened(np.asarray(upright), _name(picture), _lossless(picture, data), tuple(notes))
    except (Unusable, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise Unusable(Reason.PIXELS, str(error)) from error
    except Exception as error:  # Pillow documents no common base
        raise Unusable(Reason.DAMAGED, f"{type(error).__name__}: {error}") from error


def _opened(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        # Of what Pillow calls a bomb the recipe judges itself; of broken metadata nothing is needed.
        warnings.simplefilter("ignore")
        try:
            return Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError as error:
            known = data.startswith((b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8")) or data[8:12] == b"WEBP"
            reason = Reason.DAMAGED if known else Reason.FORMAT
            raise Unusable(reason, "the header cannot be read" if data else "the file is empty") from error


def _check_pixels(width: int, height: int, recipe: Recipe) -> None:
    if width * height > recipe.max_pixels:
        raise Unusable(Reason.PIXELS, f"{width}x{height} pixels, more than {recipe.max_pixels}")


def _webp_canvas(data: bytes) -> tuple[int, int] | None:
    """The size of a WebP by its header: Pillow's decoder makes room for the canvas as soon as it sees one."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _check_whole(data: bytes, kind: str) -> None:
    """What Pillow lets pass: checksums of a PNG, and files of which the end is missing.

    Raises:
        Unusable, or what Pillow raises: it is not whole.
    """
    if kind == "PNG":
        with _opened(data) as picture:
            picture.verify()
    ends = {
        "PNG": b"IEND\xaeB`\x82" in data,
        "WEBP": int.from_bytes(data[4:8], "little") + 8 <= len(data),
        "JPEG": data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda"),
        "GIF": b"\x00\x3b" in data[-512:],  # some writers add a few bytes behind its end
    }
    if not ends["JPEG" if kind == "MPO" else kind]:
        raise Unusable(Reason.DAMAGED, "the end is missing")


def _name(picture: Image.Image) -> str:
    # A JPEG of several pictures (stereo, or with a preview) is a JPEG to everybody else.
    return "JPEG" if picture.format == "MPO" else picture.format or ""


def _lossless(picture: Image.Image, data: bytes) -> bool:
    return picture.format == "PNG" or (picture.format == "WEBP" and b"VP8L" in data[:64])


def _in_srgb(picture: Image.Image, notes: list[str]) -> Image.Image:
    """As RGBA, whatever it was. The profile is applied to the colours alone: alpha has none."""
    plain = _eight_bits(picture)
    alpha = plain.getchannel("A") if plain.mode in ("RGBA", "LA") else None
    if alpha is not None:
        plain = plain.convert("RGB" if plain.mode == "RGBA" else "L")
    if profile := picture.info.get("icc_profile"):
        plain = _through_profile(plain, profile, notes)
    coloured = plain.convert("RGB").convert("RGBA")
    if alpha is not None:
        coloured.putalpha(alpha)
    return coloured


def _eight_bits(picture: Image.Image) -> Image.Image:
    """The same in one of the modes L, LA, RGB, RGBA and CMYK."""
    transparent = picture.info.get("transparency")
    if picture.mode.startswith("I"):
        deep = np.asarray(picture).astype(np.int64).clip(0, 65535)
        grey = Image.fromarray(((deep * 255 + 32767) // 65535).astype(np.uint8))
        if isinstance(transparent, int):
            grey.putalpha(Image.fromarray(np.where(deep == transparent, 0, 255).astype(np.uint8)))
        return grey
    if picture.mode == "RGB" and isinstance(transparent, tuple):
        return _keyed(picture, transparent)
    if picture.mode in ("L", "1") and isinstance(transparent, int):
        grey = picture.convert("L")
        # A two-colour picture counts 0 and 1 where its pixels are 0 and 255.
        key = 255 * min(transparent, 1) if picture.mode == "1" else transparent
        grey.putalpha(Image.fromarray(np.where(np.asarray(grey) == key, 0, 255).astype(np.uint8)))
        return grey
    if picture.mode in ("L", "LA", "RGB", "RGBA", "CMYK"):
        return picture.copy()
    return picture.convert("L" if picture.mode == "1" else "RGBA")


def _keyed(picture: Image.Image, key: tuple[int, ...]) -> Image.Image:
    """One colour of it is transparent. Pillow has halved 16-bit pixels, but not their key."""
    if max(key) > 255:
        key = tuple(each >> 8 for each in key)
    pixels = np.asarray(picture)
    keyed = picture.convert("RGBA")
    keyed.putalpha(Image.fromarray(np.where((pixels == key).all(-1), 0, 255).astype(np.uint8)))
    return keyed


def _through_profile(plain: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = _SPACES.get(given.profile.xcolor_space.strip())
        if space != plain.mode and not (space == "RGB" and plain.mode == "L"):
            notes.append("colour profile ignored: it is for another kind of picture")
            return plain
        source = plain.convert(space)
        made = ImageCms.profileToProfile(source, given, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        notes.append(f"colour profile ignored: {type(error).__name__}")
        return plain
    notes.append("colour profile applied")
    return made or plain


def _upright(picture: Image.Image, pixels: Image.Image, notes: list[str]) -> Image.Image:
    try:
        turn = _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # EXIF is written by cameras; a broken one is no reason to lose the picture
        notes.append("broken EXIF ignored")
        return pixels
    if turn is None:
        return pixels
    notes.append("turned as its EXIF says")
    return pixels.transpose(turn)
