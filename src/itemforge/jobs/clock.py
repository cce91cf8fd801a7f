"""Time by the database's clock, the only clock that leases and schedules are measured with.

Clocks of gateways and workers differ and jump, so no time of theirs enters a decision.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, Float, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator


class UtcTime(TypeDecorator[datetime]):
    """A moment, always aware and in UTC in Python; SQLite keeps it as sortable text."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class _DatabaseTime(FunctionElement[datetime]):
    inherit_cache = True
    type = UtcTime()
    name = "database_time"


@compiles(_DatabaseTime, "postgresql")
def _postgresql(element: _DatabaseTime, compiler: SQLCompiler, **kw: Any) -> str:
    return f"(now() + make_interval(secs => {compiler.process(element.clauses, **kw)}))"


@compiles(_DatabaseTime, "sqlite")
def _sqlite(element: _DatabaseTime, compiler: SQLCompiler, **kw: Any) -> str:
    # Milliseconds padded to the microseconds in which SQLAlchemy stores a DateTime, so text sorts as time.
    shift = f"printf('%+.3f seconds', {compiler.process(element.clauses, **kw)})"
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', {shift})"


class _DatabaseInstant(FunctionElement[datetime]):
    inherit_cache = True
    type = UtcTime()
    name = "database_instant"


@compiles(_DatabaseInstant, "postgresql")
def _postgresql_instant(element: _DatabaseInstant, compiler: SQLCompiler, **kw: Any) -> str:
    return "clock_timestamp()"


@compiles(_DatabaseInstant, "sqlite")
def _sqlite_instant(element: _DatabaseInstant, compiler: SQLCompiler, **kw: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


def instant() -> _DatabaseInstant:
    """The moment of the statement itself: on PostgreSQL `now` is the beginning of its transaction."""
    return _DatabaseInstant()


def now(plus: float = 0.0) -> _DatabaseTime:
    """The database's present moment, moved by `plus` seconds."""
    return _DatabaseTime(literal(float(plus), Float))
