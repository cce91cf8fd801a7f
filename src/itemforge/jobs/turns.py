"""Whose turn it is: the rows that the relay publishes next, one owner after the other.

The query must cost the same with ten rows waiting and with a hundred thousand. So it never sorts or counts
the backlog: it jumps through the index from owner to owner, takes the oldest few of each, and counts only
what is on the queue, which the window bounds. It is written out because both planners have to be led: their
figures of rows that wait are old by nature, and SQLite has none. Conditions carry their constants, since a
prepared plan uses a partial index only if it can see that the index serves.
"""

from typing import Any

from sqlalchemy import (
    JSON,
    ColumnElement,
    Integer,
    String,
    Uuid,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.selectable import Select, TextualSelect

from itemforge.contract import Status
from itemforge.jobs.clock import now
from itemforge.jobs.tables import requests

_PENDING: ColumnElement[str] = literal_column(f"'{Status.PENDING}'")
_OPEN = [_PENDING, literal_column(f"'{Status.PROCESSING}'")]

is_open: ColumnElement[bool] = requests.c.status.in_(_OPEN)


def unleased() -> ColumnElement[bool]:
    """No worker has it."""
    return or_(requests.c.lease_until.is_(None), requests.c.lease_until <= now())


def unpublished() -> ColumnElement[bool]:
    """Open, and to be put on the queue."""
    return and_(is_open, requests.c.published_at.is_(None))


_NEXT = """
    WITH RECURSIVE owners (owner) AS (
        SELECT min(owner) FROM requests {unpublished_index} WHERE {unpublished}
        UNION ALL
        SELECT (
            SELECT min(r.owner) FROM requests AS r {unpublished_index}
            WHERE {unpublished} AND r.owner > owners.owner
        )
        FROM owners WHERE owner IS NOT NULL
    ), taken (owner, turns) AS (
        SELECT owner, count(*) FROM requests {waiting_index} WHERE {waiting} GROUP BY owner
    )
    SELECT id, params, traceparent FROM (
        SELECT candidate.id, candidate.params, candidate.traceparent, candidate.created_at, coalesce(taken.turns, 0)
            + row_number() OVER (PARTITION BY candidate.owner ORDER BY candidate.created_at, candidate.id) AS turn
        FROM owners {candidates}
        LEFT JOIN taken ON taken.owner = candidate.owner
        WHERE owners.owner IS NOT NULL
    ) AS candidates
    ORDER BY turn, created_at, id
    LIMIT :limit
"""
#: One owner's, but not by `=`: then the order would be by time alone, and PostgreSQL might walk all rows by
#: their time until it meets this owner's, past a backlog of somebody else's.
_OLDEST = """
    SELECT {columns} FROM requests AS r {unpublished_index}
    WHERE {unpublished} AND r.owner >= owners.owner AND r.owner <= owners.owner
        AND (r.lease_until IS NULL OR r.lease_until <= {now})
    ORDER BY r.owner, r.created_at LIMIT :each
"""
_WAITING = "status = 'Pending' AND published_at IS NOT NULL"
_UNPUBLISHED = "published_at IS NULL AND status IN ('Pending', 'Processing')"


#: SQLite has no figures by which to choose; PostgreSQL has them and takes no hints.
_HINT = {"postgresql": "", "sqlite": "INDEXED BY {}"}


def _written(dialect: str, candidates: str, columns: str, time: str) -> TextualSelect:
    hint = _HINT[dialect]
    words = {
        "unpublished": _UNPUBLISHED,
        "waiting": _WAITING,
        "now": time,
        "columns": columns,
        "unpublished_index": hint.format("ix_requests_unpublished"),
        "waiting_index": hint.format("ix_requests_waiting"),
    }
    oldest = _OLDEST.format(**words)
    statement = text(_NEXT.format(candidates=candidates.format(oldest), **words))
    return statement.columns(id=Uuid, params=JSON, traceparent=String)


#: Rows (id, params, traceparent) whose turn is next. What an owner has on the queue already counts as turns taken: rows go
#: out one by one when claims make room, and each time the oldest of a big batch would be first again.
#: Parameters: `limit` rows, of at most `each` of one owner.
NEXT = {
    "postgresql": _written(
        "postgresql",
        "CROSS JOIN LATERAL ({}) AS candidate",
        "r.id, r.params, r.traceparent, r.owner, r.created_at",
        "now()",
    ),
    "sqlite": _written(
        "sqlite",
        "JOIN requests AS candidate ON candidate.id IN ({})",
        "r.id",
        "strftime('%Y-%m-%d %H\\:%M\\:%f000', 'now')",
    ),
}


def waiting(dialect: str) -> ColumnElement[int]:
    """How many rows are on the queue and not yet claimed."""
    index = _HINT[dialect].format("ix_requests_waiting")
    counted = "(SELECT count(*) FROM requests {} WHERE {})".format(index, _WAITING)  # noqa: S608, UP032  # constants
    return literal_column(counted, Integer)


def still_free(ids: list[Any]) -> Select[Any]:
    """Of these ids those that are to be published still, locked; what another relay has locked is left out.

    The condition stands beside the id and not in the WHERE, where it would offer the planner other ways.
    """
    free = and_(unpublished(), unleased()).label("free")
    locked = select(requests.c.id, free).where(requests.c.id == func.any(bindparam("ids", ids, ARRAY(Uuid))))
    return locked.with_for_update(skip_locked=True)
