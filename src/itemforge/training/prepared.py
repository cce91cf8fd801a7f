"""A picture as training sees it: on white, square, at the model's size, with its mask if it has one.

What is transparent becomes white, whatever colour lies hidden there; the aspect is kept by a white border. Every picture is
known by the sha256 of its file and the recipe, so what was made of it can be kept.
"""

import hashlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from itemforge.dataset.layouts import Sample
from itemforge.errors import InvalidInput

#: Changes whenever the same file would be prepared differently.
RECIPE = "white, padded, lanczos, 1"
#: Larger pictures are refused: a bomb, or a sheet of many items.
MAX_PIXELS = 64_000_000

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Prepared:
    """`pixels` uint8 (size, size, 3); `mask` float32 (size, size) from 0 to 1, or None; `sides` as they came."""

    sample: Sample
    key: str
    pixels: Pixels
    mask: NDArray[np.float32] | None
    sides: tuple[int, int]


def prepare(sample: Sample, size: int) -> Prepared:
    """Read and prepare one sample.

    Raises:
        InvalidInput: the picture or its mask cannot be read, or is too large.
    """
    data = _bytes(sample.path)
    picture = _opened(sample.path, data).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    square = _fitted(white.convert("RGB"), size, "white")
    digest = hashlib.sha256(data)
    mask = None
    if sample.mask is not None:
        given = _bytes(sample.mask)
        digest.update(given)
        drawn = _opened(sample.mask, given).convert("L")
        if drawn.size != picture.size:
            raise InvalidInput(f"{sample.mask} is {drawn.size}, its picture {picture.size}")
        mask = np.asarray(_fitted(drawn, size, 0), dtype=np.float32) / 255.0
    digest.update(f"{RECIPE} {size}".encode())
    return Prepared(sample, digest.hexdigest(), np.asarray(square), mask, picture.size)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error


def _opened(path: Path, data: bytes) -> Image.Image:
    try:
        picture = Image.open(BytesIO(data), formats=("PNG", "JPEG", "WEBP"))
        if picture.width * picture.height > MAX_PIXELS:
            raise InvalidInput(f"{path} has {picture.width}x{picture.height} pixels, more than {MAX_PIXELS}")
        turned = ImageOps.exif_transpose(picture)
        turned.load()
        return turned
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidInput(f"{path} is damaged or no PNG, JPEG or WebP: {error}") from error


def _fitted(picture: Image.Image, size: int, border: str | int) -> Image.Image:
    """Scaled to fit, in the middle of a square."""
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    square = Image.new(picture.mode, (size, size), border)
    small = picture.resize((width, height), Image.Resampling.LANCZOS)
    square.paste(small, ((size - width) // 2, (size - height) // 2))
    return square
