"""`pulled.json`: where files came from, and the sha256 by which a later look finds out whether they are whole.

In an unfinished folder it also says what each file is a part of, so that nothing is put together from two
versions. It holds no address with a secret: what is compared is a hash.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from itemforge.styles.files import file_sha256, read_start, write_atomic

#: Bytes of an honest record.
_MOST = 4 * 1024**2


@dataclass
class FileRecord:
    """`sha256` is None while the file is on its way; `etag` is what a server calls this version of it."""

    key: str
    size: int | None = None
    sha256: str | None = None
    etag: str | None = None


@dataclass
class Record:
    """`asked` is the identity of the source; `revision` a commit, an ETag or a version; `pulled` a date."""

    source: str = ""
    asked: str = ""
    revision: str = ""
    pulled: str = ""
    files: dict[str, FileRecord] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        write_atomic(path, json.dumps(asdict(self), indent=2, sort_keys=True).encode() + b"\n")

    @property
    def size(self) -> int:
        return sum(file.size or 0 for file in self.files.values())


_READER = TypeAdapter(Record)


def read_record(path: Path) -> Record | None:
    """The record, or None where there is none that can be read."""
    try:
        return _READER.validate_json(read_start(path, _MOST))
    except (OSError, ValidationError):
        return None


def damaged(record: Record, folder: Path) -> list[str]:
    """The files that are not as they came."""
    return [name for name, file in record.files.items() if not _whole(folder / name, file)]


def _whole(path: Path, file: FileRecord) -> bool:
    return path.is_file() and path.stat().st_size == file.size and file_sha256(path) == file.sha256
