"""Batches: many requests that were asked for together, one for each variation of each thing.

A cell is the place of one variation, and points at the request that stands for it now. A re-roll puts a new
request there, whose `retry_of` is the old one. Cells are named by their requests' ids: who has not seen yet that
one was re-rolled does not judge the new picture by mistake.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)

from itemforge.contract import Status
from itemforge.errors import PermanentError
from itemforge.jobs import quotas
from itemforge.jobs.clock import now
from itemforge.jobs.creation import insert_all
from itemforge.jobs.database import Database, Write
from itemforge.jobs.records import NewRequest, Request
from itemforge.jobs.requests import cancel_all, get_all, lock_all
from itemforge.jobs.states import OPEN
from itemforge.jobs.tables import batch_items, batches, requests

#: Requests that one transaction ends at most.
_CHUNK = 500
#: Seconds before a look within which changes may have been committed after it.
_OVERLAP = 3.0


class Verdict(StrEnum):
    NONE = "none"
    APPROVED = "approved"
    REJECTED = "rejected"


@dataclass(frozen=True, kw_only=True)
class NewBatch:
    """`settings`: what was asked for all things; `size`: its cells."""

    id: UUID
    owner: str
    name: str
    style: str
    settings: dict[str, Any]
    things: int
    size: int
    body_hash: str
    idempotency_key: str | None = None


@dataclass(frozen=True, kw_only=True)
class Batch(NewBatch):
    created_at: datetime


@dataclass(frozen=True)
class NewCell:
    thing: int
    variation: int
    name: str
    request: NewRequest


@dataclass(frozen=True)
class Cell:
    """`request` is None when it was deleted, or is too old to be kept."""

    thing: int
    variation: int
    name: str
    request_id: UUID
    verdict: Verdict
    tries: int
    request: Request | None = None

    @property
    def status(self) -> Status | None:
        return self.request.status if self.request else None

    @property
    def can_reroll(self) -> bool:
        """Rejected, or ended without a picture."""
        status = self.status
        if status is Status.COMPLETED:
            return self.verdict is Verdict.REJECTED
        return status in (Status.FAILED, Status.CANCELLED)


@dataclass
class Counts:
    """Cells by what became of them; `gone`: their requests are not there any more."""

    status: dict[Status, int] = field(default_factory=lambda: dict.fromkeys(Status, 0))
    verdict: dict[Verdict, int] = field(default_factory=lambda: dict.fromkeys(Verdict, 0))
    gone: int = 0
    undecided: int = 0  # Completed, and no verdict yet
    again: int = 0  # rejected or Failed

    @property
    def open(self) -> int:
        return sum(self.status[status] for status in OPEN)


class Misfit(PermanentError):
    """Nothing was changed: `unknown` are no cells of the batch now, `unfit` not in the state for it."""

    def __init__(self, unknown: Sequence[UUID] = (), unfit: Sequence[Cell] = ()) -> None:
        super().__init__(f"{len(unknown)} ids are not known, {len(unfit)} are not in the state for it")
        self.unknown = unknown
        self.unfit = unfit


async def create(db: Database, batch: NewBatch, cells: Sequence[NewCell], quota: int) -> tuple[Batch, bool]:
    """Insert a batch with its requests, all or nothing; whether it is new.

    The caller compares `body_hash` with its own to tell a repetition from a conflict.

    Raises:
        QuotaExceeded: its images do not fit into `quota`.
    """
    async with db.write() as write:
        inserted = await write.conn.execute(
            write.insert(batches)
            .values(**asdict(batch), created_at=now())
            .on_conflict_do_nothing()
            .returning(batches.c.created_at)
        )
        if inserted.scalar_one_or_none() is not None:
            await quotas.check_all(write, batch.owner, batch.size, quota)
            await insert_all(write, [cell.request for cell in cells])
            await write.conn.execute(
                insert(batch_items).values(_NEW), [_cell_values(batch, c) for c in cells]
            )
            found = select(*_COLUMNS).where(batches.c.id == batch.id)
            return Batch(**(await write.conn.execute(found)).one()._mapping), True
    old = await earlier(db, batch.owner, batch.idempotency_key)
    assert old is not None  # noqa: S101  # its id is drawn, so the key was there; batches are not deleted young
    return old, False


def _cell_values(batch: NewBatch, cell: NewCell) -> dict[str, Any]:
    return {
        "batch_id": batch.id,
        "thing": cell.thing,
        "variation": cell.variation,
        "name": cell.name,
        "request_id": cell.request.id,
    }


async def earlier(db: Database, owner: str, idempotency_key: str | None) -> Batch | None:
    """What the owner's idempotency key stands for already."""
    if idempotency_key is None:
        return None
    return await _one(db, batches.c.owner == owner, batches.c.idempotency_key == idempotency_key)


