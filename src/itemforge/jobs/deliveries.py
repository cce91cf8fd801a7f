"""The outbox of webhooks: written with the change that it tells of, emptied by senders.

A delivery waits while `next_at` is set. Taking one moves `next_at` behind the try, so what a sender that was
killed had in hand is due again by itself. `attempts` fences: only the latest try of a delivery is recorded.
"""

import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, delete, exists, func, insert, literal, select, tuple_, update

from itemforge.jobs.clock import now
from itemforge.jobs.database import Database, Write
from itemforge.jobs.records import Request, request_columns, to_request
from itemforge.jobs.tables import api_keys, requests, webhooks
from itemforge.jobs.tables import webhook_deliveries as table
from itemforge.jobs.webhooks import TEST, TYPE_OF, Webhook, columns, to_webhook

#: How often a delivery is tried before it is given up, or after it was sent again by hand.
TRIES = 8
#: Deliveries of one webhook that one sender has in hand: a slow receiver must not hold up the others.
AT_ONCE = 4
_DAY = 86400.0
_CHUNK = 1000
_MAX_ERROR = 500


class State(StrEnum):
    """Where a delivery stands."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True)
class Delivery:
    """What a webhook is told once, however many tries that takes."""

    id: str
    webhook_id: str
    request_id: UUID | None
    type: str
    state: State
    attempts: int
    tries_left: int
    next_at: datetime | None
    last_status: int | None
    error: str | None
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True)
class Listed:
    """A delivery and where it goes; `single`: to its request's own address, not to an endpoint."""

    delivery: Delivery
    url: str | None
    single: bool


@dataclass(frozen=True)
class Sending:
    """A delivery in a sender's hands. `request` None: a test. `revoked`: the owner's key has ended."""

    delivery: Delivery
    webhook: Webhook
    request: Request | None
    revoked: bool

    @property
    def url(self) -> str | None:
        """Where it goes."""
        return self.webhook.url or (self.request.webhook if self.request else None)


def _columns() -> list[ColumnElement[Any]]:
    return [table.c[name] for name in Delivery.__dataclass_fields__]


def _to_delivery(row: Row[Any]) -> Delivery:
    values = {name: row._mapping[name] for name in Delivery.__dataclass_fields__}
    return Delivery(**{**values, "state": State(values["state"])})


def _new_row(webhook_id: str, kind: str, request_id: UUID | None) -> dict[str, Any]:
    return {
        "id": f"msg_{secrets.token_hex(16)}",
        "webhook_id": webhook_id,
        "request_id": request_id,
        "type": kind,
        "state": State.WAITING.value,
        "attempts": 0,
        "tries_left": TRIES,
    }


async def add(write: Write, request: Request) -> None:
    """Inside the transaction that ends a request: what its owner's webhooks are to be told."""
    kind = TYPE_OF[request.status]
    if request.owner not in write.listening:
        # The lock keeps a webhook from being deleted between this look and the rows that name it.
        listening = (
            select(webhooks.c.id, webhooks.c.url, webhooks.c.events)
            .where(webhooks.c.owner == request.owner, webhooks.c.disabled_at.is_(None))
            .with_for_update(read=True, key_share=True)
        )
        write.listening[request.owner] = (await write.conn.execute(listening)).all()
    rows = [
        _new_row(row.id, kind, request.id)
        for row in write.listening[request.owner]
        if (request.webhook is not None if row.url is None else kind in row.events)
    ]
    if rows:
        await write.conn.execute(insert(table).values(next_at=now(), created_at=now()), rows)
        write.deliver = True


async def add_test(db: Database, webhook: Webhook) -> Listed:
    """A delivery that tells nothing but that it arrives."""
    async with db.write() as write:
        new = insert(table).values(**_new_row(webhook.id, TEST, None), next_at=now(), created_at=now())
        write.deliver = True
        row = (await write.conn.execute(new.returning(*_columns()))).one()
        return Listed(_to_delivery(row), webhook.url, single=False)


# ── For senders ──────────────────────────────────────────────────────────────────────────────────


async def take(db: Database, limit: int, in_hand: Mapping[str, int], lease: float) -> list[Sending]:
    """At most `limit` deliveries that are due, the longest due first; each counts as tried.

    `in_hand`: how many this sender has of which webhook. `lease`: seconds after which they are due again if
    nothing is recorded.
    """
    full = [webhook for webhook, held in in_hand.items() if held >= AT_ONCE]
    due = select(table.c.id, table.c.webhook_id).where(
        table.c.next_at <= now(), table.c.webhook_id.not_in(full)
    )
    due = due.order_by(table.c.next_at).limit(limit * AT_ONCE)
    async with db.read() as conn:  # on SQLite a look must not wait for writers
        if (await conn.execute(due.limit(1))).one_or_none() is None:
            return []
    async with db.write() as write:
        found = (await write.conn.execute(due.with_for_update(skip_locked=True))).tuples().all()
        chosen = _choose(found, limit, in_hand)
        return await _taken(write, chosen, lease) if chosen else []


def _choose(found: Any, limit: int, in_hand: Mapping[str, int]) -> list[str]:
    held = Counter(in_hand)
    chosen: list[str] = []
    for delivery_id, webhook_id in found:
        if len(chosen) < limit and held[webhook_id] < AT_ONCE:
            held[webhook_id] += 1
            chosen.append(delivery_id)
    return chosen


