"""What a file is, by its own first bytes, and how large: nothing is decoded, so a bomb stays shut."""

import struct
from pathlib import Path
from typing import BinaryIO


class NotWhole(ValueError):
    """The file ends before it says so, or makes no sense."""


def kind(start: bytes) -> str | None:
    """The MIME type that the first 16 bytes tell; None: no picture that a dataset takes."""
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if start.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "image/webp"
    if start.startswith(b"BM") and len(start) >= 14:
        return "image/bmp"
    return None


def measure(path: Path, mime: str) -> tuple[int, int]:
    """Width and height, as the header has them.

    Raises:
        NotWhole: the file was cut off, or is damaged where its size stands.
    """
    try:
        with path.open("rb") as file:
            width, height = _READERS[mime](file)
    except (struct.error, IndexError) as error:
        raise NotWhole("it ends within its header") from error
    if width <= 0 or height <= 0:
        raise NotWhole(f"it says that it is {width} x {height} pixels large")
    return width, height


def _png(file: BinaryIO) -> tuple[int, int]:
    end = file.seek(0, 2)
    file.seek(16)
    width, height = struct.unpack(">II", file.read(8))
    at, name = 8, b""
    while name != b"IEND":
        file.seek(at)
        length, name = struct.unpack(">I4s", file.read(8))
        at += length + 12
        if at > end:
            raise NotWhole("it ends within a chunk")
    return width, height


def _jpeg(file: BinaryIO) -> tuple[int, int]:
    file.seek(2)
    while True:
        byte = file.read(1)[0]
        while byte != 0xFF:  # filling between segments
            byte = file.read(1)[0]
        while byte == 0xFF:
            byte = file.read(1)[0]
        if byte == 0x01 or 0xD0 <= byte <= 0xD8:
            continue
        if byte in (0xD9, 0xDA):
            raise NotWhole("it has no frame")
        (length,) = struct.unpack(">H", file.read(2))
        if 0xC0 <= byte <= 0xCF and byte not in (0xC4, 0xC8, 0xCC):
            _, height, width = struct.unpack(">BHH", file.read(5))
            _check_jpeg_end(file)
            return width, height
        if length < 2:
            raise NotWhole("a segment is shorter than its length")
        file.seek(length - 2, 1)


def _check_jpeg_end(file: BinaryIO) -> None:
    # Some cameras and tools write a little after the end, so it is looked for in the last bytes.
    end = file.seek(0, 2)
    file.seek(max(0, end - 65536))
    if b"\xff\xd9" not in file.read():
        raise NotWhole("its end is missing")


def _gif(file: BinaryIO) -> tuple[int, int]:
    file.seek(6)
    width, height = struct.unpack("<HH", file.read(4))
    end = file.seek(0, 2)
    file.seek(max(0, end - 1024))
    if b"\x3b" not in file.read():
        raise NotWhole("its end is missing")
    return width, height


def _webp(file: BinaryIO) -> tuple[int, int]:
    end = file.seek(0, 2)
    file.seek(4)
    (length,) = struct.unpack("<I", file.read(4))
    if length + 8 > end:
        raise NotWhole("it ends within a chunk")
    file.seek(12)
    name, data = file.read(4), file.read(18)
    if name == b"VP8X":
        return 1 + int.from_bytes(data[8:11], "little"), 1 + int.from_bytes(data[11:14], "little")
    if name == b"VP8L":
        bits = int.from_bytes(data[5:9], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", data[10:14])
    return width & 0x3FFF, height & 0x3FFF


def _bmp(file: BinaryIO) -> tuple[int, int]:
    file.seek(2)
    (length,) = struct.unpack("<I", file.read(4))
    if length > file.seek(0, 2):
        raise NotWhole("it ends too early")
    file.seek(14)
    (header,) = struct.unpack("<I", file.read(4))
    width, height = struct.unpack("<HH", file.read(4)) if header == 12 else struct.unpack("<ii", file.read(8))
    return width, abs(height)


_READERS = {
    "image/png": _png,
    "image/jpeg": _jpeg,
    "image/gif": _gif,
    "image/webp": _webp,
    "image/bmp": _bmp,
}
