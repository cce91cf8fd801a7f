"""The outbox: which rows are to be put on the queue, and which the queue has lost.

A row with `published_at` NULL waits for the relay. Only a bounded window is published, taken in turn from
each owner, so that a big batch starves nobody and the queue stays a short one.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pydantic import Field
from sqlalchemy import and_, exists, func, select, update

from itemforge.contract import JobMessage, JobParams, Status
from itemforge.jobs import turns
from itemforge.jobs.clock import instant, now
from itemforge.jobs.database import Database, Write
from itemforge.jobs.heartbeats import live_capacity, live_held
from itemforge.jobs.requests import lock, set_state
from itemforge.jobs.states import OPEN
from itemforge.jobs.tables import requests


class Outgoing(JobMessage):
    """A row's message, and the trace context that goes into its headers."""

    traceparent: str | None = Field(default=None, exclude=True)


#: Puts messages on the queue and returns the ids of those that are safe there.
Publish = Callable[[list[Outgoing]], Awaitable[list[UUID]]]

#: Rows that one transaction touches at most.
CHUNK = 100


@dataclass(frozen=True)
class Window:
    """How much of the backlog the queue may hold. All figures are rows."""

    size: int
    waiting: int  # published and not yet claimed
    unpublished: bool  # whether any row waits for the relay

    @property
    def room(self) -> int:
        return max(0, self.size - self.waiting)


async def window(db: Database, least: int, worker_timeout: float) -> Window:
    """The window now: at least `least`, or twice what live workers can hold."""
    query = select(
        live_capacity(worker_timeout),
        turns.waiting(db.engine.dialect.name),
        exists().where(turns.unpublished()),
    )
    async with db.read() as conn:
        capacity, waiting, any_unpublished = (await conn.execute(query)).tuples().one()
    return Window(max(least, 2 * int(capacity)), waiting, any_unpublished)


async def unpublished(db: Database) -> int:
    """How many rows wait for the relay; it counts them all, so it is for people who look now and then."""
    query = select(func.count()).select_from(requests).where(turns.unpublished())
    async with db.read() as conn:
        return int((await conn.execute(query)).scalar_one())


async def publish_next(db: Database, publish: Publish, room: int) -> int:
    """Publish at most `room` rows, one owner after the other, the oldest of each first; returns how many.

    PostgreSQL locks the rows, so that two relays never publish the same one; on SQLite there is one relay,
    and no transaction stays open over the network.
    """
    limit = min(room, CHUNK)
    if db.postgresql:
        async with db.write() as write:
            messages = await _choose(write, limit)
            return await _mark(write, await publish(messages)) if messages else 0
    async with db.write() as write:
        messages = await _choose(write, limit)
    if not messages:
        return 0
    confirmed = await publish(messages)
    async with db.write() as write:
        return await _mark(write, confirmed)


async def _choose(write: Write, limit: int) -> list[Outgoing]:
    """At most `limit` rows in their turn, locked on PostgreSQL."""
    dialect = write.conn.dialect.name
    # More than are wanted, because another relay may hold the first ones.
    asked = {"limit": 2 * limit, "each": 2 * limit}
    found = {row.id: row for row in await write.conn.execute(turns.NEXT[dialect], asked)}
    chosen = list(found)[:limit]
    if dialect == "postgresql":
        chosen = await _lock_free(write, list(found), limit)
    return [
        Outgoing(
            request_id=i, params=JobParams.model_validate(found[i].params), traceparent=found[i].traceparent
        )
        for i in chosen
    ]


async def _lock_free(write: Write, ids: list[UUID], limit: int) -> list[UUID]:
    """The first `limit` of these that can be locked and are to be published still."""
    locked: list[UUID] = []
    while ids and (missing := limit - len(locked)) > 0:
        some, ids = ids[:missing], ids[missing:]
        free = {row.id for row in await write.conn.execute(turns.still_free(some)) if row.free}
        locked += [i for i in some if i in free]
    return locked


async def _mark(write: Write, ids: list[UUID]) -> int:
    await write.conn.execute(update(requests).where(requests.c.id.in_(ids)).values(published_at=instant()))
    return len(ids)


async def reopen_all(db: Database) -> int:
    """At an embedded start: queue and worker died with the last process, so every open row starts anew.

    Returns the number of open rows.
    """
    async with db.write() as write:
        running = select(requests.c.id).where(requests.c.status == Status.PROCESSING)
        for request_id in (await write.conn.execute(running.order_by(requests.c.id))).scalars().all():
            if (request := await lock(write, request_id)) is not None:
                await set_state(write, request, Status.PENDING, lease_until=None)
        reopened = await write.conn.execute(
            update(requests).where(requests.c.status.in_(OPEN)).values(published_at=None)
        )
        write.relay = True
        return int(reopened.rowcount)


async def expire_leases(db: Database) -> int:
    """Put rows whose worker fell silent back to Pending; returns how many."""
    async with db.write() as write:
        expired = (
            select(requests.c.id)
            .where(requests.c.status == Status.PROCESSING, requests.c.lease_until <= now())
            .order_by(requests.c.id)
            .limit(CHUNK)
            .with_for_update(skip_locked=True)
        )
        ids = (await write.conn.execute(expired)).scalars().all()
        for request_id in ids:
            request = await lock(write, request_id)
            if request is not None and request.status is Status.PROCESSING and not request.leased:
                await set_state(write, request, Status.PENDING, lease_until=None)
        return len(ids)


async def moment(db: Database) -> datetime:
    """The database's clock."""
    async with db.read() as conn:
        return (await conn.execute(select(instant()))).scalar_one()


async def republish_lost(
    db: Database, on_queue: int, counted_at: datetime, after: float, silence: float
) -> int:
    """Give rows whose message the queue has lost to the relay again; returns how many.

    `on_queue` is the number of messages in the main and retry queues, none of them counted before
    `counted_at` (`moment`): a message that came later has a row that was published later. Only the
    difference between the rows that should be there and what is there (or in the hands of a worker heard
    within `silence` seconds) is republished, so a long but honest backlog is never multiplied; and only rows
    published more than `after` seconds ago.
    """
    published = and_(turns.is_open, requests.c.published_at <= counted_at)
    leased = and_(turns.is_open, requests.c.published_at.is_not(None), requests.c.lease_until > now())
    async with db.write() as write:
        counts = select(
            select(func.count()).select_from(requests).where(published).scalar_subquery(),
            select(func.count()).select_from(requests).where(leased).scalar_subquery(),
            live_held(silence),
        )
        expected, in_hand, held = (await write.conn.execute(counts)).tuples().one()
        missing = min(CHUNK, expected - on_queue - in_hand - int(held))
        if missing <= 0:
            return 0
        lost = (
            select(requests.c.id)
            .where(published, turns.unleased(), requests.c.published_at < now(-after))
            .order_by(requests.c.published_at)
            .limit(missing)
            .with_for_update(skip_locked=True)
        )
        ids = (await write.conn.execute(lost)).scalars().all()
        if ids:
            await write.conn.execute(update(requests).where(requests.c.id.in_(ids)).values(published_at=None))
            write.relay = True
        return len(ids)
