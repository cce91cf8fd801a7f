"""`NAME.part`: a folder in which a model is put together, and from which an interrupted pull goes on.

`FILE.part` is on its way, `FILE` has arrived and was checked. Nothing outside looks in here.
"""

import base64
import hashlib
import os
import shutil
from pathlib import Path

from itemforge.errors import ConfigurationError, ModelError
from itemforge.pulling.choice import Entry
from itemforge.pulling.record import FileRecord, Record, read_record
from itemforge.styles.files import file_sha256

RECORD = "pulled.json"


class Workshop:
    """The folder and its record."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.record = read_record(folder / RECORD) or Record()

    def path(self, name: str) -> Path:
        """Where a file lies when it has arrived."""
        return self.folder / name

    def part(self, name: str) -> Path:
        """Where it lies until then."""
        return self.folder / f"{name}.part"

    def arrived(self, name: str, key: str) -> bool:
        """Whether the file is here from an earlier pull, and whole."""
        known = self.record.files.get(name)
        path = self.path(name)
        if known is None or known.key != key or known.sha256 is None or not path.is_file():
            return False
        return path.stat().st_size == known.size and file_sha256(path) == known.sha256

    def received(self, name: str, key: str) -> tuple[int, str | None]:
        """Bytes of this very file that are here, and the version that a server called it."""
        known = self.record.files.get(name)
        part = self.part(name)
        if known is None or known.key != key or not part.is_file():
            return 0, None
        return part.stat().st_size, known.etag

    def begin(self, name: str, key: str, etag: str | None = None) -> Path:
        """Forget what is here of a file, and say of what its next bytes are a part."""
        self.forget(name)
        self.part(name).parent.mkdir(parents=True, exist_ok=True)
        self.record.files[name] = FileRecord(key, etag=etag)
        self._save()
        return self.part(name)

    def forget(self, name: str) -> None:
        """Remove what is here of a file."""
        self.part(name).unlink(missing_ok=True)
        self.path(name).unlink(missing_ok=True)
        if self.record.files.pop(name, None) is not None:
            self._save()

    def finish(self, entry: Entry, shown: str) -> None:
        """Check a file that has come to its end, and call it arrived.

        Raises:
            ModelError: it is not what its source lists; it is removed.
        """
        part, known = self.part(entry.path), self.record.files[entry.path]
        with part.open("rb") as file:
            os.fsync(file.fileno())
        size, sha256 = part.stat().st_size, file_sha256(part)
        wrong = _difference(entry, part, size, sha256)
        if wrong:
            self.forget(entry.path)
            raise ModelError(
                f"{shown} is not what was expected: {wrong}; it was deleted. Pull again, and if that does not help, "
                "do not trust this source"
            )
        part.replace(self.path(entry.path))
        known.size, known.sha256 = size, sha256
        self._save()

    def missing(self, entries: list[Entry], keys: dict[str, str]) -> int:
        """Bytes that must still come, as far as the source says."""
        left = 0
        for entry in entries:
            key, known = keys[entry.path], self.record.files.get(entry.path)
            here = known is not None and known.key == key and known.sha256 is not None
            if not (here and self.path(entry.path).is_file()):
                left += max((entry.size or 0) - self.received(entry.path, key)[0], 0)
        return left

    def keep_only(self, names: list[str]) -> None:
        """Remove everything else, such as what another version had."""
        kept = {self.path(name) for name in names}
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path not in kept and path != self.folder / RECORD:
                path.unlink()
        self.record.files = {name: self.record.files[name] for name in names}

    def leave(self) -> None:
        """Remove the folder if there is nothing in it to go on from."""
        if not any(path.is_file() for path in self.folder.rglob("*") if path != self.folder / RECORD):
            shutil.rmtree(self.folder)

    def _save(self) -> None:
        self.record.write(self.folder / RECORD)


def check_room(folder: Path, needed: int) -> None:
    """Whether so many bytes fit on the disk.

    Raises:
        ConfigurationError: the text says how many there are.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ConfigurationError(
            f"not enough space on the disk of {folder.parent}: {told(needed)} are needed, {told(free)} are free; "
            "make room, or set ITEMFORGE_HOME to a folder on a larger disk"
        )


def told(size: int) -> str:
    """Bytes for people.

    >>> told(2_130_000_000)
    '2.13 GB'
    """
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.2f} {name}"
    return f"{size} bytes"


def _difference(entry: Entry, file: Path, size: int, sha256: str) -> str | None:
    if entry.size is not None and size != entry.size:
        return f"it has {size} bytes instead of {entry.size}"
    if entry.sha256 is not None and sha256 != entry.sha256:
        return f"its sha256 is {sha256} instead of {entry.sha256}"
    if entry.md5 is not None and _md5(file) != entry.md5:
        return f"its MD5 is not {entry.md5}"
    return None


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return base64.b64encode(digest.digest()).decode()
