"""Where an owner's requests stand in line, and about how long they will take.

The queue is served first come, first served; what waits for the relay follows one owner after the other
(`turns`). So ahead of an owner's k-th waiting request are all on the queue, k - 1 of the owner's own, and of each other owner
as many as have their turn before. The time follows from measured speed (`figures`) and from the mean of what
waits; it is a guess, and none is made while nothing was drawn yet or nobody works.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, func, literal_column, select

from itemforge.contract import Status
from itemforge.jobs import turns
from itemforge.jobs.database import Database
from itemforge.jobs.figures import Backlog
from itemforge.jobs.tables import requests

#: An owner's requests that are told their place; those behind are far from their turn.
MOST = 100

_ON_QUEUE: ColumnElement[bool] = literal_column(f"status = '{Status.PENDING}' AND published_at IS NOT NULL")


@dataclass(frozen=True)
class Place:
    """`position`: 1 is next, 0 is being drawn. `seconds` until the pictures are there; None: nobody can say."""

    position: int
    seconds: float | None


async def unpublished_by_owner(db: Database) -> dict[str, int]:
    """How many requests of each owner wait for the relay; it counts them all, so it is asked through `SlowCounts`."""
    query = select(requests.c.owner, func.count()).where(turns.unpublished()).group_by(requests.c.owner)
    async with db.read() as conn:
        return {str(owner): int(n) for owner, n in (await conn.execute(query)).tuples()}


async def places(
    db: Database, owner: str, backlog: Backlog, waiting: Mapping[str, int], capacity: int
) -> dict[UUID, Place]:
    """The owner's open requests, by id. `waiting` is `unpublished_by_owner`, `capacity` the live workers' places."""
    params = requests.c.params
    columns = (requests.c.id, requests.c.owner, params, requests.c.progress)
    queued = (
        select(*columns)
        .where(_ON_QUEUE)
        .order_by(requests.c.published_at, requests.c.created_at, requests.c.id)
    )
    mine = (
        select(*columns)
        .where(turns.unpublished(), requests.c.owner == owner)
        .order_by(requests.c.created_at, requests.c.id)
        .limit(MOST)
    )
    drawn = (
        select(*columns).where(requests.c.status == Status.PROCESSING, requests.c.owner == owner).limit(MOST)
    )
    async with db.read() as conn:
        on_queue = (await conn.execute(queued)).all()
        own = (await conn.execute(mine)).all()
        drawing = (await conn.execute(drawn)).all()
    speed = _Speed(backlog, capacity)
    found: dict[UUID, Place] = {}
    for row in drawing:
        found[row.id] = Place(0, speed.left(row))
    taken: dict[str, int] = {}
    for place, row in enumerate(on_queue, start=1):
        taken[row.owner] = taken.get(row.owner, 0) + 1
        if row.owner == owner:
            found[row.id] = Place(place, speed.until(place, row))
    for kth, row in enumerate(own, start=1):
        turn = taken.get(owner, 0) + kth
        others = sum(
            min(count, max(0, turn - 1 - taken.get(other, 0)))
            for other, count in waiting.items()
            if other != owner
        )
        place = len(on_queue) + kth + others
        found.setdefault(row.id, Place(place, speed.until(place, row)))
    return found


@dataclass(frozen=True)
class _Speed:
    backlog: Backlog
    capacity: int

    @property
    def known(self) -> bool:
        return self.backlog.measured and self.capacity > 0

    def left(self, row: Row[Any]) -> float | None:
        """Seconds until the pictures of a request that is being drawn are there."""
        if not self.known:
            return None
        steps = int(row.params["num_inference_steps"])
        told = row.progress or {}
        images = row.params.get("num_images", 1)
        done = min((image["step"] for image in told.values()), default=0) if len(told) == images else 0
        return float(max(1, steps - done)) * self.backlog.step_seconds

    def until(self, place: int, row: Row[Any]) -> float | None:
        """The same of a request that waits."""
        if not self.known:
            return None
        backlog = self.backlog
        ahead = place - 1 + backlog.processing
        wait = 0.0
        if ahead >= self.capacity:
            # What is being drawn is half done, taken all together.
            mean = backlog.steps / max(1, backlog.pending)
            wait = (place - 1 + backlog.processing / 2) * mean / self.capacity
        rounds = max(1.0, row.params.get("num_images", 1) / self.capacity)
        own = int(row.params["num_inference_steps"]) * rounds
        return float((wait + own) * backlog.step_seconds)
