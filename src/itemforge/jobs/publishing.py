"""The outbox: which rows are to be put on the queue, and which the queue has lost.

A row with `published_at` NULL waits for the relay. Only a bounded window is published, taken in turn from
each owner, so that a big batch starves nobody and the queue stays a short one.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select, update

from itemforge.contract import JobMessage, Status
from itemforge.jobs.clock import instant, now
from itemforge.jobs.database import Database, Write
from itemforge.jobs.heartbeats import live_capacity, live_held
from itemforge.jobs.records import request_columns, to_request
from itemforge.jobs.requests import lock, set_state
from itemforge.jobs.states import OPEN
from itemforge.jobs.tables import requests

#: Puts messages on the queue and returns the ids of those that are safe there.
Publish = Callable[[list[JobMessage]], Awaitable[list[UUID]]]

#: Rows that one transaction touches at most.
CHUNK = 100


@dataclass(frozen=True)
class Window:
    """How much of the backlog the queue may hold. All figures are rows."""

    size: int
    waiting: int  # published and not yet claimed
    unpublished: int

    @property
    def room(self) -> int:
        return max(0, self.size - self.waiting)


def _unleased() -> ColumnElement[bool]:
    return or_(requests.c.lease_until.is_(None), requests.c.lease_until <= now())


def _waiting() -> ColumnElement[bool]:
    return and_(requests.c.status == Status.PENDING, requests.c.published_at.is_not(None))


def _unpublished() -> ColumnElement[bool]:
    return and_(requests.c.status.in_(OPEN), requests.c.published_at.is_(None))


async def window(db: Database, least: int, worker_timeout: float) -> Window:
    """The window now: at least `least`, or twice what live workers can hold."""
    waiting = select(func.count()).where(_waiting())
    unpublished = select(func.count()).where(_unpublished())
    query = select(live_capacity(worker_timeout), waiting.scalar_subquery(), unpublished.scalar_subquery())
    async with db.read() as conn:
        capacity, rows_waiting, rows_unpublished = (await conn.execute(query)).tuples().one()
    return Window(max(least, 2 * int(capacity)), rows_waiting, rows_unpublished)


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


async def _choose(write: Write, limit: int) -> list[JobMessage]:
    place = func.row_number().over(
        partition_by=requests.c.owner, order_by=(requests.c.created_at, requests.c.id)
    )
    # What an owner has on the queue already counts as turns taken: rows go out one by one when claims make
    # room, and each time the oldest of a big batch would be first again.
    waiting = (
        select(requests.c.owner, func.count().label("rows"))
        .where(_waiting())
        .group_by(requests.c.owner)
        .subquery()
    )
    turns = (
        select(requests.c.id, (place + func.coalesce(waiting.c.rows, 0)).label("turn"))
        .outerjoin(waiting, waiting.c.owner == requests.c.owner)
        .where(_unpublished(), _unleased())
        .subquery()
    )
    query = (
        select(*request_columns())
        .join(turns, turns.c.id == requests.c.id)
        .where(_unpublished(), _unleased())
        .order_by(turns.c.turn, requests.c.created_at, requests.c.id)
        .limit(limit)
        .with_for_update(of=requests, skip_locked=True)
    )
    rows = [to_request(row) for row in await write.conn.execute(query)]
    return [JobMessage(request_id=row.id, params=row.params) for row in rows]


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
    open_ = requests.c.status.in_(OPEN)
    published = and_(open_, requests.c.published_at <= counted_at)
    leased = and_(open_, requests.c.published_at.is_not(None), requests.c.lease_until > now())
    async with db.write() as write:
        counts = select(
            select(func.count()).where(published).scalar_subquery(),
            select(func.count()).where(leased).scalar_subquery(),
            live_held(silence),
        )
        expected, in_hand, held = (await write.conn.execute(counts)).tuples().one()
        missing = min(CHUNK, expected - on_queue - in_hand - int(held))
        if missing <= 0:
            return 0
        lost = (
            select(requests.c.id)
            .where(published, _unleased(), requests.c.published_at < now(-after))
            .order_by(requests.c.published_at)
            .limit(missing)
            .with_for_update(skip_locked=True)
        )
        ids = (await write.conn.execute(lost)).scalars().all()
        if ids:
            await write.conn.execute(update(requests).where(requests.c.id.in_(ids)).values(published_at=None))
            write.relay = True
        return len(ids)
