"""The story of a pull: look at what is there, bring what is missing, check it, put it in its place."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from itemforge.errors import ConfigurationError, InvalidInput, ModelError
from itemforge.pulling.artifact import fetch_artifact
from itemforge.pulling.hub import fetch_hub
from itemforge.pulling.local import fetch_local, state_of
from itemforge.pulling.means import Means
from itemforge.pulling.placing import Kind, Place, place, put_back, remove, taken
from itemforge.pulling.record import Record, damaged
from itemforge.pulling.source import (
    ArtifactSource,
    HubSource,
    LocalSource,
    ModelSource,
    WebSource,
    check_name,
    identity,
)
from itemforge.pulling.web import fetch_web
from itemforge.pulling.workshop import Workshop


@dataclass(frozen=True)
class Pulled:
    """What is there now; `fresh` says whether this pull brought it."""

    name: str
    place: Place
    record: Record
    fresh: bool


def pull(
    source: ModelSource,
    means: Means,
    *,
    name: str | None = None,
    sha256: str | None = None,
    replace: bool = False,
    want: Kind | None = None,
) -> Pulled:
    """Bring a model or a LoRA home under a name, or check that it is there and whole.

    Raises:
        InvalidInput: another model has this name, or the source cannot be meant so.
        ConfigurationError: a token is missing or refused; no space; the home cannot be written.
        ObjectMissing: the source has no such thing.
        SourceUnavailable: the source cannot be reached; what has arrived is kept for the next pull.
        ModelError: what came, or what is there, is not what it should be; it is removed.
    """
    name = check_name(name or source.name)
    folder = means.home / "models"
    with _disk_errors(means.home), held(folder / f".{name}.lock", name, means):
        put_back(folder, name)
        asked = _asked(source)
        there = taken(means.home, name)
        if there is not None and not replace:
            return _known(name, there, source, asked, sha256, want)
        workshop = Workshop(folder / f"{name}.part")
        workshop.record.source, workshop.record.asked = source.label, asked
        try:
            files = _fetch(source, workshop, means, sha256)
        finally:
            workshop.leave()
        workshop.record.pulled = datetime.now(UTC).isoformat(timespec="seconds")
        placed = place(means.home, name, workshop, files, want)
    return Pulled(name, placed, workshop.record, True)


def same_source(there: Place, source: ModelSource) -> bool:
    """Whether a place holds what a pull of this source brought."""
    record = there.record()
    return record is not None and record.asked == _asked(source)


@contextmanager
def held(file: Path, name: str, means: Means) -> Iterator[None]:
    """Be the only one who pulls this name; another one's pull is waited for. The lock goes with its process."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            means.note(f"{name} is being pulled by another process; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _asked(source: ModelSource) -> str:
    return identity(source) + (state_of(source) if isinstance(source, LocalSource) else "")


def _known(
    name: str, there: Place, source: ModelSource, asked: str, sha256: str | None, want: Kind | None
) -> Pulled:
    """What is there already, if it is what was asked for, and whole."""
    record = there.record()
    if record is None or record.asked != asked:
        what = f"pulled from {record.source}" if record else "not put there by a pull"
        raise InvalidInput(
            f"there is already {there.path}, {what}; choose another name with --as NAME, or add --replace to put "
            f"{source.label} in its place"
        )
    if bad := damaged(record, there.root):
        _take_apart(there, bad)
        raise ModelError(
            f"{', '.join(bad[:3])} of {there.path} changed since it was pulled, and was deleted: repeat the command to "
            "pull it again"
        )
    if want not in (None, there.kind):
        raise ModelError(f"{there.path} is no {want}")
    if sha256 is not None and sha256 not in {file.sha256 for file in record.files.values()}:
        raise InvalidInput(
            f"{there.path} has not the sha256 {sha256}; add --replace to pull it again, or choose another --as NAME"
        )
    return Pulled(name, there, record, False)


def _take_apart(there: Place, bad: list[str]) -> None:
    """Remove what is damaged; what is whole in a folder waits in `NAME.part` for the next pull."""
    if there.kind != "model":
        remove(there)
        return
    part = there.path.with_name(f"{there.path.name}.part")
    if part.exists():
        shutil.rmtree(part)
    there.path.replace(part)
    for name in bad:
        (part / name).unlink(missing_ok=True)


def _fetch(source: ModelSource, workshop: Workshop, means: Means, sha256: str | None) -> list[str]:
    if isinstance(source, HubSource):
        return fetch_hub(source, workshop, means, sha256)
    if isinstance(source, ArtifactSource):
        return fetch_artifact(source, workshop, means, sha256)
    if isinstance(source, WebSource):
        return fetch_web(source, workshop, means, sha256)
    return fetch_local(source, workshop, means, sha256)


@contextmanager
def _disk_errors(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or home
        raise ConfigurationError(
            f"{where} cannot be read or written ({error.strerror or error}); look at its permissions and the disk's free "
            "space, or set ITEMFORGE_HOME to a folder of yours"
        ) from error
