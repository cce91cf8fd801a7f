"""A ZIP that leaves as it is made: what is written is taken away piece by piece."""

import io
import zipfile
from datetime import datetime


class ZipStream:
    """`add` and `close` return the bytes that have become ready.

    Each member is whole before it leaves, so its checksum and length stand in front of it, as every program
    for ZIP can read.
    """

    def __init__(self) -> None:
        self._sink = _Sink()
        self._zip = zipfile.ZipFile(self._sink, "w")

    def add(self, name: str, data: bytes, at: datetime, *, packed: bool = False) -> bytes:
        """One more file; pictures are packed by themselves already."""
        info = zipfile.ZipInfo(name, (max(1980, at.year), at.month, at.day, at.hour, at.minute, at.second))
        info.external_attr = 0o644 << 16
        info.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
        self._zip.writestr(info, data)
        return self._sink.take()

    def close(self) -> bytes:
        self._zip.close()
        return self._sink.take()


class _Sink(io.RawIOBase):
    """A file of which only the end is still here."""

    def __init__(self) -> None:
        self._before = 0
        self._here = io.BytesIO()

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._before + self._here.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET:
            offset -= self._before
        return self._before + self._here.seek(offset, whence)

    def write(self, data: object) -> int:
        return self._here.write(data)  # type: ignore[arg-type]  # bytes-like, as RawIOBase has it

    def take(self) -> bytes:
        data = self._here.getvalue()
        self._before += len(data)
        self._here = io.BytesIO()
        return data
