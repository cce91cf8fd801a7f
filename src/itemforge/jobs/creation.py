"""How requests come into the database: many that arrive together in one transaction.

On PostgreSQL a bundle is one statement, so one round trip and one flush of the disk: rows, first events
and the place in line.
"""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ScalarSelect, func, insert, literal, select, text

from itemforge.contract import Status
from itemforge.errors import QuotaExceeded
from itemforge.jobs import events, quotas
from itemforge.jobs.clock import now
from itemforge.jobs.database import Database, Write
from itemforge.jobs.records import Change, Created, NewRequest, Request
from itemforge.jobs.tables import requests

#: New requests that go into one transaction at most.
MOST = 64
#: Positions are counted so far; a request further behind has this one.
LAST_POSITION = 1000

_INSERT = text(
    """
    WITH given AS MATERIALIZED (
        SELECT *, clock_timestamp() AS at FROM json_to_recordset(CAST(:rows AS json)) AS new (
            id uuid, owner text, prompt text, style text, params json,
            idempotency_key text, body_hash text, retry_of uuid, flagged text, traceparent text, webhook text
        )
    ), inserted AS (
        INSERT INTO requests (
            id, owner, status, prompt, style, params, attempt, charged,
            idempotency_key, body_hash, retry_of, flagged, traceparent, webhook, created_at, updated_at
        )
        SELECT id, owner, 'Pending', prompt, style, params, 0, 0,
            idempotency_key, body_hash, retry_of, flagged, traceparent, webhook, at, at
        FROM given
        ON CONFLICT DO NOTHING
        RETURNING id, created_at
    ), told AS (
        INSERT INTO events (request_id, type, data, created_at)
        SELECT id, 'state', json_build_object(
            'id', id, 'status', 'Pending', 'attempt', 0, 'image_url', NULL, 'error', NULL
        ), created_at
        FROM inserted
    )
    SELECT id, created_at, (
        SELECT count(*) FROM (
            SELECT 1 FROM requests WHERE status = 'Pending' ORDER BY created_at LIMIT :counted
        ) AS waiting
    ) AS ahead
    FROM inserted
    """
)


#: What became of a new request; None: its id or idempotency key is there already.
Inserted = Created | QuotaExceeded | None


async def insert_new(db: Database, news: Sequence[NewRequest]) -> list[Inserted]:
    """Insert Pending requests; on an error none of them, on an exceeded quota the others."""
    async with db.write(single=not any(new.quota for new in news)) as write:
        refused = await quotas.exceeded(write, news)
        fitting = [new for new in news if new.id not in refused]
        inserted = await (_in_one_statement if db.postgresql else _one_by_one)(write, fitting)
        write.relay = bool(inserted)
        write.owners |= {new.owner for new in fitting if new.id in inserted}
        write.counted += [
            Change("created", Status.PENDING, new.params.style, new.params.num_images)
            for new in {new.id: new for new in fitting}.values()
            if new.id in inserted
        ]
    # An id that came twice is new once.
    return [
        refused.get(new.id) or (_created(new, *inserted.pop(new.id)) if new.id in inserted else None)
        for new in news
    ]


async def insert_all(write: Write, news: Sequence[NewRequest]) -> None:
    """Insert Pending requests with ids of their own and without idempotency keys, in the order in which they go
    out; quotas are the caller's to look at.
    """
    if write.conn.dialect.name == "postgresql":
        await _in_one_statement(write, news)
    else:
        await _in_one_go(write, news)
    write.relay = True
    write.owners |= {new.owner for new in news}
    write.counted += [
        Change("created", Status.PENDING, new.params.style, new.params.num_images) for new in news
    ]


async def _in_one_go(write: Write, news: Sequence[NewRequest]) -> None:
    """On SQLite, whose clock has milliseconds: the rows' times count on in microseconds, so they keep their order."""
    began = (await write.conn.execute(select(now()))).scalar_one()
    rows = [
        {**_columns(new), "created_at": at, "updated_at": at}
        for new, at in ((new, began + timedelta(microseconds=n)) for n, new in enumerate(news))
    ]
    await write.conn.execute(insert(requests), rows)
    for new, row in zip(news, rows, strict=True):
        events.add_states(write, _request(new, row["created_at"]), (Status.PENDING,))


