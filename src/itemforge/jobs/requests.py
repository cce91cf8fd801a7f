"""Requests as their owner sees them: create, look, list, cancel, delete."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, literal, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from itemforge.contract import Status
from itemforge.errors import DatabaseUnavailable, QuotaExceeded
from itemforge.jobs import events
from itemforge.jobs.clock import now
from itemforge.jobs.creation import LAST_POSITION, Inserted, insert_new, places_before
from itemforge.jobs.database import Database, Write
from itemforge.jobs.records import Created, NewRequest, Request, request_columns, to_request
from itemforge.jobs.states import OPEN, route
from itemforge.jobs.tables import requests

Insert = Callable[[NewRequest], Awaitable[Inserted]]


@dataclass(frozen=True)
class Filter:
    """Which requests a list shows; `style` is `id` (any version) or `id@version`, `owner` None everybody."""

    status: Status | None = None
    style: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    owner: str | None = None


async def create(db: Database, new: NewRequest, insert: Insert | None = None) -> Created:
    """Insert a Pending request; idempotent by its id and by its owner's idempotency key.

    The caller compares `request.body_hash` with its own to tell a repetition from a conflict. `insert` lets
    requests that come together share a transaction.

    Raises:
        QuotaExceeded: the owner has no images left for it.
    """
    created = await insert(new) if insert is not None else (await insert_new(db, [new]))[0]
    if isinstance(created, QuotaExceeded):
        raise created
    if created is not None:
        return created
    old = await earlier(db, new.owner, new.id, new.idempotency_key)
    if old is None:
        raise DatabaseUnavailable("the request's key was freed at this very moment; send it again")
    return Created(old, new=False)


async def _earlier(
    conn: AsyncConnection, owner: str, request_id: UUID, idempotency_key: str | None
) -> Request | None:
    same = requests.c.id == request_id
    if idempotency_key is not None:  # a comparison with None would find every request without a key
        same = or_(same, and_(requests.c.owner == owner, requests.c.idempotency_key == idempotency_key))
    row = (await conn.execute(select(*request_columns()).where(same).limit(1))).one_or_none()
    return to_request(row) if row is not None else None


async def get(db: Database, request_id: UUID, owner: str | None = None) -> Request | None:
    """The request, or None when there is none, or it was deleted, or is not this owner's (None: anybody's)."""
    query = select(*request_columns()).where(requests.c.id == request_id, requests.c.deleted_at.is_(None))
    if owner is not None:
        query = query.where(requests.c.owner == owner)
    async with db.read() as conn:
        row = (await conn.execute(query)).one_or_none()
    return to_request(row) if row is not None else None


async def known(db: Database, ids: Sequence[UUID]) -> set[UUID]:
    """Those of `ids` that have a row, deleted or not."""
    async with db.read() as conn:
        return set((await conn.execute(select(requests.c.id).where(requests.c.id.in_(ids)))).scalars())


async def earlier(db: Database, owner: str, request_id: UUID, idempotency_key: str | None) -> Request | None:
    """What that id or the owner's idempotency key stands for already, deleted or not."""
    async with db.read() as conn:
        return await _earlier(conn, owner, request_id, idempotency_key)


async def find(
    db: Database, wanted: Filter, limit: int, before: tuple[datetime, UUID] | None = None
) -> list[Request]:
    """Newest first; `before` is the (created_at, id) of the last one already seen."""
    query = select(*request_columns()).where(requests.c.deleted_at.is_(None), *_conditions(wanted))
    if before is not None:
        query = query.where(
            tuple_(requests.c.created_at, requests.c.id)
            < tuple_(literal(before[0], requests.c.created_at.type), literal(before[1], requests.c.id.type))
        )
    query = query.order_by(requests.c.created_at.desc(), requests.c.id.desc()).limit(limit)
    async with db.read() as conn:
        return [to_request(row) for row in await conn.execute(query)]


def _conditions(wanted: Filter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
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
    return conditions


async def position(db: Database, request: Request) -> int:
    """How many-th in line a Pending request is; 1 is next, and `LAST_POSITION` is that or later."""
    async with db.read() as conn:
        ahead = (await conn.execute(select(places_before(request.created_at)))).scalar_one()
    return min(ahead + 1, LAST_POSITION)


async def cancel(db: Database, request_id: UUID, owner: str | None = None) -> Request | None:
    """End an open request as Cancelled; an ended one is returned as it is. None: as `get`."""
    async with db.write() as write:
        request = await lock(write, request_id)
        if request is None or request.deleted_at is not None or owner not in (None, request.owner):
            return None
        return await finish(write, request, Status.CANCELLED) if request.status in OPEN else request


async def delete(db: Database, request_id: UUID, owner: str | None = None) -> Request | None:
    """Hide the request, cancelling it if it is open; None: as `get`. Its objects are the caller's to delete.

    The row stays for a while, so that messages and reports still under way meet an ended request.
    """
    async with db.write() as write:
        request = await lock(write, request_id)
        if request is None or request.deleted_at is not None or owner not in (None, request.owner):
            return None
        if request.status in OPEN:
            request = await finish(write, request, Status.CANCELLED)
        await write.conn.execute(
            update(requests)
            .where(requests.c.id == request_id)
            .values(deleted_at=now(), idempotency_key=None, updated_at=now())
        )
        return request


async def watch(db: Database, request_id: UUID, seconds: float) -> None:
    """Somebody looks at previews of an open request for the next `seconds`."""
    async with db.write() as write:
        await write.conn.execute(
            update(requests)
            .where(requests.c.id == request_id, requests.c.status.in_(OPEN))
            .values(watched_until=now(seconds))
        )


async def count(db: Database, owner: str | None = None) -> dict[Status, int]:
    """Requests of an owner (None: of all) by status, deleted ones left out."""
    query = (
        select(requests.c.status, func.count())
        .where(requests.c.deleted_at.is_(None))
        .group_by(requests.c.status)
    )
    if owner is not None:
        query = query.where(requests.c.owner == owner)
    async with db.read() as conn:
        found = {Status(status): int(n) for status, n in (await conn.execute(query)).tuples()}
    return {status: found.get(status, 0) for status in Status}


# ── Inside a transaction, for the other modules of this room ─────────────────────────────────────


async def lock(write: Write, request_id: UUID) -> Request | None:
    """The row, which nobody else changes until this transaction ends."""
    query = select(*request_columns()).where(requests.c.id == request_id).with_for_update()
    row = (await write.conn.execute(query)).one_or_none()
    return to_request(row) if row is not None else None


async def lock_all(write: Write, ids: Collection[UUID]) -> dict[UUID, Request]:
    """Several rows by one statement; in the order of their ids, so two transactions cannot deadlock."""
    query = select(*request_columns()).where(requests.c.id.in_(ids)).order_by(requests.c.id)
    rows = await write.conn.execute(query.with_for_update())
    return {request.id: request for request in map(to_request, rows)}


async def set_state(write: Write, request: Request, status: Status, **values: Any) -> Request:
    """Change a locked row's status and tell it; `values` are further columns.

    Raises:
        IllegalTransition: the state machine has no such way.
    """
    passed = route(request.status, status)
    changed = await write.conn.execute(
        update(requests)
        .where(requests.c.id == request.id)
        .values(status=status, updated_at=now(), **values)
        .returning(*request_columns())
    )
    request = to_request(changed.one())
    events.add_states(write, request, passed)
    return request


async def finish(write: Write, request: Request, status: Status, **values: Any) -> Request:
    """End a locked row. A place in the relay's window may be free now."""
    write.relay = True
    return await set_state(write, request, status, lease_until=None, finished_at=now(), **values)
