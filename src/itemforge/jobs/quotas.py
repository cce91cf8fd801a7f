"""How many images an owner may ask for within 24 hours, counted from the rows themselves.

A request that was cancelled before any worker took it does not count; one that failed or was deleted does.
"""

from sqlalchemy import ColumnElement, func, not_, select, text

from itemforge.contract import Status
from itemforge.errors import QuotaExceeded
from itemforge.jobs.clock import now
from itemforge.jobs.database import Write
from itemforge.jobs.records import Request
from itemforge.jobs.tables import requests

#: Seconds that an image counts.
DAY = 86400.0
#: First half of the advisory lock's number; the second is the owner's hash.
_LOCK = 4836


async def take_turns(write: Write, owner: str) -> None:
    """From here on, no other transaction counts for this owner until ours ends.

    Two at once would not see each other's row, and both would find a place. SQLite writes one by one anyway.
    """
    if write.conn.dialect.name == "postgresql":
        lock = text("SELECT pg_advisory_xact_lock(:lock, hashtext(:owner))")
        await write.conn.execute(lock, {"lock": _LOCK, "owner": owner})


async def check(write: Write, request: Request, quota: int) -> None:
    """For a row that was just inserted.

    Raises:
        QuotaExceeded: with it the owner has more than `quota` images.
    """
    images = requests.c.params["num_images"].as_integer()
    used = select(func.sum(images)).where(*_counted(request.owner))
    over = int((await write.conn.execute(used)).scalar_one()) - quota
    if over <= 0:
        return
    if request.params.num_images > quota:
        raise QuotaExceeded(quota, None)
    older = (
        select(requests.c.created_at, images, now())
        .where(*_counted(request.owner), requests.c.id != request.id)
        .order_by(requests.c.created_at)
    )
    wait = DAY
    for created, images_then, at in (await write.conn.execute(older)).tuples():
        over -= images_then
        wait = DAY - (at - created).total_seconds()
        if over <= 0:
            break
    raise QuotaExceeded(quota, max(wait, 1.0))


def _counted(owner: str) -> tuple[ColumnElement[bool], ...]:
    untouched = (requests.c.status == Status.CANCELLED) & (requests.c.attempt == 0)
    return requests.c.owner == owner, requests.c.created_at > now(-DAY), not_(untouched)