async def get(db: Database, batch_id: UUID, owner: str | None = None) -> Batch | None:
    """The batch; None when there is none, or it is not `owner`'s."""
    mine = [] if owner is None else [batches.c.owner == owner]
    return await _one(db, batches.c.id == batch_id, *mine)


async def _one(db: Database, *conditions: ColumnElement[bool]) -> Batch | None:
    async with db.read() as conn:
        row = (await conn.execute(select(*_COLUMNS).where(*conditions))).one_or_none()
    return Batch(**row._mapping) if row is not None else None


async def find(
    db: Database, owner: str | None, limit: int, before: tuple[datetime, UUID] | None = None
) -> list[Batch]:
    """Newest first; `before` is the (created_at, id) of the last one already seen."""
    query = select(*_COLUMNS).order_by(batches.c.created_at.desc(), batches.c.id.desc()).limit(limit)
    if owner is not None:
        query = query.where(batches.c.owner == owner)
    if before is not None:
        query = query.where(
            tuple_(batches.c.created_at, batches.c.id)
            < tuple_(literal(before[0], batches.c.created_at.type), literal(before[1], batches.c.id.type))
        )
    async with db.read() as conn:
        return [Batch(**row._mapping) for row in await conn.execute(query)]


async def count(db: Database, ids: Sequence[UUID]) -> dict[UUID, Counts]:
    """How the cells of these batches stand."""
    shown = and_(requests.c.id == batch_items.c.request_id, requests.c.deleted_at.is_(None))
    columns = (batch_items.c.batch_id, requests.c.status, batch_items.c.verdict)
    query = (
        select(*columns, func.count())
        .select_from(batch_items.outerjoin(requests, shown))
        .where(batch_items.c.batch_id.in_(ids))
        .group_by(*columns)
    )
    found = {batch_id: Counts() for batch_id in ids}
    async with db.read() as conn:
        for batch_id, status, verdict, n in (await conn.execute(query)).tuples():
            _add(found[batch_id], Status(status) if status else None, Verdict(verdict), int(n))
    return found


def _add(counts: Counts, status: Status | None, verdict: Verdict, n: int) -> None:
    counts.verdict[verdict] += n
    if status is None:
        counts.gone += n
        return
    counts.status[status] += n
    if status is Status.COMPLETED and verdict is Verdict.NONE:
        counts.undecided += n
    if status is Status.FAILED or (status is Status.COMPLETED and verdict is Verdict.REJECTED):
        counts.again += n


async def cells(db: Database, batch_id: UUID, first: int, things: int) -> list[Cell]:
    """The cells of so many things, from the `first` (0) on, in the order of the list."""
    place = and_(batch_items.c.thing >= first, batch_items.c.thing < first + things)
    return await _cells(db, batch_id, place)


async def changed(
    db: Database, batch_id: UUID, since: datetime | None, things: int
) -> tuple[list[Cell], datetime]:
    """Cells of the first `things` that changed after `since`, and the moment to ask from the next time.

    Some may come twice: a transaction that is under way at a look counts as later than it.
    """
    async with db.read() as conn:
        at = (await conn.execute(select(now(-_OVERLAP)))).scalar_one()
    if since is None:
        return [], at
    touched = exists().where(requests.c.id == batch_items.c.request_id, requests.c.updated_at > since)
    place = and_(batch_items.c.thing < things, or_(batch_items.c.updated_at > since, touched))
    return await _cells(db, batch_id, place), at


async def with_verdict(db: Database, batch_id: UUID, verdict: Verdict | None) -> list[Cell]:
    """The drawn cells of a verdict (None: of any), in the order of the list."""
    found = await _cells(db, batch_id, literal(True) if verdict is None else batch_items.c.verdict == verdict)
    return [cell for cell in found if cell.status is Status.COMPLETED]


async def named(db: Database, batch_id: UUID, ids: Sequence[UUID]) -> list[Cell]:
    """The cells for which these requests stand."""
    return await _cells(db, batch_id, batch_items.c.request_id.in_(ids))


async def judge(db: Database, batch_id: UUID, verdict: Verdict, ids: Sequence[UUID] | None) -> list[Cell]:
    """Give a verdict on drawn cells, and return them; `ids` None: on all that have none yet.

    Raises:
        Misfit: an id is none of the batch's now, or not drawn.
    """
    async with db.write() as write:
        found = await _locked(write, batch_id, ids)
        if ids is None:
            found = [c for c in found if c.verdict is Verdict.NONE and c.status is Status.COMPLETED]
        elif unfit := [c for c in found if c.status is not Status.COMPLETED]:
            raise Misfit(unfit=unfit)
        await write.conn.execute(
            update(batch_items)
            .where(batch_items.c.batch_id == batch_id)
            .where(batch_items.c.request_id.in_([cell.request_id for cell in found]))
            .values(verdict=verdict, updated_at=now())
        )
    return found


