"""A worker's sign of life: who it is, how far its images are, and what it should know in return."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, case, delete, func, select, update

from itemforge.contract import Heartbeat, HeartbeatAnswer, HeartbeatRow, Status, WorkerFacts, WorkerState
from itemforge.jobs import events
from itemforge.jobs.clock import now
from itemforge.jobs.database import Database, Write
from itemforge.jobs.records import Request, Worker
from itemforge.jobs.requests import lock_all, set_state
from itemforge.jobs.signals import Preview
from itemforge.jobs.states import OPEN
from itemforge.jobs.tables import requests, workers

#: Progress events of one image are at least so many seconds apart (a heartbeat comes once a second).
_PROGRESS_PAUSE = 0.9
#: No worker has more places; one that says so would open the relay's window for everything.
_MOST_FREE = 1024


async def beat(
    db: Database, heartbeat: Heartbeat, lease: float, clock: Callable[[], float]
) -> list[HeartbeatAnswer]:
    """Renew leases, keep progress, pass previews on. One answer for each request of the heartbeat.

    `clock` (seconds) only spaces progress events.
    """
    rows: dict[UUID, list[HeartbeatRow]] = {}
    for row in heartbeat.rows:
        rows.setdefault(row.request_id, []).append(row)
    answers: dict[UUID, HeartbeatAnswer] = {}
    async with db.write() as write:
        held = await lock_all(write, rows) if rows else {}
        renewed: dict[UUID, dict[str, Any]] = {}
        for request_id, told in rows.items():
            request = held.get(request_id)
            if request is not None and request.status is Status.CANCELLED:
                answers[request_id] = HeartbeatAnswer(request_id=request_id, cancel=True)
            elif request is None or not _is_holder(request, told):
                answers[request_id] = HeartbeatAnswer(request_id=request_id, lost=True)
            else:
                renewed[request_id] = _advanced(write, request, told, clock())
                if (
                    request.status is Status.PENDING
                ):  # swept, but nobody else took it: the same attempt goes on
                    await set_state(write, request, Status.PROCESSING)
                answers[request_id] = HeartbeatAnswer(request_id=request_id, watch=request.watched)
        await _renew(write, renewed, lease)
        await _remember(write, heartbeat)
    for row in heartbeat.rows:
        if row.preview is not None and answers[row.request_id].watch:
            await db.preview(row.request_id, Preview(row.image, row.preview))
    return [answers[request_id] for request_id in rows]


async def _renew(write: Write, progress: Mapping[UUID, dict[str, Any]], lease: float) -> None:
    """All rows of a heartbeat in one round trip: a fleet sends one heartbeat a second for each worker."""
    if progress:
        renew = update(requests).where(requests.c.id == bindparam("row"))
        await write.conn.execute(
            renew.values(lease_until=now(lease), progress=bindparam("steps")),
            [{"row": request_id, "steps": steps} for request_id, steps in progress.items()],
        )


def _is_holder(request: Request, rows: Sequence[HeartbeatRow]) -> bool:
    newest = max(row.attempt for row in rows)
    return request.status in OPEN and request.attempt == newest > 0 and request.reported is None


def _advanced(
    write: Write, request: Request, rows: Sequence[HeartbeatRow], at: float
) -> dict[str, dict[str, Any]]:
    """The request's progress with these rows in it."""
    progress = {**request.progress}
    for row in rows:
        _advance(write, progress, row, at)
    return progress


def _advance(write: Write, progress: dict[str, dict[str, Any]], row: HeartbeatRow, at: float) -> None:
    """Keep an image's newest step; tell it unless the last telling is too fresh."""
    known = progress.get(str(row.image), {"step": -1, "at": None})
    if row.step <= known["step"]:
        return
    told = known["at"]
    if told is None or not 0 <= at - told < _PROGRESS_PAUSE:
        events.add_progress(write, row.request_id, row.image, row.step, row.steps)
        told = at
    progress[str(row.image)] = {"step": row.step, "steps": row.steps, "at": told}


async def _remember(write: Write, heartbeat: Heartbeat) -> None:
    seen = {
        "state": heartbeat.state.value,
        "free": min(heartbeat.free, _MOST_FREE),
        "in_hand": len(heartbeat.rows),
        "held": heartbeat.held,
        "facts": heartbeat.facts.model_dump(mode="json") if heartbeat.facts else None,
        "last_seen": now(),
    }
    await write.conn.execute(
        write.insert(workers)
        .values(worker_id=heartbeat.worker_id, first_seen=now(), **seen)
        .on_conflict_do_update(index_elements=["worker_id"], set_=seen)
    )


async def fleet(db: Database, silence: float) -> list[Worker]:
    """All workers known, the freshest first; live ones were heard within `silence` seconds."""
    live = (workers.c.last_seen > now(-silence)).label("live")
    query = select(workers, live).order_by(workers.c.last_seen.desc(), workers.c.worker_id)
    async with db.read() as conn:
        found = [dict(row._mapping) for row in await conn.execute(query)]
    return [
        Worker(
            **{
                **row,
                "state": WorkerState(row["state"]),
                "facts": WorkerFacts.model_validate(row["facts"]) if row["facts"] else None,
            }
        )
        for row in found
    ]


async def drawing(db: Database, owner: str | None = None) -> dict[str, list[UUID]]:
    """The requests of an owner (None: of all) that workers draw now, by worker, the oldest first."""
    query = (
        select(requests.c.worker_id, requests.c.id)
        .where(requests.c.status == Status.PROCESSING, requests.c.worker_id.is_not(None))
        .where(requests.c.deleted_at.is_(None), requests.c.lease_until > now())
        .order_by(requests.c.created_at, requests.c.id)
    )
    if owner is not None:
        query = query.where(requests.c.owner == owner)
    found: dict[str, list[UUID]] = {}
    async with db.read() as conn:
        for worker_id, request_id in (await conn.execute(query)).tuples():
            found.setdefault(worker_id, []).append(request_id)
    return found


def live_capacity(silence: float) -> Any:
    """A scalar subquery: images that ready workers have in hand or could take."""
    ready = (workers.c.state == WorkerState.READY) & (workers.c.last_seen > now(-silence))
    places = case((ready, workers.c.free + workers.c.in_hand), else_=0)
    return select(func.coalesce(func.sum(places), 0)).scalar_subquery()


def live_held(silence: float) -> Any:
    """A scalar subquery: messages that wait unclaimed in live workers."""
    held = case((workers.c.last_seen > now(-silence), workers.c.held), else_=0)
    return select(func.coalesce(func.sum(held), 0)).scalar_subquery()


async def forget(db: Database, seconds: float) -> None:
    """Drop workers that were not heard of for so long."""
    async with db.write() as write:
        await write.conn.execute(delete(workers).where(workers.c.last_seen < now(-seconds)))
