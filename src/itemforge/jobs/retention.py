"""What is old enough to go: ended requests, deleted ones, and the history of what ended."""

from sqlalchemy import and_, delete, exists, or_, select

from itemforge.jobs.clock import now
from itemforge.jobs.database import Database
from itemforge.jobs.records import Request, request_columns, to_request
from itemforge.jobs.states import TERMINAL
from itemforge.jobs.tables import events, requests, webhook_deliveries

_DAY = 86400.0
#: A deleted request's row outlives late messages and reports by this many seconds.
DELETED_FOR = _DAY
#: Progress of an ended request is of no interest after so many seconds; its states remain.
_PROGRESS_FOR = 3600.0
_CHUNK = 100
_EVENTS_CHUNK = 5000


async def expired_requests(db: Database, retain_days: float) -> list[Request]:
    """Some requests that are to be purged; 0 days keeps all but the deleted ones.

    One whose end still has to be told to a webhook waits for that.
    """
    old = requests.c.deleted_at < now(-DELETED_FOR)
    if retain_days > 0:
        ended = and_(requests.c.status.in_(TERMINAL), requests.c.finished_at < now(-retain_days * _DAY))
        old = or_(old, ended)
    untold = exists().where(
        webhook_deliveries.c.request_id == requests.c.id, webhook_deliveries.c.next_at.is_not(None)
    )
    async with db.read() as conn:
        rows = await conn.execute(select(*request_columns()).where(old, ~untold).limit(_CHUNK))
        return [to_request(row) for row in rows]


async def purge(db: Database, request: Request) -> None:
    """Remove the row and its events; its objects are gone already."""
    async with db.write() as write:
        await write.conn.execute(delete(requests).where(requests.c.id == request.id))


async def purge_events(db: Database, retain_days: float) -> int:
    """Remove old events of ended requests, and their progress early; returns how many (a chunk at most)."""
    finished = requests.c.finished_at
    gone = and_(events.c.type == "progress", finished < now(-_PROGRESS_FOR))
    if retain_days > 0:
        gone = or_(gone, and_(finished.is_not(None), events.c.created_at < now(-retain_days * _DAY)))
    ids = (
        select(events.c.id)
        .join(requests, requests.c.id == events.c.request_id)
        .where(gone)
        .limit(_EVENTS_CHUNK)
    )
    async with db.write() as write:
        return int((await write.conn.execute(delete(events).where(events.c.id.in_(ids)))).rowcount)
