"""A download on its way to a file: the file is there when it is whole, and not before."""

from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from uuid import uuid4


class Landing:
    """A context manager; without `finish` nothing is left behind. The folder is made where it is missing.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        # In the same folder, because only there a rename is one step.
        self._part = self._path.with_name(f".{self._path.name[:100]}.{uuid4().hex}.part")
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def begin(self) -> None:
        """From the first byte, also after a try that broke off."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("xb")
        self._file.seek(0)
        self._file.truncate()

    def write(self, data: bytes) -> None:
        assert self._file is not None  # noqa: S101  # begun
        self._file.write(data)

    def finish(self) -> Path:
        """Put the whole file in its place."""
        assert self._file is not None  # noqa: S101  # begun
        self._file.close()
        self._file = None
        return self._part.replace(self._path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._part.unlink(missing_ok=True)
