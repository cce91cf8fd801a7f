"""Requests as their owner sees them: create, look, cancel. Lists are in `finding`, deleting is in `trash`."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from itemforge.contract import Status
from itemforge.errors import DatabaseUnavailable, QuotaExceeded
from itemforge.jobs import deliveries, events
from itemforge.jobs.clock import now
from itemforge.jobs.creation import LAST_POSITION, Inserted, insert_new, places_before
from itemforge.jobs.database import Database, Write
from itemforge.jobs.records import Created, NewRequest, Request, change, request_columns, to_request
from itemforge.jobs.states import OPEN, route
from itemforge.jobs.tables import requests

#: An owner's requests of which previews are asked for at once.
_WATCHED = 64

Insert = Callable[[NewRequest], Awaitable[Inserted]]


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


async def get(
    db: Database, request_id: UUID, owner: str | None = None, deleted: bool = False
) -> Request | None:
    """The request, or None when there is none, or it is not this owner's (None: anybody's), or was deleted;
    with `deleted` also one that can still be restored."""
    shown = requests.c.erased_at.is_(None) if deleted else requests.c.deleted_at.is_(None)
    query = select(*request_columns()).where(requests.c.id == request_id, shown)
    if owner is not None:
        query = query.where(requests.c.owner == owner)
    async with db.read() as conn:
        row = (await conn.execute(query)).one_or_none()
    return to_request(row) if row is not None else None


async def get_all(db: Database, ids: Sequence[UUID], owner: str | None = None) -> dict[UUID, Request]:
    """Those of `ids` that `get` would find."""
    query = select(*request_columns()).where(requests.c.id.in_(ids), requests.c.deleted_at.is_(None))
    if owner is not None:
        query = query.where(requests.c.owner == owner)
    async with db.read() as conn:
        return {request.id: request for request in map(to_request, await conn.execute(query))}


async def known(db: Database, ids: Sequence[UUID]) -> set[UUID]:
    """Those of `ids` that have a row, deleted or not."""
    async with db.read() as conn:
        return set((await conn.execute(select(requests.c.id).where(requests.c.id.in_(ids)))).scalars())


async def earlier(db: Database, owner: str, request_id: UUID, idempotency_key: str | None) -> Request | None:
    """What that id or the owner's idempotency key stands for already, deleted or not."""
    async with db.read() as conn:
        return await _earlier(conn, owner, request_id, idempotency_key)


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


async def watch(db: Database, request_id: UUID, seconds: float) -> None:
    """Somebody looks at previews of an open request for the next `seconds`."""
    async with db.write() as write:
        await write.conn.execute(
            update(requests)
            .where(requests.c.id == request_id, requests.c.status.in_(OPEN))
            .values(watched_until=now(seconds))
        )


async def watch_open(db: Database, owner: str, seconds: float) -> None:
    """Somebody looks at previews of the owner's requests that are being drawn, or soon will be."""
    mine = requests.c.owner == owner
    drawn = select(requests.c.id).where(mine, requests.c.status == Status.PROCESSING).limit(_WATCHED)
    next_ones = (
        select(requests.c.id)
        .where(mine, requests.c.status == Status.PENDING, requests.c.published_at.is_not(None))
        .order_by(requests.c.published_at)
        .limit(_WATCHED)
    )
    async with db.read() as conn:
        ids = {*(await conn.execute(drawn)).scalars(), *(await conn.execute(next_ones)).scalars()}
    if not ids:
        return
    async with db.write() as write:
        await write.conn.execute(
            update(requests)
            .where(requests.c.id.in_(sorted(ids)), requests.c.status.in_(OPEN))
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
    """End a locked row, and put its webhooks into their outbox. A place in the relay's window may be free now."""
    write.relay = True
    ended = await set_state(write, request, status, lease_until=None, finished_at=now(), **values)
    write.counted.append(change("ended", ended))
    await deliveries.add(write, ended)
    return ended


async def cancel_all(write: Write, ids: Collection[UUID]) -> int:
    """`finish` for those of these rows that are open, as Cancelled, by few statements; returns how many."""
    locked = [row for row in (await lock_all(write, ids)).values() if row.status in OPEN]
    changed = await write.conn.execute(
        update(requests)
        .where(requests.c.id.in_([row.id for row in locked]))
        .values(status=Status.CANCELLED, updated_at=now(), lease_until=None, finished_at=now())
        .returning(*request_columns())
    )
    for ended in map(to_request, changed):
        events.add_states(write, ended, (Status.CANCELLED,))
        write.counted.append(change("ended", ended))
        await deliveries.add(write, ended)
    write.relay = True
    return len(locked)
