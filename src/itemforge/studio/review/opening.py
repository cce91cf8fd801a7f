"""How a route gets at the dataset: as it is at the moment of the call, whoever has changed it."""

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request

from itemforge.dataset.manifest import open_manifest
from itemforge.dataset.store import DATABASE, Store, open_store
from itemforge.errors import PermanentError
from itemforge.studio.review.items import Filters, Item, Listing, load
from itemforge.studio.review.pages import View


class Missing(PermanentError):
    """There is no such picture."""


class _Items:
    """All pictures, read again only when somebody, be it another process, has changed the database."""

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        # SQLite tells a connection whether others have written; this one never writes.
        self._watch = sqlite3.connect(folder / DATABASE, check_same_thread=False, isolation_level=None)
        self._version: int | None = None
        self._items: list[Item] = []

    def of(self, store: Store) -> list[Item]:
        with self._lock:
            (version,) = self._watch.execute("PRAGMA data_version").fetchone()
            if version != self._version:
                self._items = load(store)
                self._version = version
            return self._items


class Review:
    """A dataset's folder, and in whose name changes are made."""

    def __init__(self, folder: Path, who: str) -> None:
        self.folder = folder
        self.who = who
        self._items = _Items(folder)

    @contextmanager
    def store(self) -> Iterator[Store]:
        """Its database. For one thread: SQLite's connections are."""
        with open_store(self.folder) as store:
            yield store

    @contextmanager
    def open(self, filters: Filters | None = None) -> Iterator[View]:
        """Look at the dataset. For one thread, too.

        Raises:
            ConfigurationError: the dataset or its settings cannot be used.
        """
        style = open_manifest(self.folder).look()
        with self.store() as store:
            yield View(store, Listing(self._items.of(store), filters or Filters()), style, self.who)


def item_of(view: View, sha256: str) -> Item:
    """Raises Missing: there is no such picture."""
    if (item := view.listing.by_sha256.get(sha256)) is None:
        raise Missing("there is no such picture")
    return item


async def _review(request: Request) -> Review:
    review: Review = request.app.state.review
    return review


async def _filters(request: Request) -> Filters:
    return Filters.of(request.query_params)


async def _form(request: Request) -> Mapping[str, str]:
    """What a form sent; of several values of a name the last."""
    body = (await request.body()).decode("utf-8", "replace")
    return dict(parse_qsl(body, keep_blank_values=True))


def number(form: Mapping[str, str], name: str) -> int:
    """A count in a form; -1, which is no version of anything, for what is none."""
    text = form.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else -1


Reviewed = Annotated[Review, Depends(_review)]
Wanted = Annotated[Filters, Depends(_filters)]
Form = Annotated[Mapping[str, str], Depends(_form)]