async def reroll(
    db: Database,
    batch: Batch,
    renew: Callable[[Request], NewRequest],
    ids: Sequence[UUID] | None,
    quota: int,
) -> list[NewRequest]:
    """Put new requests into cells that `can_reroll`; `ids` None: into all that are rejected or Failed.

    Raises:
        Misfit: an id is none of the batch's now, or its cell is not one of these.
        QuotaExceeded: the images do not fit into `quota`.
    """
    async with db.write() as write:
        found = await _locked(write, batch.id, ids)
        if ids is None:
            found = [cell for cell in found if cell.can_reroll and cell.status is not Status.CANCELLED]
        elif unfit := [cell for cell in found if not cell.can_reroll]:
            raise Misfit(unfit=unfit)
        news = [renew(cell.request) for cell in found if cell.request is not None]
        if not news:
            return []
        await quotas.check_all(write, batch.owner, len(news), quota)
        await insert_all(write, news)
        await write.conn.execute(
            _RENEW, [{"old": new.retry_of, "of": batch.id, "new": new.id} for new in news]
        )
    return news


async def cancel(db: Database, batch_id: UUID) -> int:
    """End all open requests of a batch as Cancelled, some at a time; returns how many."""
    ended = 0
    is_open = and_(batch_items.c.batch_id == batch_id, requests.c.status.in_(OPEN))
    joined = batch_items.join(requests, requests.c.id == batch_items.c.request_id)
    query = select(requests.c.id).select_from(joined).where(is_open).limit(_CHUNK)
    while True:
        async with db.write() as write:
            ids = (await write.conn.execute(query)).scalars().all()
            if not ids:
                return ended
            ended += await cancel_all(write, ids)


async def forget(db: Database, retain_days: float) -> int:
    """Remove old batches of which no request is left; returns how many. 0 days keep all."""
    if retain_days <= 0:
        return 0
    joined = batch_items.join(requests, requests.c.id == batch_items.c.request_id)
    left = exists().select_from(joined).where(batch_items.c.batch_id == batches.c.id)
    old = and_(batches.c.created_at < now(-retain_days * 86400.0), ~left)
    async with db.write() as write:
        return int((await write.conn.execute(delete(batches).where(old))).rowcount)


async def _locked(write: Write, batch_id: UUID, ids: Sequence[UUID] | None) -> list[Cell]:
    """Cells that nobody else changes until the transaction ends, with their requests as they are now."""
    query = select(*_CELL).where(batch_items.c.batch_id == batch_id).with_for_update()
    if ids is not None:
        query = query.where(batch_items.c.request_id.in_(ids))
    rows = (await write.conn.execute(query.order_by(*_PLACE))).all()
    if ids is not None and (unknown := set(ids) - {row.request_id for row in rows}):
        raise Misfit(unknown=sorted(unknown))
    found = await lock_all(write, [row.request_id for row in rows])
    return [_cell(row._mapping, found) for row in rows]


async def _cells(db: Database, batch_id: UUID, which: ColumnElement[bool]) -> list[Cell]:
    query = select(*_CELL).where(batch_items.c.batch_id == batch_id, which).order_by(*_PLACE)
    async with db.read() as conn:
        rows = (await conn.execute(query)).all()
    found = await get_all(db, [row.request_id for row in rows])
    return [_cell(row._mapping, found) for row in rows]


def _cell(row: Any, found: dict[UUID, Request]) -> Cell:
    request = found.get(row["request_id"])
    if request is not None and request.deleted_at is not None:
        request = None
    return Cell(**{**row, "verdict": Verdict(row["verdict"])}, request=request)


_STORED = tuple(Batch.__dataclass_fields__)
_COLUMNS = [batches.c[name] for name in _STORED]
_CELL = [batch_items.c[name] for name in Cell.__dataclass_fields__ if name != "request"]
_PLACE = (batch_items.c.thing, batch_items.c.variation)
#: What every new cell begins with.
_NEW = {"verdict": Verdict.NONE.value, "tries": 1, "updated_at": now()}
_RENEW = (
    update(batch_items)
    .where(batch_items.c.batch_id == bindparam("of"), batch_items.c.request_id == bindparam("old"))
    .values(
        request_id=bindparam("new"),
        verdict=Verdict.NONE.value,
        tries=batch_items.c.tries + 1,
        updated_at=now(),
    )
)
