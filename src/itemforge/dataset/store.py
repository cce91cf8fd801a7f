"""What a dataset knows: `DIR/dataset.sqlite`, and the pictures as they came in `DIR/raw/xx/SHA256.ext`.

Pictures are named by their sha256, so no title of a wiki ever becomes a path. Every change is one transaction, and a
file is in its place before the database speaks of it: whatever moment a process is killed at, the next one finds a
dataset that is whole. Several processes may have it open; writers wait for one another.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from itemforge.dataset.schema import MIGRATIONS
from itemforge.errors import ConfigurationError, InvalidInput

DATABASE = "dataset.sqlite"
#: Held by what brings pictures into a dataset.
LOCK = "crawl.lock"
#: The kinds of pictures that a dataset takes, and how their files end.
EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/bmp": "bmp",
}
#: Seconds that a writer waits for another process's.
_BUSY = 30.0
#: What SQLite says where a database cannot be written for reasons outside of it.
_UNWRITABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
}

T = TypeVar("T")


@dataclass(frozen=True)
class Picture:
    """One picture as it came."""

    sha256: str
    sha1: str
    mime: str
    width: int
    height: int
    bytes: int
    added_at: str

    @property
    def file(self) -> str:
        """Where it lies in the dataset's folder."""
        return f"raw/{self.sha256[:2]}/{self.sha256}.{EXTENSIONS[self.mime]}"


@dataclass(frozen=True)
class Source:
    """A place where a picture was seen. `timestamp` is when the wiki got it."""

    sha256: str
    item: str
    page: str
    section: str
    url: str
    title: str
    uploader: str
    licence: str
    timestamp: str
    sha1: str
    first_seen: str


class Store:
    """An open dataset. One thread uses it; another opens its own."""

    def __init__(self, folder: Path, db: sqlite3.Connection) -> None:
        self.folder = folder
        self.db = db

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """One transaction, that happens whole or not at all.

        Raises:
            ConfigurationError: another process holds the database, the disk is full, or it must not be written.
        """
        try:
            self.db.execute("BEGIN IMMEDIATE")
            yield self.db
            self.db.commit()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _UNWRITABLE:
                raise
            raise ConfigurationError(
                f"{self.folder / DATABASE} cannot be written ({error}); end what else holds it, or see to the disk and its "
                "rights, and try again: what was written before stays"
            ) from None
        finally:
            if self.db.in_transaction:
                self.db.rollback()

    def path(self, picture: Picture) -> Path:
        return self.folder / picture.file

    def pictures(self) -> list[Picture]:
        """All pictures, in the order of their sha256."""
        return self._all(Picture, "SELECT {} FROM pictures ORDER BY sha256")

    def picture(self, sha256: str) -> Picture | None:
        return next(iter(self._all(Picture, "SELECT {} FROM pictures WHERE sha256 = ?", sha256)), None)

    def picture_by_sha1(self, sha1: str) -> Picture | None:
        """A picture whose file is there too."""
        found = self._all(Picture, "SELECT {} FROM pictures WHERE sha1 = ? AND sha1 != ''", sha1)
        return next((each for each in found if self.path(each).exists()), None)

    def sources(self, sha256: str) -> list[Source]:
        """Where a picture was seen, first things first."""
        return self._all(Source, "SELECT {} FROM sources WHERE sha256 = ? ORDER BY id", sha256)

    def total_bytes(self) -> int:
        """Bytes of all pictures."""
        (total,) = self.db.execute("SELECT coalesce(sum(bytes), 0) FROM pictures").fetchone()
        return int(total)

    def _all(self, kind: type[T], sql: str, *values: object) -> list[T]:
        names = ", ".join(field.name for field in fields(kind))  # type: ignore[arg-type]  # a dataclass
        return [kind(*row) for row in self.db.execute(sql.format(names), values)]


@contextmanager
def open_store(folder: Path) -> Iterator[Store]:
    """The dataset in a folder, which is made if it is not there.

    Raises:
        ConfigurationError: the folder cannot be used, or a newer ItemForge made the dataset.
        InvalidInput: its database is damaged.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(folder / DATABASE, timeout=_BUSY, isolation_level=None)
    except (OSError, sqlite3.OperationalError) as error:
        raise ConfigurationError(
            f"the dataset {folder} cannot be used ({error}); name a folder of yours"
        ) from None
    try:
        store = Store(folder, db)
        _begin(store)
        yield store
    finally:
        db.close()


@contextmanager
def open_existing(folder: Path) -> Iterator[Store]:
    """A dataset that is there already.

    Raises:
        InvalidInput: there is none, or its database is damaged.
        ConfigurationError: as `open_store`.
    """
    if not is_dataset(folder):
        raise InvalidInput(
            f"there is no dataset in {folder}: make one with `itemforge data crawl` or `itemforge data import`"
        )
    with open_store(folder) as store:
        yield store


def is_dataset(folder: Path) -> bool:
    return (folder / DATABASE).is_file()


def _begin(store: Store) -> None:
    try:
        store.db.execute("PRAGMA foreign_keys = ON")
        # With a write-ahead log a killed process loses nothing that was committed.
        store.db.execute("PRAGMA synchronous = NORMAL")
        _write_ahead(store.db)
        _migrate(store)
    except sqlite3.OperationalError as error:
        raise ConfigurationError(f"{store.folder / DATABASE} cannot be used: {error}") from None
    except sqlite3.DatabaseError as error:
        raise InvalidInput(
            f"{store.folder / DATABASE} is damaged, or no dataset ({error}); name another folder, or restore it"
        ) from None


def _write_ahead(db: sqlite3.Connection) -> None:
    deadline = time.monotonic() + _BUSY
    while db.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:  # SQLite does not wait here when two processes begin at once
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _migrate(store: Store) -> None:
    if _version(store.db) == len(MIGRATIONS):
        return
    with store.change() as db:
        version = _version(db)  # another process may have been faster
        if version > len(MIGRATIONS):
            raise ConfigurationError(
                f"{store.folder} was made by a newer ItemForge; update this one, or name another folder"
            )
        for number, script in enumerate(MIGRATIONS[version:], version + 1):
            for statement in script.split(";"):  # executescript would end the transaction
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number:d}")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def keep_file(store: Store, part: Path, picture: Picture) -> None:
    """Move a fetched file to its place; `add_picture` comes after."""
    path = store.path(picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def add_picture(db: sqlite3.Connection, picture: Picture) -> None:
    """Know a picture whose file is in its place; nothing happens if it is known."""
    marks = ", ".join("?" for _ in fields(picture))
    names = ", ".join(field.name for field in fields(picture))
    db.execute(f"INSERT OR IGNORE INTO pictures ({names}) VALUES ({marks})", astuple(picture))  # noqa: S608 - names of fields


def now() -> str:
    """The time as it is written everywhere in the dataset."""
    return datetime.now(UTC).isoformat(timespec="seconds")
