"""Pictures for captions: known by their number."""

import hashlib

from itemforge.dataset.captioning.face import Picture


def png(number: int) -> bytes:
    """Bytes of a picture's own; the server does not look at them."""
    return b"\x89PNG\r\n\x1a\n" + f"picture {number}".encode()


def sha256(number: int) -> str:
    return hashlib.sha256(png(number)).hexdigest()


def picture(number: int, name: str = "Iron Sword") -> Picture:
    return Picture(sha256(number), lambda: png(number), name)