def _columns(new: NewRequest) -> dict[str, Any]:
    return {
        "id": new.id,
        "owner": new.owner,
        "status": Status.PENDING,
        "prompt": new.prompt,
        "style": new.params.style,
        "params": new.params.model_dump(mode="json"),
        "attempt": 0,
        "charged": 0,
        "idempotency_key": new.idempotency_key,
        "body_hash": new.body_hash,
        "retry_of": new.retry_of,
        "flagged": new.flagged,
        "traceparent": new.traceparent,
        "webhook": new.webhook,
    }


def _created(new: NewRequest, at: datetime, ahead: int) -> Created:
    return Created(_request(new, at), new=True, position=min(ahead + 1, LAST_POSITION))


async def _in_one_statement(write: Write, news: Sequence[NewRequest]) -> dict[UUID, tuple[datetime, int]]:
    rows = [
        {
            "id": str(new.id),
            "owner": new.owner,
            "prompt": new.prompt,
            "style": new.params.style,
            "params": new.params.model_dump(mode="json"),
            "idempotency_key": new.idempotency_key,
            "body_hash": new.body_hash,
            "retry_of": str(new.retry_of) if new.retry_of else None,
            "flagged": new.flagged,
            "traceparent": new.traceparent,
            "webhook": new.webhook,
        }
        for new in news
    ]
    values = {"rows": json.dumps(rows), "counted": LAST_POSITION}
    found = (await write.conn.execute(_INSERT, values)).tuples().all()
    inserted = {row[0]: (row[1], row[2] + place) for place, row in enumerate(found)}
    for new in news:
        if new.id in inserted:
            write.passed.append(events.told(_request(new, inserted[new.id][0]), Status.PENDING))
    return inserted


async def _one_by_one(write: Write, news: Sequence[NewRequest]) -> dict[UUID, tuple[datetime, int]]:
    inserted: dict[UUID, tuple[datetime, int]] = {}
    ahead = (await write.conn.execute(select(places_before(None)))).scalar_one()
    for new in news:
        row = await write.conn.execute(
            write.insert(requests)
            .values(**_columns(new), created_at=now(), updated_at=now())
            .on_conflict_do_nothing()
            .returning(requests.c.created_at)
        )
        if (at := row.scalar_one_or_none()) is not None:
            inserted[new.id] = (at, ahead + len(inserted))
            events.add_states(write, _request(new, at), (Status.PENDING,))
    return inserted


def places_before(moment: datetime | None) -> ScalarSelect[int]:
    """Requests that were Pending and created before `moment` (None: all), counted up to `LAST_POSITION`.

    In the order of the index, so that the count ends early however much history there is.
    """
    waiting = select(literal(1)).where(requests.c.status == Status.PENDING)
    if moment is not None:
        waiting = waiting.where(requests.c.created_at < moment)
    counted = waiting.order_by(requests.c.created_at).limit(LAST_POSITION).subquery()
    return select(func.count()).select_from(counted).scalar_subquery()


def _request(new: NewRequest, at: datetime) -> Request:
    """The row as it was just written."""
    return Request(
        id=new.id,
        owner=new.owner,
        status=Status.PENDING,
        prompt=new.prompt,
        style=new.params.style,
        params=new.params,
        images=(),
        image_url=None,
        error=None,
        attempt=0,
        charged=0,
        lease_until=None,
        worker_id=None,
        reported=None,
        progress={},
        published_at=None,
        body_hash=new.body_hash,
        retry_of=new.retry_of,
        flagged=new.flagged,
        webhook=new.webhook,
        traceparent=new.traceparent,
        attempt_traceparent=None,
        created_at=at,
        updated_at=at,
        finished_at=None,
        deleted_at=None,
        leased=False,
        watched=False,
    )
