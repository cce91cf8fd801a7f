"""The history of requests, which event streams replay.

An event is inserted at the end of the transaction that changes its request's row, while that row is locked.
So the ids of one request's events are in the order of their commits, and a replay by id cannot skip one.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select

from itemforge.contract import Status
from itemforge.jobs.database import Database, Write
from itemforge.jobs.records import Event, Request
from itemforge.jobs.tables import events


def add_states(write: Write, request: Request, states: Sequence[Status]) -> None:
    """The request passed `states` and is now in the last of them."""
    for status in states:
        last = status is request.status
        _add(
            write,
            request.id,
            "state",
            {
                "id": str(request.id),
                "status": status,
                "attempt": request.attempt,
                "image_url": request.image_url if last else None,
                "error": request.error if last else None,
            },
        )
        write.passed.append(told(request, status))


def told(request: Request, status: Status) -> dict[str, Any]:
    """What the log says when a request has reached a status."""
    known: dict[str, Any] = {
        "request_id": str(request.id),
        "status": status.value,
        "attempt": request.attempt,
        "style": request.style,
        "worker_id": request.worker_id,
    }
    if request.finished_at is not None and status is request.status:
        known["seconds"] = (request.finished_at - request.created_at).total_seconds()
    fields = {name: value for name, value in known.items() if value is not None}
    # Its own trace, not that of whoever's call the transaction serves besides.
    return {**fields, "traceparent": request.traceparent}


def add_progress(write: Write, request_id: UUID, image: int, step: int, steps: int) -> None:
    """Image `image` of the request has done `step` of `steps`."""
    _add(write, request_id, "progress", {"step": step, "steps": steps, "image": image})


def _add(write: Write, request_id: UUID, kind: str, data: Mapping[str, Any]) -> None:
    write.history.append({"request_id": request_id, "type": kind, "data": dict(data)})
    write.changed.add(request_id)


async def after(db: Database, request_id: UUID, last_id: int, limit: int = 500) -> list[Event]:
    """The request's next events after `last_id`, oldest first."""
    columns = (events.c.id, events.c.request_id, events.c.type, events.c.data)
    query = select(*columns).where(events.c.request_id == request_id, events.c.id > last_id)
    async with db.read() as conn:
        rows = await conn.execute(query.order_by(events.c.id).limit(limit))
        return [Event(**row._mapping) for row in rows]
