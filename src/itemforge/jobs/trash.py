"""Deleting: hidden at once, restorable for a day, then gone; or gone for good at once.

The row stays for that day in any case, so that messages and reports still under way meet an ended request.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, update

from itemforge.contract import Status
from itemforge.jobs.clock import now
from itemforge.jobs.database import Database
from itemforge.jobs.records import Request, request_columns, to_request
from itemforge.jobs.requests import finish, lock_all
from itemforge.jobs.retention import DELETED_FOR
from itemforge.jobs.states import OPEN
from itemforge.jobs.tables import requests


async def delete(db: Database, ids: Sequence[UUID], owner: str | None = None) -> list[Request]:
    """Hide those of `ids` that are this owner's (None: anybody's); open ones are cancelled first."""
    async with db.write() as write:
        found = [
            request
            for request in (await lock_all(write, ids)).values()
            if request.deleted_at is None and owner in (None, request.owner)
        ]
        for request in found:
            if request.status in OPEN:
                await finish(write, request, Status.CANCELLED)
        hidden = await write.conn.execute(
            update(requests)
            .where(requests.c.id.in_([request.id for request in found]))
            .values(deleted_at=now(), idempotency_key=None, updated_at=now())
            .returning(*request_columns())
        )
        return [to_request(row) for row in hidden]


async def restore(db: Database, ids: Sequence[UUID], owner: str | None = None) -> list[Request]:
    """Bring back those of `ids` that were deleted within the day and not for good.

    Later ones may still have a row, but the cleaner may be at their objects.
    """
    return await _change(
        db,
        ids,
        owner,
        [requests.c.deleted_at >= now(-DELETED_FOR), requests.c.erased_at.is_(None)],
        deleted_at=None,
    )


async def erase(db: Database, ids: Sequence[UUID], owner: str | None = None) -> list[Request]:
    """Nobody can restore these any more. To be called for what `delete` has hidden; again is no error.

    Their objects are the caller's to remove.
    """
    return await _change(
        db,
        ids,
        owner,
        [requests.c.deleted_at.is_not(None)],
        erased_at=func.coalesce(requests.c.erased_at, now()),
    )


async def _change(
    db: Database, ids: Sequence[UUID], owner: str | None, where: list[ColumnElement[bool]], **values: Any
) -> list[Request]:
    if owner is not None:
        where = [*where, requests.c.owner == owner]
    statement = update(requests).where(requests.c.id.in_(ids), *where).values(updated_at=now(), **values)
    async with db.write(single=True) as write:
        changed = await write.conn.execute(statement.returning(*request_columns()))
        return [to_request(row) for row in changed]