async def _taken(write: Write, ids: list[str], lease: float) -> list[Sending]:
    tried = (
        update(table)
        .where(table.c.id.in_(ids))
        .values(attempts=table.c.attempts + 1, tries_left=table.c.tries_left - 1, next_at=now(lease))
        .returning(*_columns())
    )
    deliveries = [_to_delivery(row) for row in await write.conn.execute(tried)]
    ended = exists().where(
        literal("key:") + api_keys.c.id == webhooks.c.owner, api_keys.c.revoked_at.is_not(None)
    )
    receivers = select(*columns(), ended.label("revoked")).where(
        webhooks.c.id.in_({delivery.webhook_id for delivery in deliveries})
    )
    known = {row.id: (to_webhook(row), bool(row.revoked)) for row in await write.conn.execute(receivers)}
    ended_requests = {delivery.request_id for delivery in deliveries if delivery.request_id is not None}
    told = select(*request_columns()).where(requests.c.id.in_(ended_requests))
    about = {request.id: request for request in map(to_request, await write.conn.execute(told))}
    return [
        Sending(
            d,
            known[d.webhook_id][0],
            about.get(d.request_id) if d.request_id else None,
            known[d.webhook_id][1],
        )
        for d in deliveries
    ]


async def record(
    db: Database,
    sending: Sending,
    state: State,
    *,
    status: int | None = None,
    error: str | None = None,
    wait: float | None = None,
    gone: bool = False,
) -> bool:
    """How a try ended: `status` is the receiver's answer, `wait` the seconds until the next try of a WAITING one.

    `gone`: the receiver wants nothing more, so an endpoint is disabled. False: a later try has begun, and
    nothing is changed.
    """
    ended = state is not State.WAITING
    async with db.write() as write:
        recorded = await write.conn.execute(
            update(table)
            .where(table.c.id == sending.delivery.id, table.c.attempts == sending.delivery.attempts)
            .where(table.c.state == State.WAITING.value)
            .values(
                state=state.value,
                last_status=status,
                error=error[:_MAX_ERROR] if error else None,
                next_at=None if ended else now(wait or 0.0),
                ended_at=now() if ended else None,
            )
        )
        if gone:
            await write.conn.execute(
                update(webhooks)
                .where(webhooks.c.id == sending.webhook.id, webhooks.c.url.is_not(None))
                .values(disabled_at=func.coalesce(webhooks.c.disabled_at, now()), disabled_reason=error)
            )
        return bool(recorded.rowcount)


# ── For owners ───────────────────────────────────────────────────────────────────────────────────


async def find(
    db: Database,
    owner: str | None,
    limit: int,
    *,
    webhook_id: str | None = None,
    request_id: UUID | None = None,
    state: State | None = None,
    before: str | None = None,
) -> list[Listed]:
    """Deliveries of the owner's webhooks (None: everybody's), newest first.

    `before` is the id of the last one already seen.
    """
    query = _with_address(owner)
    if webhook_id is not None:
        query = query.where(table.c.webhook_id == webhook_id)
    if request_id is not None:
        query = query.where(table.c.request_id == request_id)
    if state is not None:
        query = query.where(table.c.state == state.value)
    if before is not None:
        last = select(table.c.created_at, table.c.id).where(table.c.id == before).subquery()
        query = query.where(tuple_(table.c.created_at, table.c.id) < select(last).scalar_subquery())
    query = query.order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit)
    async with db.read() as conn:
        return [_to_listed(row) for row in await conn.execute(query)]


def _to_listed(row: Row[Any]) -> Listed:
    return Listed(_to_delivery(row), row.address, bool(row.single))


def _with_address(owner: str | None) -> Any:
    address = func.coalesce(webhooks.c.url, requests.c.webhook).label("address")
    single = webhooks.c.url.is_(None).label("single")
    joined = table.join(webhooks, webhooks.c.id == table.c.webhook_id).outerjoin(
        requests, requests.c.id == table.c.request_id
    )
    query = select(*_columns(), address, single).select_from(joined)
    return query if owner is None else query.where(webhooks.c.owner == owner)


async def resend(db: Database, delivery_id: str, owner: str | None) -> Listed | None:
    """Have it sent now, ended or not, under its old id and with all its tries; None: not this owner's."""
    theirs = select(webhooks.c.id)
    if owner is not None:
        theirs = theirs.where(webhooks.c.owner == owner)
    async with db.write() as write:
        again = await write.conn.execute(
            update(table)
            .where(table.c.id == delivery_id, table.c.webhook_id.in_(theirs))
            .values(state=State.WAITING.value, tries_left=TRIES, next_at=now(), ended_at=None, error=None)
        )
        if not again.rowcount:
            return None
        write.deliver = True
        row = (await write.conn.execute(_with_address(None).where(table.c.id == delivery_id))).one()
        return _to_listed(row)


async def waiting(db: Database) -> int:
    """How many are not yet delivered nor given up."""
    query = select(func.count()).select_from(table).where(table.c.next_at.is_not(None))
    async with db.read() as conn:
        return int((await conn.execute(query)).scalar_one())


async def purge(db: Database, retain_days: float) -> int:
    """Remove deliveries that ended so long ago; returns how many (a chunk at most)."""
    old = select(table.c.id).where(table.c.ended_at < now(-retain_days * _DAY)).limit(_CHUNK)
    async with db.write() as write:
        return int((await write.conn.execute(delete(table).where(table.c.id.in_(old)))).rowcount)
