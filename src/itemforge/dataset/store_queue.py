"""The crawl's queue: which pictures were found, which are here, and why others are not.

`waiting → done | failed`, and `failed → done` by the next run. A file that the wiki has replaced waits again.
"""

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from itemforge.dataset.store import Picture, Store, add_picture, now

State = Literal["waiting", "done", "failed"]


@dataclass(frozen=True)
class Found:
    """A picture that the crawl has seen: where it is, what it is called, and what the wiki says of it."""

    url: str
    title: str
    item: str
    page: str
    section: str = ""
    uploader: str = ""
    licence: str = ""
    timestamp: str = ""
    sha1: str = ""
    mime: str = ""
    bytes: int | None = None


@dataclass(frozen=True)
class Entry:
    """A line of the queue. `next_try` is a Unix time before which a try is pointless."""

    url: str
    title: str
    mime: str
    bytes: int | None
    sha1: str
    state: State
    reason: str
    attempts: int
    next_try: float | None


_ENTRY = "url, title, mime, bytes, sha1, state, reason, attempts, next_try"


def add_found(store: Store, found: Iterable[Found]) -> None:
    """Remember pictures and where they were seen; what is known already stays as it is."""
    with store.change() as db:
        for each in found:
            _queue(store, db, each)
            _source(db, each)


def _queue(store: Store, db: sqlite3.Connection, found: Found) -> None:
    known = db.execute("SELECT sha1, state, sha256 FROM queue WHERE url = ?", (found.url,)).fetchone()
    facts = (found.title, found.mime, found.bytes, found.sha1, found.url)
    if known is None:
        db.execute(
            "DELETE FROM queue WHERE url = ? AND next_try IS NULL", (found.title,)
        )  # it had no address before
        db.execute(
            "INSERT INTO queue (title, mime, bytes, sha1, url, state) VALUES (?, ?, ?, ?, ?, 'waiting')",
            facts,
        )
        return
    sha1, state, sha256 = known
    here = store.picture(sha256) if sha256 else None
    replaced = bool(found.sha1) and found.sha1 != (here.sha1 if here else sha1)
    if state == "done" and (here is None or replaced or not store.path(here).exists()):
        db.execute(
            "UPDATE queue SET title = ?, mime = ?, bytes = ?, sha1 = ?, state = 'waiting', reason = '' WHERE url = ?",
            facts,
        )
    elif found.sha1 and state != "done":
        db.execute("UPDATE queue SET title = ?, mime = ?, bytes = ?, sha1 = ? WHERE url = ?", facts)


def _source(db: sqlite3.Connection, found: Found) -> None:
    place = (found.url, found.page, found.section, found.item)
    facts = (found.title, found.uploader, found.licence, found.timestamp, found.sha1)
    known = db.execute(
        "SELECT id, sha1 FROM sources WHERE url = ? AND page = ? AND section = ? AND item = ? ORDER BY id DESC",
        place,
    ).fetchone()
    if known is not None and known[1] in ("", found.sha1) and found.sha1:
        db.execute(
            "UPDATE sources SET title = ?, uploader = ?, licence = ?, timestamp = ?, sha1 = ? WHERE id = ?",
            (*facts, known[0]),
        )
    elif known is None or (found.sha1 and known[1] != found.sha1):
        db.execute(
            "INSERT INTO sources (url, page, section, item, title, uploader, licence, timestamp, sha1, first_seen, sha256)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
            " (SELECT sha256 FROM queue WHERE url = ?1 AND state = 'done'))",
            (*place, *facts, now()),
        )


def open_entries(store: Store) -> list[Entry]:
    """What is to be fetched: the waiting ones, then those that failed before."""
    rows = store.db.execute(
        f"SELECT {_ENTRY} FROM queue WHERE state = 'waiting' OR (state = 'failed' AND next_try IS NOT NULL)"  # noqa: S608 - a constant
        " ORDER BY state = 'failed', rowid"
    )
    return [Entry(*row) for row in rows]


def entries(store: Store, state: State) -> list[Entry]:
    rows = store.db.execute(f"SELECT {_ENTRY} FROM queue WHERE state = ? ORDER BY rowid", (state,))  # noqa: S608 - a constant
    return [Entry(*row) for row in rows]


def done(store: Store, url: str, picture: Picture) -> None:
    """The picture is here: its row, the queue's and the sources' in one transaction."""
    with store.change() as db:
        add_picture(db, picture)
        db.execute(
            "UPDATE queue SET state = 'done', reason = '', next_try = NULL, attempts = attempts + 1, sha256 = ?"
            " WHERE url = ?",
            (picture.sha256, url),
        )
        db.execute("UPDATE sources SET sha256 = ? WHERE url = ? AND sha256 IS NULL", (picture.sha256, url))


def failed(store: Store, url: str, reason: str, wait: float = 0.0) -> None:
    """The picture could not be had; the next run tries again."""
    with store.change() as db:
        db.execute(
            "UPDATE queue SET state = 'failed', reason = ?, attempts = attempts + 1, next_try = ? WHERE url = ?",
            (reason, time.time() + wait, url),
        )


def left_out(store: Store, title: str, reason: str) -> None:
    """The wiki lists a file, but says nothing of where it is; only another listing can change that."""
    with store.change() as db:
        db.execute(
            "INSERT INTO queue (url, title, mime, sha1, state, reason) VALUES (?1, ?1, '', '', 'failed', ?2)"
            " ON CONFLICT (url) DO UPDATE SET reason = excluded.reason",
            (title, reason),
        )
