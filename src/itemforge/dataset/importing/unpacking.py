"""A zip archive, unpacked where it can do no harm: every path within, every size by the bytes that come out."""

import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from itemforge.errors import InvalidInput

#: Members, bytes of one, and bytes of all. Others than these kinds are left in the archive.
MOST_MEMBERS, MOST_BYTES, MOST_TOTAL = 100_000, 64 * 1024**2, 8 * 1024**3
_KINDS = (
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".gif",
    ".bmp",
    ".txt",
    ".caption",
    ".jsonl",
    ".csv",
    ".toml",
)
_CHUNK = 1024**2


@contextmanager
def unpacked(archive: Path, beside: Path) -> Iterator[Path]:
    """The archive's files in a folder below `beside`, which goes at the end; of a single top folder, its inside.

    Raises:
        InvalidInput: it is no zip archive, is damaged or encrypted, or has a path or a size that it must not have.
        OSError: the disk is full.
    """
    with TemporaryDirectory(prefix=".import-", dir=beside) as name:
        folder = Path(name)
        try:
            with zipfile.ZipFile(archive) as opened:
                _unpack(opened, archive, folder)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
            # RuntimeError is what zipfile says of encrypted members, NotImplementedError of unknown compressions.
            raise InvalidInput(f"{archive} cannot be unpacked: {error}") from None
        inside = [path for path in folder.iterdir() if path.name != "__MACOSX"]
        yield inside[0] if len(inside) == 1 and inside[0].is_dir() and not _is_split(inside[0]) else folder


def _is_split(folder: Path) -> bool:
    return folder.name in ("train", "validation")


def _unpack(opened: zipfile.ZipFile, archive: Path, folder: Path) -> None:
    members = opened.infolist()
    if len(members) > MOST_MEMBERS:
        raise InvalidInput(f"{archive} has {len(members)} members, more than {MOST_MEMBERS}")
    room = MOST_TOTAL
    for member in members:
        path = _safe(member, archive)
        if member.is_dir() or path.suffix.lower() not in _KINDS:
            continue
        target = folder / path
        if target.exists():
            raise InvalidInput(f"{archive} has {member.filename[:100]!r} twice")
        target.parent.mkdir(parents=True, exist_ok=True)
        room -= _copy(opened, member, target, min(MOST_BYTES, room), archive)


def _safe(member: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    name = member.filename.replace("\\", "/")
    path = PurePosixPath(name)
    kind = stat.S_IFMT(member.external_attr >> 16)
    outside = path.is_absolute() or ".." in path.parts or ":" in path.parts[0] if path.parts else True
    if outside or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InvalidInput(f"{archive} has a member that leads elsewhere: {member.filename[:100]!r}")
    if len(name) > 1000 or any(len(part.encode()) > 250 for part in path.parts):
        raise InvalidInput(f"{archive} has a name that is too long: {member.filename[:60]!r}…")
    return path


def _copy(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, most: int, archive: Path) -> int:
    size = 0
    with opened.open(member) as source, target.open("wb") as file:
        # The header's sizes are the archive's own word; what comes out counts.
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            if size > most:
                raise InvalidInput(f"{archive} unpacks to more than is allowed, at {member.filename[:100]!r}")
            file.write(chunk)
    return size
