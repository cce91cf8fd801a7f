"""What happens to all requests of an owner, for one stream that tells it.

The ids of one request's events are in the order of their commits; those of different requests are not: on
PostgreSQL a transaction may take its ids first and commit last. So a feed has no place in the row of all ids
that it could go on from, but the last id of each request, and where it has to begin anew it reads a little of
what it told already. An event may then come twice, and none is left out.
"""

import time
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Self
from uuid import UUID

from sqlalchemy import ColumnElement, literal_column, select, union_all

from itemforge.contract import Status
from itemforge.jobs import turns
from itemforge.jobs.clock import instant
from itemforge.jobs.database import Database
from itemforge.jobs.records import Event
from itemforge.jobs.signals import Preview
from itemforge.jobs.tables import events, requests

#: What is read again where a feed begins anew: longer than any transaction lives.
LOOK_BACK = timedelta(seconds=60)
#: Requests that a feed follows at most, of those that are open and of those that have ended each.
MOST = 1000
#: Seconds after which it looks for itself, in case a signal was lost.
_LOOK = 5.0
#: Requests whose events one statement reads.
_CHUNK = 200


class Feed:
    """The events of an owner's requests, those of each in order.

    Without `last_id` it begins with the history of the open requests and of those that ended within the
    last minute; with it, with all since a minute before that event. Of requests that have ended, the first
    look reads states only.
    """

    def __init__(self, db: Database, owner: str, last_id: int = 0) -> None:
        self._db = db
        self._owner = owner
        self._last_id = last_id
        self._following = db.signals.follow(owner)
        #: The last id that was told of each request that is followed.
        self._told: dict[UUID, int] = {}
        #: What was committed before it is told.
        self._since: datetime | None = None
        self._look_at = 0.0

    def __enter__(self) -> Self:
        self._following.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._following.__exit__()

    async def news(self) -> list[Event]:
        """What happened since the last call.

        Raises:
            DatabaseUnavailable: nothing is lost; call again.
        """
        look, changed = self._following.take()
        if not look and time.monotonic() < self._look_at:
            return await self._read(changed & self._told.keys())
        self._look_at = 0.0  # an error below means another look
        found = await self._look()
        self._look_at = time.monotonic() + _LOOK
        return found

    async def wait(self, at_most: float) -> None:
        """Until there may be news, or `at_most` seconds."""
        await self._following.wait(at_most)

    def take_previews(self) -> dict[tuple[UUID, int], Preview]:
        """Previews since the last call, by request and image."""
        return self._following.take_previews()

    async def _look(self) -> list[Event]:
        async with self._db.read() as conn:
            at = (await conn.execute(select(instant()))).scalar_one()
        floor = await self._floor(at) if self._since is None else None
        since = self._since or floor or at - LOOK_BACK
        open_ids, ended = await self._find(since)
        new = (open_ids | ended) - self._told.keys()
        # Before the events are read, or what comes in between would be missed.
        self._following.only(open_ids | ended)
        self._told = {request_id: self._told.get(request_id, 0) for request_id in open_ids | ended}
        found = await self._read(new & open_ids, floor)
        found += await self._read(new & ended, floor, states_only=self._since is None)
        found += await self._read(self._told.keys() - new, since)
        self._since = at - LOOK_BACK
        return sorted(found, key=lambda event: event.id)

    async def _floor(self, at: datetime) -> datetime | None:
        """A minute before the event that the client had last, or the first one after it that still is there."""
        if not self._last_id:
            return None
        query = select(events.c.created_at).where(events.c.id >= self._last_id).order_by(events.c.id).limit(1)
        async with self._db.read() as conn:
            return ((await conn.execute(query)).scalar_one_or_none() or at) - LOOK_BACK

    async def _find(self, since: datetime) -> tuple[set[UUID], set[UUID]]:
        """The owner's open requests, and those that have ended `since`."""
        mine = requests.c.owner == self._owner
        # Three indexes, one for each way of being open, where one condition would read the owner's whole past.
        waiting: ColumnElement[bool] = literal_column(
            f"status = '{Status.PENDING}' AND published_at IS NOT NULL"
        )
        ways = (turns.unpublished(), waiting, requests.c.status == Status.PROCESSING)
        opened = union_all(*(select(requests.c.id).where(mine, way) for way in ways)).limit(MOST)
        ended = (
            select(requests.c.id)
            .where(mine, requests.c.finished_at >= since, requests.c.deleted_at.is_(None))
            .order_by(requests.c.finished_at.desc())
            .limit(MOST)
        )
        async with self._db.read() as conn:
            open_ids = set((await conn.execute(opened)).scalars())
            return open_ids, set((await conn.execute(ended)).scalars()) - open_ids

    async def _read(
        self, ids: Collection[UUID], since: datetime | None = None, *, states_only: bool = False
    ) -> list[Event]:
        """The events of these requests that were not told, and by that are."""
        found: list[Event] = []
        wanted = sorted(ids)
        for start in range(0, len(wanted), _CHUNK):
            found += await self._read_chunk(wanted[start : start + _CHUNK], since, states_only)
        return found

    async def _read_chunk(self, ids: list[UUID], since: datetime | None, states_only: bool) -> list[Event]:
        conditions: list[ColumnElement[bool]] = [
            events.c.request_id.in_(ids),
            events.c.id > min(self._told[each] for each in ids),
        ]
        if since is not None:
            conditions.append(events.c.created_at >= since)
        if states_only:
            conditions.append(events.c.type == "state")
        columns = (events.c.id, events.c.request_id, events.c.type, events.c.data)
        async with self._db.read() as conn:
            rows = await conn.execute(select(*columns).where(*conditions).order_by(events.c.id))
            read = [Event(**row._mapping) for row in rows]
        new = [event for event in read if event.id > self._told[event.request_id]]
        for event in new:
            self._told[event.request_id] = event.id
        return new
