"""How much was done when: ended requests of the last hour or day, in even steps of time."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Integer, cast, extract, func, select

from itemforge.contract import Status
from itemforge.jobs.clock import instant, now
from itemforge.jobs.database import Database
from itemforge.jobs.tables import requests


class Span(StrEnum):
    """How far back one looks."""

    HOUR = "hour"
    DAY = "day"

    @property
    def step(self) -> int:
        """Seconds that are counted together: a minute, or a quarter of an hour."""
        return 60 if self is Span.HOUR else 900

    @property
    def steps(self) -> int:
        return 60 if self is Span.HOUR else 96


@dataclass(frozen=True)
class Slot:
    """What ended from `at` until a step later: requests, and images of the completed ones."""

    at: datetime
    completed: int = 0
    failed: int = 0
    images: int = 0


async def throughput(db: Database, span: str) -> list[Slot]:
    """The slots of a `Span`, the oldest first; the last one is still going on. Deleted requests count: they were drawn."""
    chosen = Span(span)
    at = requests.c.finished_at
    second = extract("epoch", at)
    began = cast(second - second % chosen.step, Integer)
    images = cast(requests.c.params["num_images"].as_string(), Integer)
    completed = requests.c.status == Status.COMPLETED
    query = (
        select(
            began,
            func.count().filter(completed),
            func.count().filter(requests.c.status == Status.FAILED),
            func.coalesce(func.sum(images).filter(completed), 0),
        )
        .where(at > now(-chosen.step * chosen.steps))
        .group_by(began)
    )
    async with db.read() as conn:
        moment = (await conn.execute(select(instant()))).scalar_one()
        found = {row[0]: row[1:] for row in (await conn.execute(query)).tuples()}
    last = int(moment.timestamp()) // chosen.step
    slots = []
    for number in range(last - chosen.steps + 1, last + 1):
        start = number * chosen.step
        counts = found.get(start, (0, 0, 0))
        begin = moment + timedelta(seconds=start - moment.timestamp())
        slots.append(Slot(begin.replace(microsecond=0), *map(int, counts)))
    return slots


async def images_per_hour(db: Database) -> int:
    """Images that were completed within the last hour."""
    images = cast(requests.c.params["num_images"].as_string(), Integer)
    query = select(func.coalesce(func.sum(images), 0)).where(
        requests.c.finished_at > now(-3600), requests.c.status == Status.COMPLETED
    )
    async with db.read() as conn:
        return int((await conn.execute(query)).scalar_one())
