"""A file or a folder of this machine: copied, so that what happens to the original later changes nothing."""

import hashlib
from pathlib import Path

from itemforge.errors import InvalidInput
from itemforge.pulling.choice import Entry, check_format, choose
from itemforge.pulling.means import Means
from itemforge.pulling.source import LocalSource
from itemforge.pulling.workshop import Workshop, check_room

_CHUNK = 4 * 1024**2


def fetch_local(source: LocalSource, workshop: Workshop, means: Means, sha256: str | None) -> list[str]:
    """Copy the needed files into the workshop; their names.

    Raises:
        InvalidInput: a format that is not taken, or several files could be meant.
        ModelError: nothing that can be used, or not what was expected.
        ConfigurationError: no space.
    """
    folder, chosen = _chosen(source)
    if sha256 is not None:
        if len(chosen) != 1:
            raise InvalidInput(f"--sha256 is for a single file; {source.label} has {len(chosen)}")
        chosen = [Entry(chosen[0].path, chosen[0].size, sha256)]
    keys = {entry.path: _key(folder / entry.path) for entry in chosen}
    check_room(workshop.folder, workshop.missing(chosen, keys))
    for entry in chosen:
        if not workshop.arrived(entry.path, keys[entry.path]):
            _copy(folder / entry.path, entry, keys[entry.path], workshop, means)
    return [entry.path for entry in chosen]


def state_of(source: LocalSource) -> str:
    """What changes when the original is changed, as far as sizes and times tell.

    Raises:
        InvalidInput, ModelError: as `fetch_local`.
    """
    folder, chosen = _chosen(source)
    lines = "".join(sorted(f"{e.path} {_key(folder / e.path)}\n" for e in chosen))
    return hashlib.sha256(lines.encode()).hexdigest()


def _chosen(source: LocalSource) -> tuple[Path, list[Entry]]:
    path = source.path
    if path.is_file():
        check_format(path.name)
        return path.parent, [Entry(path.name, path.stat().st_size)]
    files = [file for file in path.rglob("*") if file.is_file()]
    listed = [Entry(f.relative_to(path).as_posix(), f.stat().st_size) for f in files if _plain(f)]
    return path, choose(listed, None, source.label)


def _plain(file: Path) -> bool:
    # Its owner may name the rest as he likes.
    return file.name.isprintable() and "\\" not in str(file) and ":" not in str(file)


def _key(path: Path) -> str:
    stat = path.stat()
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"


def _copy(original: Path, entry: Entry, key: str, workshop: Workshop, means: Means) -> None:
    part = workshop.begin(entry.path, key)
    done = 0
    with original.open("rb") as read, part.open("wb") as written:
        while chunk := read.read(_CHUNK):
            written.write(chunk)
            done += len(chunk)
            means.tell(entry.path, done, entry.size)
    workshop.finish(entry, str(original))
