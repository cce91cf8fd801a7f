"""From a picture as drawn to one as a game takes it: file in, file out.

The same bytes and the same output give the same bytes, so a derivative may be made anywhere, and again. What changes
them changes `naming.VERSION`.
"""

from io import BytesIO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from itemforge.contract import Output
from itemforge.errors import InvalidInput
from itemforge.imaging.cutout import whiten
from itemforge.imaging.framing import framed
from itemforge.imaging.ground import find_ground
from itemforge.imaging.opening import SIGNATURE, open_png
from itemforge.imaging.png import PARAMETERS, RECIPE, recipe_texts
from itemforge.imaging.scaling import Pixels, on_white

#: The largest picture that a request may ask for is 2048 x 2048; taking one apart needs about 0.6 GB.
MAX_PIXELS = 2048 * 2048
#: A picture is cut out already if this share of it can be seen through; fewer pixels are a slip.
_TRANSPARENT = 0.001
#: Where A1111-style tools keep their parameters in a WebP, and where our JSON is: tags of Exif.
_EXIF, _USER_COMMENT, _DESCRIPTION = 0x8769, 0x9286, 0x010E


def derive(png: bytes, output: Output) -> bytes:
    """The file that `output` asks for, with the recipe of the picture that it was made from.

    Raises:
        InvalidInput: not a PNG, too large, or not to be taken off its background.
    """
    return encode(derive_pixels(png, output), output, recipe_texts(png))


def derive_pixels(png: bytes, output: Output) -> Pixels:
    """The same as pixels: RGBA on a transparent background, RGB on a white one.

    Raises:
        InvalidInput: as `derive`.
    """
    pixels = framed(cut_out(np.asarray(open_png(png, "RGBA", MAX_PIXELS)), output), output)
    return on_white(pixels) if output.background == "white" else pixels


def cut_out(pixels: Pixels, output: Output) -> Pixels:
    """RGBA pixels without their plain ground; what came with alpha keeps its own.

    Raises:
        InvalidInput: the ground is not plain.
    """
    if (pixels[..., 3] < 250).mean() >= _TRANSPARENT:
        return pixels
    colours = on_white(pixels)
    ground = find_ground(colours)
    if ground is None:
        raise InvalidInput(
            "the picture's background is not plain, so it cannot be taken off; draw it again with a plain "
            "background, or take the picture as it was drawn"
        )
    return whiten(colours, ground, output.holes).pixels


def encode(pixels: Pixels, output: Output, texts: dict[str, str]) -> bytes:
    """A file of RGB or RGBA pixels; `texts` as `recipe_texts` gives them."""
    image, file = Image.fromarray(np.ascontiguousarray(pixels)), BytesIO()
    if output.format == "png":
        info = PngInfo()
        for keyword, text in texts.items():
            info.add_text(keyword, text)
        image.save(file, "PNG", pnginfo=info, compress_level=6)
    else:
        # Exact: or the colours under transparency would be thrown away, and fringes would come back.
        image.save(file, "WEBP", lossless=True, exact=True, method=4, exif=_exif(texts))
    return file.getvalue()


def _exif(texts: dict[str, str]) -> bytes:
    exif = Image.Exif()
    if PARAMETERS in texts:
        exif[_EXIF] = {_USER_COMMENT: b"UNICODE\0" + texts[PARAMETERS].encode("utf-16-be")}
    if RECIPE in texts:
        exif[_DESCRIPTION] = texts[RECIPE]
    return exif.tobytes() if texts else b""


def recipe_json(data: bytes) -> str | None:
    """The recipe in a PNG or WebP that `encode` made; None if there is none.

    Raises:
        InvalidInput: it is no such picture.
    """
    if data.startswith(SIGNATURE):
        return recipe_texts(data).get(RECIPE)
    try:
        with Image.open(BytesIO(data), formats=("WEBP",)) as image:
            text = image.getexif().get(_DESCRIPTION)
    except Exception as error:  # Pillow documents no common base
        raise InvalidInput(f"this is no WebP picture ({type(error).__name__})") from None
    return text if isinstance(text, str) else None
