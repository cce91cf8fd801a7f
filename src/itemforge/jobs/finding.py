"""Lists of requests, newest first: what a filter lets through, page by page, and what is beside one of them."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, exists, func, literal, or_, select, tuple_
from sqlalchemy.sql.elements import Tuple

from itemforge.contract import Status
from itemforge.jobs.database import Database
from itemforge.jobs.records import Request, request_columns, to_request
from itemforge.jobs.tables import batch_items, collection_items, favourites, requests

#: Where a list goes on: (created_at, id) of a request in it.
Place = tuple[datetime, UUID]


@dataclass(frozen=True)
class Filter:
    """Which requests a list shows; `style` is `id` (any version) or `id@version`, `owner` None everybody.

    `flagged` prompts break the block list. `alone` stands in no batch. Each of `words` stands somewhere in the prompt, in any case. `favourite_of` likes them. `deleted` shows those
    that are hidden and can still be restored.
    """

    status: Status | None = None
    style: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    owner: str | None = None
    words: tuple[str, ...] = ()
    favourite_of: str | None = None
    collection: UUID | None = None
    flagged: bool | None = None
    alone: bool = False
    deleted: bool = False


async def find(db: Database, wanted: Filter, limit: int, before: Place | None = None) -> list[Request]:
    """Newest first; `before` is the (created_at, id) of the last one already seen."""
    query = select(*request_columns()).where(*_conditions(wanted))
    if before is not None:
        query = query.where(_place() < _literal(before))
    query = query.order_by(requests.c.created_at.desc(), requests.c.id.desc()).limit(limit)
    async with db.read() as conn:
        return [to_request(row) for row in await conn.execute(query)]


async def beside(db: Database, wanted: Filter, at: Place) -> tuple[UUID | None, UUID | None]:
    """The next newer and the next older one in the list; None at its ends."""
    query = select(requests.c.id).where(*_conditions(wanted)).limit(1)
    newer = query.where(_place() > _literal(at)).order_by(requests.c.created_at, requests.c.id)
    older = query.where(_place() < _literal(at)).order_by(requests.c.created_at.desc(), requests.c.id.desc())
    async with db.read() as conn:
        found = [(await conn.execute(each)).scalar_one_or_none() for each in (newer, older)]
    return found[0], found[1]


async def count(db: Database, wanted: Filter, most: int) -> int:
    """How many there are, counted up to `most`."""
    some = select(literal(1)).select_from(requests).where(*_conditions(wanted)).limit(most).subquery()
    async with db.read() as conn:
        return int((await conn.execute(select(func.count()).select_from(some))).scalar_one())


async def alone(db: Database, ids: Collection[UUID]) -> set[UUID]:
    """Those of `ids` that stand in no batch."""
    query = select(requests.c.id).where(requests.c.id.in_(ids), _alone())
    async with db.read() as conn:
        return set((await conn.execute(query)).scalars())


def visible(ids: Collection[UUID], sees: str | None) -> list[ColumnElement[bool]]:
    """Those of `ids` that are `sees`'s (None: anybody's) and not deleted."""
    conditions: list[ColumnElement[bool]] = [requests.c.id.in_(ids), requests.c.deleted_at.is_(None)]
    return conditions if sees is None else [*conditions, requests.c.owner == sees]


def _place() -> Tuple:
    return tuple_(requests.c.created_at, requests.c.id)


def _literal(place: Place) -> Tuple:
    return tuple_(literal(place[0], requests.c.created_at.type), literal(place[1], requests.c.id.type))


def _conditions(wanted: Filter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [requests.c.deleted_at.is_(None)]
    if wanted.deleted:
        conditions = [requests.c.deleted_at.is_not(None), requests.c.erased_at.is_(None)]
    if wanted.owner is not None:
        conditions.append(requests.c.owner == wanted.owner)
    if wanted.status is not None:
        conditions.append(requests.c.status == wanted.status)
    if wanted.style is not None:
        any_version = requests.c.style.startswith(f"{wanted.style}@", autoescape=True)
        conditions.append(requests.c.style == wanted.style if "@" in wanted.style else any_version)
    if wanted.since is not None:
        conditions.append(requests.c.created_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(requests.c.created_at < wanted.until)
    if wanted.flagged is not None:
        conditions.append(requests.c.flagged.is_not(None) if wanted.flagged else requests.c.flagged.is_(None))
    if wanted.alone:
        conditions.append(_alone())
    return conditions + [_says(word) for word in wanted.words] + _picked(wanted)


def _alone() -> ColumnElement[bool]:
    return ~exists().where(batch_items.c.request_id == requests.c.id)


def _says(word: str) -> ColumnElement[bool]:
    # SQLite, and PostgreSQL in the locale C, know the capitals of English only.
    forms = dict.fromkeys((word, word.lower(), word.upper(), word.capitalize()))
    some = [word] if word.isascii() else forms
    return or_(*(requests.c.prompt.icontains(form, autoescape=True) for form in some))


def _picked(wanted: Filter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.favourite_of is not None:
        liked = (favourites.c.owner == wanted.favourite_of, favourites.c.request_id == requests.c.id)
        conditions.append(exists().where(*liked))
    if wanted.collection is not None:
        inside = (
            collection_items.c.collection_id == wanted.collection,
            collection_items.c.request_id == requests.c.id,
        )
        conditions.append(exists().where(*inside))
    return conditions
