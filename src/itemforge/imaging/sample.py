"""What a style looks like, on one small picture: up to four of its items, or a mark where none is known."""

import colorsys
import hashlib
import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFilter

from itemforge.imaging.opening import open_png

#: Width and height of the picture in pixels.
SIDE = 256
MEDIA_TYPE = "image/webp"
_QUALITY = 88


def sample_sheet(pngs: Sequence[bytes]) -> bytes:
    """A WebP of one item, or of the first four two by two; an item alone or with one or two others fills it.

    Raises:
        ValueError: there are no pictures.
        InvalidInput: bytes that are no PNG.
    """
    if not pngs:
        raise ValueError("a sample needs at least one picture")
    shown = pngs[:4] if len(pngs) >= 4 else pngs[:1]
    side = SIDE // 2 if len(shown) == 4 else SIDE
    sheet = Image.new("RGB", (SIDE, SIDE), "white")
    for n, data in enumerate(shown):
        item = open_png(data, "RGBA")
        # Also larger than it was drawn: soft is better than the browser's guess.
        scale = side / max(item.size)
        size = (max(1, round(item.width * scale)), max(1, round(item.height * scale)))
        item = item.resize(size, Image.Resampling.LANCZOS)
        left, top = n % 2 * side + (side - item.width) // 2, n // 2 * side + (side - item.height) // 2
        sheet.paste(item, (left, top), item)
    return _webp(sheet)


def placeholder(name: str) -> bytes:
    """A WebP for a style without pictures: soft spots, whose colours and places follow from its name."""
    noise = hashlib.sha256(name.encode()).digest()
    hue = noise[0] / 255
    sheet = Image.new("RGB", (SIDE, SIDE), _colour(hue, 0.35, 0.93))
    pen = ImageDraw.Draw(sheet)
    for n in range(3):
        x, y, size = (noise[1 + 3 * n + place] for place in range(3))
        radius = 40 + size // 4
        box = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(box, fill=_colour(hue + 0.08 * (n + 1), 0.5, 0.9))
    return _webp(sheet.filter(ImageFilter.GaussianBlur(22)))


def _colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _webp(sheet: Image.Image) -> bytes:
    out = io.BytesIO()
    sheet.save(out, "WEBP", quality=_QUALITY, method=6)
    return out.getvalue()
