"""PNG files that carry their recipe.

Writing is deterministic: the same pixels and recipe give the same bytes. Reading walks the chunks itself
instead of decoding a picture, so a hostile file costs no more than its own length.
"""

import struct
import zlib
from collections.abc import Collection, Iterator
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from itemforge.errors import InvalidInput
from itemforge.imaging.opening import SIGNATURE
from itemforge.imaging.recipe import Recipe

if TYPE_CHECKING:  # reading needs no numpy, so neither gateways nor clients do
    import numpy as np
    from numpy.typing import NDArray

#: Keyword of the text that A1111-style tools read.
PARAMETERS = "parameters"
#: Keyword of our JSON.
RECIPE = "itemforge"
#: A recipe's JSON with the longest prompts in escaped form stays below this (bytes).
MAX_RECIPE = 256 * 1024
MAX_CHUNKS = 100_000


def encode_png(pixels: "NDArray[np.uint8]", recipe: Recipe) -> bytes:
    """A PNG of `pixels` (uint8, height x width x 3) with its recipe.

    Raises:
        ValueError: the pixels have another shape or type.
    """
    import numpy as np

    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"expected uint8 pixels of height x width x 3, got {pixels.dtype} {pixels.shape}")
    info = PngInfo()
    info.add_text(PARAMETERS, recipe.parameters_text())  # becomes iTXt when it does not fit Latin-1
    info.add_text(RECIPE, recipe.to_json())
    out = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "PNG", pnginfo=info, compress_level=6)
    return out.getvalue()


def read_recipe(data: bytes) -> Recipe:
    """The recipe inside a PNG.

    Raises:
        InvalidInput: not a PNG, a damaged one, or one without our recipe.
    """
    for _, text in _texts(data, (RECIPE,)):
        return Recipe.from_json(text)
    raise InvalidInput("this PNG carries no ItemForge recipe; it was not made here, or a tool removed it")


def recipe_texts(data: bytes) -> dict[str, str]:
    """What a PNG says of its recipe, as it stands there: `PARAMETERS` and `RECIPE`, where they are.

    Raises:
        InvalidInput: not a PNG, or a damaged one.
    """
    found: dict[str, str] = {}
    for keyword, text in _texts(data, (PARAMETERS, RECIPE)):
        try:
            found.setdefault(keyword, text.decode())
        except UnicodeDecodeError:
            found.setdefault(keyword, text.decode("latin-1"))  # what tEXt is in
    return found


def _texts(data: bytes, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    for kind, body in _chunks(data):
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            keyword, _, rest = body.partition(b"\0")
            if (name := keyword.decode("latin-1")) in wanted:
                yield name, _text(kind, rest)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and body of each chunk; only text chunks are checked, pixels are passed over."""
    if not data.startswith(SIGNATURE):
        raise InvalidInput("this is not a PNG file")
    at = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if at + 12 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            break
        if kind == b"IEND":
            return
        if kind.endswith(b"Xt"):
            body = data[at + 8 : end]
            if zlib.crc32(kind + body) != struct.unpack_from(">I", data, end)[0]:
                raise InvalidInput("this PNG is damaged: a text chunk has a wrong checksum")
            yield kind, body
        at = end + 4
    raise InvalidInput("this PNG is damaged: it is cut off before its end")


def _text(kind: bytes, rest: bytes) -> bytes:
    """The text of a chunk whose keyword is taken off; tools that rewrite a PNG may have compressed it."""
    compressed = kind == b"zTXt"
    if kind == b"zTXt":
        rest = rest[1:]
    elif kind == b"iTXt":
        compressed = rest[:1] == b"\x01"
        rest = rest[2:].split(b"\0", 2)[-1]
    if compressed:
        inflater = zlib.decompressobj()
        try:
            rest = inflater.decompress(rest, MAX_RECIPE + 1)
        except zlib.error:
            raise InvalidInput("this PNG is damaged: its recipe cannot be decompressed") from None
    if len(rest) > MAX_RECIPE:
        raise InvalidInput(f"the recipe in this PNG is larger than {MAX_RECIPE} bytes; it is not ours")
    return rest
