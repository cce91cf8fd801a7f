"""Opening PNG files of unknown origin: with limits, and with no other decoder than the one for PNG.

Pillow tries every format that it knows, some of them by programs outside (PostScript), and only warns of
pictures that unpack to gigabytes. So the size is read from the header before Pillow sees the file.
"""

import struct
from io import BytesIO
from pathlib import Path

from PIL import Image

from itemforge.errors import InvalidInput

SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Bytes of a file; the largest picture that we draw has 12 MiB before it is compressed.
MAX_FILE = 64 * 1024 * 1024
#: Sixteen times the largest picture that we draw.
MAX_PIXELS = 64_000_000


def read_file(path: Path) -> bytes:
    """The bytes of a PNG file.

    Raises:
        InvalidInput: it cannot be read, or is larger than any picture of ours.
    """
    try:
        if not path.is_file():
            raise InvalidInput(f"{path} cannot be read: it is no file")
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InvalidInput(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MAX_FILE:
        raise InvalidInput(f"{path} has more than {MAX_FILE} bytes; it is no picture of ours")
    return data


def open_png(data: bytes, mode: str, most: int = MAX_PIXELS) -> Image.Image:
    """The pixels of a PNG, in a mode of Pillow's.

    Raises:
        InvalidInput: not a PNG, a damaged one, or one with too many pixels.
    """
    width, height = _size(data)
    if width * height > most:
        raise InvalidInput(f"the picture has {width}x{height} pixels, more than {most} are not opened")
    try:
        with Image.open(BytesIO(data), formats=("PNG",)) as picture:
            return picture.convert(mode)
    except MemoryError:
        raise
    except Exception as error:  # Pillow documents no common base
        raise InvalidInput(f"the picture is damaged ({type(error).__name__})") from None


def _size(data: bytes) -> tuple[int, int]:
    if not data.startswith(SIGNATURE) or data[12:16] != b"IHDR" or len(data) < 33:
        raise InvalidInput("this is not a PNG file")
    width, height = struct.unpack_from(">II", data, 16)
    return width, height
