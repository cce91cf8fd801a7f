"""Reading and writing files whose bytes are named by their sha256."""

import hashlib
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

#: A LoRA larger than this is refused (bytes).
MAX_BLOB = 2 * 1024**3


def read_start(path: Path, most: int) -> bytes:
    """At most `most` bytes of a file; a pipe or a device, which may never end, is none.

    Raises:
        OSError: it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is no file")
    with path.open("rb") as file:
        return file.read(most)


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_sha256(path: Path) -> str:
    """The same, read again only when the file's size or time changed."""
    stat = path.stat()
    return _known(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _known(path: Path, size: int, mtime_ns: int) -> str:
    return file_sha256(path)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file that a reader sees whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid4().hex}.writing")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
