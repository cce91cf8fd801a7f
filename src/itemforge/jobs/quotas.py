"""How many images an owner may ask for within 24 hours, counted from the rows themselves.

A request that was cancelled before any worker took it does not count; one that failed or was deleted does.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, func, not_, select, text

from itemforge.contract import Status
from itemforge.errors import QuotaExceeded
from itemforge.jobs.clock import now
from itemforge.jobs.database import Write
from itemforge.jobs.records import NewRequest
from itemforge.jobs.tables import requests

#: Seconds that an image counts.
DAY = 86400.0
#: First half of the advisory lock's number; the second is the owner's hash.
_LOCK = 4836

_IMAGES = requests.c.params["num_images"].as_integer()


async def exceeded(write: Write, news: Sequence[NewRequest]) -> dict[UUID, QuotaExceeded]:
    """Those of the new requests that their owners' quotas have no place for; the others fit together.

    To be asked in the transaction that inserts them: until it ends no other one counts for these owners.
    """
    refused: dict[UUID, QuotaExceeded] = {}
    # In one order, so that two transactions do not wait for each other.
    for owner in sorted({new.owner for new in news if new.quota}):
        used = await _used(write, owner)
        for new in news:
            if new.owner != owner or not new.quota:
                continue
            over = used + new.params.num_images - new.quota
            if over <= 0:
                used += new.params.num_images
            elif new.params.num_images > new.quota:
                refused[new.id] = QuotaExceeded(new.quota, None)
            else:
                refused[new.id] = QuotaExceeded(new.quota, await _wait(write, owner, over))
    return refused


async def check_all(write: Write, owner: str, images: int, quota: int) -> None:
    """Refuse so many images of an owner as a whole; 0 is no quota. To be asked as `exceeded`.

    Raises:
        QuotaExceeded: they do not fit.
    """
    if not quota:
        return
    over = await _used(write, owner) + images - quota
    if images > quota:
        raise QuotaExceeded(quota, None)
    if over > 0:
        raise QuotaExceeded(quota, await _wait(write, owner, over))


async def _used(write: Write, owner: str) -> int:
    await _take_turns(write, owner)
    used = select(func.sum(_IMAGES)).where(*_counted(owner))
    return int((await write.conn.execute(used)).scalar() or 0)


async def _take_turns(write: Write, owner: str) -> None:
    """Two transactions at once would not see each other's row, and both would find a place.

    SQLite writes one by one anyway.
    """
    if write.conn.dialect.name == "postgresql":
        lock = text("SELECT pg_advisory_xact_lock(:lock, hashtext(:owner))")
        await write.conn.execute(lock, {"lock": _LOCK, "owner": owner})


def _counted(owner: str) -> tuple[ColumnElement[bool], ...]:
    untouched = (requests.c.status == Status.CANCELLED) & (requests.c.attempt == 0)
    return requests.c.owner == owner, requests.c.created_at > now(-DAY), not_(untouched)


async def _wait(write: Write, owner: str, over: int) -> float:
    """Seconds until `over` images are older than a day."""
    query = (
        select(requests.c.created_at, _IMAGES, now()).where(*_counted(owner)).order_by(requests.c.created_at)
    )
    wait = DAY
    for created, images, at in (await write.conn.execute(query)).tuples():
        wait = DAY - (at - created).total_seconds()
        over -= images
        if over <= 0:
            break
    return max(wait, 1.0)
