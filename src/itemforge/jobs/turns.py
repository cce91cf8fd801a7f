"""Whose turn it is: the rows that the relay publishes next, one owner after the other.

The query must cost the same with ten rows waiting and with a hundred thousand. So it never sorts or counts
the backlog: it jumps through the index from owner to owner, takes the oldest few of each, and counts only
what is on the queue, which the window bounds. The conditions carry their constants in the text of the
statement, because a prepared plan uses a partial index only if it can see that the index serves.
"""

from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Select,
    and_,
    func,
    literal_column,
    or_,
    select,
    true,
)

from itemforge.contract import Status
from itemforge.jobs.clock import now
from itemforge.jobs.tables import requests

_PENDING: ColumnElement[str] = literal_column(f"'{Status.PENDING}'")
_OPEN = [_PENDING, literal_column(f"'{Status.PROCESSING}'")]


def unleased(table: Any) -> ColumnElement[bool]:
    """No worker has it."""
    return or_(table.c.lease_until.is_(None), table.c.lease_until <= now())


def is_open(table: Any) -> ColumnElement[bool]:
    """Not ended."""
    found: ColumnElement[bool] = table.c.status.in_(_OPEN)
    return found


def unpublished(table: Any) -> ColumnElement[bool]:
    """Open, and to be put on the queue."""
    return and_(is_open(table), table.c.published_at.is_(None))


def waiting() -> ColumnElement[bool]:
    """On the queue, and not yet claimed."""
    return and_(requests.c.status == _PENDING, requests.c.published_at.is_not(None))


def next_rows(limit: int, lateral: bool) -> Select[Any]:
    """The `limit` rows (id, params) whose turn is next, locked where the database can.

    What an owner has on the queue already counts as turns taken: rows go out one by one when claims make
    room, and each time the oldest of a big batch would be first again.

    `lateral`: the database has LATERAL (PostgreSQL); SQLite does the same with a correlated IN.
    """
    owners = _owners()
    oldest = requests.alias("oldest")
    of_owner = (
        select(oldest.c.id)
        .where(unpublished(oldest), unleased(oldest), oldest.c.owner == owners.c.owner)
        .order_by(oldest.c.created_at, oldest.c.id)
        .limit(limit)
    )
    few = of_owner.lateral("few") if lateral else None
    row = requests.alias("candidate")
    taken = (
        select(requests.c.owner, func.count().label("rows"))
        .where(waiting())
        .group_by(requests.c.owner)
        .subquery("taken")
    )
    place = func.row_number().over(partition_by=row.c.owner, order_by=(row.c.created_at, row.c.id))
    candidates = select(row.c.id, (place + func.coalesce(taken.c.rows, 0)).label("turn"))
    if few is not None:
        source = owners.join(few, true()).join(row, row.c.id == few.c.id)
    else:
        source = owners.join(row, row.c.id.in_(of_owner))
    turns = (
        candidates.select_from(source.outerjoin(taken, taken.c.owner == row.c.owner))
        .where(owners.c.owner.is_not(None))
        .subquery("turns")
    )
    return (
        select(requests.c.id, requests.c.params)
        .join(turns, turns.c.id == requests.c.id)
        .where(unpublished(requests), unleased(requests))
        .order_by(turns.c.turn, requests.c.created_at, requests.c.id)
        .limit(limit)
        .with_for_update(of=requests, skip_locked=True)
    )


def _owners() -> CTE:
    """Every owner with a row to publish, found by one jump through the index each; the last one is NULL."""
    first = select(func.min(requests.c.owner).label("owner")).where(unpublished(requests))
    found = first.cte("owners", recursive=True)
    after = (
        select(func.min(requests.c.owner))
        .where(unpublished(requests), requests.c.owner > found.c.owner)
        .correlate(found)
        .scalar_subquery()
    )
    return found.union_all(select(after).where(found.c.owner.is_not(None)))
