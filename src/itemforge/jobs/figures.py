"""The system in figures, for whoever watches it: what waits, how long already, and who could do it.

`backlog_steps` is work, not messages: denoising steps of all images that wait. How long it will take
follows from two measured things. An image that was claimed takes `step_seconds` for each of its steps until
it is reported, its turns in the batch, its upload and its report included; and the live workers have
`places` images in hand or could take so many. By Little's law they do `places / step_seconds` steps a
second, so the backlog lasts `backlog_steps * step_seconds / places` seconds. Without any place it is what one
place would need: a figure by which workers can be started from none.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Integer, and_, case, cast, func, select

from itemforge.contract import Status, WorkerState
from itemforge.jobs import turns
from itemforge.jobs.clock import instant, now
from itemforge.jobs.database import Database
from itemforge.jobs.heartbeats import live_capacity
from itemforge.jobs.tables import events, requests, workers

#: Seconds a step while nothing was drawn yet: about what SD 1.5 takes on a small GPU.
ASSUMED_STEP_SECONDS = 0.15
#: So many of the newest completed requests say how long a step takes.
_MEASURED = 50
#: A worker that was not heard of for so many seconds, and had not said that it ends, counts as silent; later
#: it is forgotten.
_SILENT_FOR = 3600.0
SILENT = "silent"


@dataclass(frozen=True)
class Load:
    """Quickly read: no figure needs more than an index, however much waits."""

    oldest_seconds: float  # age of the oldest Pending request; 0 when none waits
    places: int
    workers: Mapping[str, int]  # by state, and those that are silent


@dataclass(frozen=True)
class Backlog:
    """All that waits, counted: its cost grows with it, so it is asked through `SlowCounts`."""

    pending: int
    processing: int
    unpublished: int
    steps: int
    step_seconds: float
    measured: bool = True  # whether `step_seconds` is: nothing was drawn yet otherwise


def backlog_seconds(backlog: Backlog, places: int) -> float:
    """How long the live workers need for all that waits; without any, how long one place would."""
    return backlog.steps * backlog.step_seconds / max(1, places)


async def load(db: Database, silence: float) -> Load:
    """Workers count as live for `silence` seconds after their last heartbeat."""
    oldest = (
        select(requests.c.created_at)
        .where(requests.c.status == Status.PENDING)
        .order_by(requests.c.created_at)
        .limit(1)
        .scalar_subquery()
    )
    live = workers.c.last_seen > now(-silence)
    kind = case((live, workers.c.state), else_=SILENT)
    known = and_(
        workers.c.last_seen > now(-max(silence, _SILENT_FOR)),
        live | (workers.c.state != WorkerState.DRAINING.value),
    )
    async with db.read() as conn:
        at, since, places = (
            (await conn.execute(select(instant(), oldest, live_capacity(silence)))).tuples().one()
        )
        states = (await conn.execute(select(kind, func.count()).where(known).group_by(kind))).tuples()
        counts = {str(state): int(n) for state, n in states}
    return Load(
        oldest_seconds=max(0.0, (at - since).total_seconds()) if since else 0.0,
        places=int(places),
        workers={state: counts.get(state, 0) for state in (*WorkerState, SILENT)},
    )


async def backlog(db: Database) -> Backlog:
    """See `Backlog`."""
    params = requests.c.params
    steps = cast(params["num_inference_steps"].as_string(), Integer)
    images = cast(params["num_images"].as_string(), Integer)
    waits = requests.c.status == Status.PENDING
    query = select(
        func.count().filter(waits),
        func.count().filter(requests.c.status == Status.PROCESSING),
        func.count().filter(requests.c.published_at.is_(None)),
        func.coalesce(func.sum(steps * images).filter(waits), 0),
    ).where(turns.is_open)
    async with db.read() as conn:
        pending, processing, unpublished, work = (await conn.execute(query)).tuples().one()
    measured = await _step_seconds(db)
    return Backlog(
        int(pending),
        int(processing),
        int(unpublished),
        int(work),
        measured or ASSUMED_STEP_SECONDS,
        measured is not None,
    )


async def _step_seconds(db: Database) -> float | None:
    """From the claim to the report, for each step, over the newest completed requests; None without any."""
    newest = (
        select(requests.c.id, requests.c.finished_at, requests.c.params)
        .where(requests.c.finished_at.is_not(None), requests.c.status == Status.COMPLETED)
        .order_by(requests.c.finished_at.desc())
        .limit(_MEASURED)
        .subquery()
    )
    began = (
        select(func.max(events.c.created_at))
        .where(events.c.request_id == newest.c.id, events.c.type == "state", _is_processing())
        .scalar_subquery()
    )
    async with db.read() as conn:
        rows = (await conn.execute(select(newest.c.finished_at, began, newest.c.params))).tuples().all()
    times = [(ended - start).total_seconds() * _images(p) for ended, start, p in rows if start and ended]
    done = sum(p["num_inference_steps"] * _images(p) for _, start, p in rows if start)
    return sum(times) / done if done and sum(times) > 0 else None


def _images(params: Mapping[str, int]) -> int:
    return params.get("num_images", 1)


def _is_processing() -> ColumnElement[bool]:
    told: ColumnElement[bool] = events.c.data["status"].as_string() == Status.PROCESSING.value
    return told
