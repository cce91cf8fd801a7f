"""Requests that failed and that no operator has settled yet: sent again, or let be."""

from uuid import UUID

from sqlalchemy import and_, literal_column, select, update

from itemforge.contract import Status
from itemforge.jobs.clock import now
from itemforge.jobs.database import Database
from itemforge.jobs.records import Request, request_columns, to_request
from itemforge.jobs.tables import requests

# As the index has it, with its constant: a prepared plan uses a partial index only if it sees that it serves.
_UNSETTLED = and_(
    requests.c.status == literal_column(f"'{Status.FAILED}'"),
    requests.c.settled_at.is_(None),
    requests.c.deleted_at.is_(None),
)


async def unsettled(db: Database, limit: int) -> list[Request]:
    """The newest first."""
    query = select(*request_columns()).where(_UNSETTLED).order_by(requests.c.finished_at.desc()).limit(limit)
    async with db.read() as conn:
        return [to_request(row) for row in await conn.execute(query)]


async def settle(db: Database, request_id: UUID) -> None:
    """Leave a Failed request out of the list from now on; the row itself stays as it is."""
    async with db.write() as write:
        await write.conn.execute(
            update(requests).where(requests.c.id == request_id, _UNSETTLED).values(settled_at=now())
        )
