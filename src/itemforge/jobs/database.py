"""One database, PostgreSQL or SQLite, behind two kinds of transaction: `read` and `write`.

A write may signal, directly after its commit: in this process at once, on PostgreSQL to every other gateway
by a NOTIFY of its own. Inside the transaction a NOTIFY would make all commits wait for each other, because
PostgreSQL writes them in order; outside, one statement tells what many transactions changed. SQLite serves
one process, whose writes queue up here in order instead of colliding in the file.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import structlog
from sqlalchemy import event, insert, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    DisconnectionError,
    InterfaceError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.schema import Table

from itemforge.errors import ConfigurationError, DatabaseUnavailable
from itemforge.jobs.clock import now
from itemforge.jobs.notices import Notices
from itemforge.jobs.records import Change
from itemforge.jobs.signals import Preview, Signals
from itemforge.jobs.tables import events

log = structlog.get_logger(__name__)

CHANNEL = "itemforge"
_PG_NOTIFY = text("SELECT pg_notify(:channel, payload) FROM unnest(CAST(:payloads AS text[])) AS payload")
#: What the driver raises while it connects, before SQLAlchemy wraps its errors.
RAW_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError)


@dataclass
class Write:
    """A transaction that changes something, and the signals it gives when it is committed."""

    conn: AsyncConnection
    #: Rows of `events`, written at the end in one statement; the locks are held until then and beyond.
    history: list[dict[str, Any]] = field(default_factory=list)
    changed: set[UUID] = field(default_factory=set)
    #: Who has new requests.
    owners: set[str] = field(default_factory=set)
    relay: bool = False
    #: Webhooks are to be sent.
    deliver: bool = False
    #: Each owner's webhooks, looked up once.
    listening: dict[str, Any] = field(default_factory=dict)
    #: What the log says once it is true: one dict of fields for each change of a request's state.
    passed: list[dict[str, Any]] = field(default_factory=list)
    #: What is counted once it is true.
    counted: list[Change] = field(default_factory=list)

    def insert(self, table: Table) -> "postgresql.Insert | sqlite.Insert":
        """An INSERT that knows `on_conflict_do_…`."""
        return postgresql.insert(table) if self.conn.dialect.name == "postgresql" else sqlite.insert(table)


class Database:
    """The pool of connections, and this process's switchboard."""

    def __init__(self, url: str, signals: Signals | None = None) -> None:
        self.signals = signals or Signals()
        self.engine = _engine(url)
        #: Told of every change, directly after its commit.
        self.count: Callable[[Change], None] = lambda change: None
        #: Marks our own notifications, which this process has heard already.
        self.origin = uuid.uuid4().hex[:12]
        self._notices = Notices(self._notify)
        self._one_writer = asyncio.Lock()

    @property
    def postgresql(self) -> bool:
        return self.engine.dialect.name == "postgresql"

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """For statements that only look. On PostgreSQL each is a transaction of its own, which saves the
        round trips of BEGIN and ROLLBACK.

        Raises:
            DatabaseUnavailable: no connection, or it broke.
        """
        with _mapped():
            async with self.engine.connect() as conn:
                if self.postgresql:
                    await conn.execution_options(isolation_level="AUTOCOMMIT")
                else:
                    await conn.execution_options(itemforge_read=True)
                yield conn

    @asynccontextmanager
    async def write(self, single: bool = False) -> AsyncIterator[Write]:
        """A transaction that is committed at the end, or rolled back on any error.

        `single`: on PostgreSQL the block has one statement, which is a transaction by itself and saves the
        round trips of BEGIN and COMMIT.

        Raises:
            DatabaseUnavailable: no connection, or it broke; nothing has changed, unless the answer to
                the commit itself was lost, so callers repeat only what is safe to repeat.
        """
        async with AsyncExitStack() as stack:
            if not self.postgresql:
                await stack.enter_async_context(self._one_writer)
            with _mapped():
                conn = await stack.enter_async_context(self.engine.connect())
                if single and self.postgresql:
                    await conn.execution_options(isolation_level="AUTOCOMMIT")
                async with conn.begin():
                    write = Write(conn)
                    yield write
                    if write.history:
                        await conn.execute(insert(events).values(created_at=now()), write.history)
        self._tell(write)

    def _tell(self, write: Write) -> None:
        for change in write.counted:
            self.count(change)
        for fields in write.passed:
            log.info("request_state_changed", **fields)
        for request_id in write.changed:
            self.signals.wake(request_id)
            self.notify(f"changed {request_id}")
        for owner in write.owners:
            self.signals.created(owner)
            self.notify(f"created {owner}")
        if write.relay:
            self.signals.relay.set()
            self.notify("relay")
        if write.deliver:  # other gateways find it at their next look, if this one does not come to it
            self.signals.deliver.set()

    def notify(self, news: str) -> None:
        """Tell the other gateways, soon; nothing is lost with a notice but time."""
        if self.postgresql:
            self._notices.add(f"{self.origin} {news}")

    async def preview(self, request_id: UUID, preview: Preview) -> None:
        """Show a preview to whoever watches, at any gateway; one that does not fit stays here."""
        self.signals.preview(request_id, preview)
        self.notify(f"preview {request_id} {preview.image} {preview.jpeg_base64}")

    async def ping(self) -> None:
        """Raises DatabaseUnavailable when the database does not answer within 3 s."""
        try:
            async with asyncio.timeout(3), self.read() as conn:
                await conn.execute(text("SELECT 1"))
        except TimeoutError:
            raise DatabaseUnavailable("the database did not answer within 3 s") from None

    async def close(self) -> None:
        await self._notices.close()
        await self.engine.dispose()

    async def _notify(self, payloads: list[str]) -> None:
        async with self.read() as conn:
            await conn.execute(_PG_NOTIFY, {"channel": CHANNEL, "payloads": payloads})


@contextmanager
def _mapped() -> Iterator[None]:
    """Turn every way in which a database can be away into DatabaseUnavailable."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout, OSError, *RAW_ERRORS) as error:
        raise _unavailable(error) from error
    except DBAPIError as error:
        if error.connection_invalidated or _try_again(error):
            raise _unavailable(error) from error
        if getattr(error.orig, "sqlite_errorname", None) == "SQLITE_NOTADB":
            raise ConfigurationError(
                "the database's file is no SQLite database; name another in DATABASE_URL, or move it away"
            ) from None
        raise


def _try_again(error: DBAPIError) -> bool:
    """Whether PostgreSQL said that it stops, starts or has no connection left (class 57P, 53, 08), or that
    it rolled back for another's sake (40: a deadlock, with a migration for instance)."""
    state = str(getattr(error.orig, "sqlstate", None) or "")
    return state.startswith(("57P", "53", "08", "40"))


def _unavailable(error: Exception) -> DatabaseUnavailable:
    # The statement and its parameters stay out of the text: they may hold prompts.
    cause = getattr(error, "orig", None) or error
    return DatabaseUnavailable(f"the database cannot be reached ({type(cause).__name__}); try again")


def _engine(url: str) -> AsyncEngine:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigurationError(
            "DATABASE_URL is not a database address; write postgresql://user:password@host/name "
            "or sqlite:////absolute/path.db"
        ) from None
    if parsed.drivername == "sqlite+aiosqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigurationError("a SQLite database needs a file: sqlite:////absolute/path.db")
        try:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"the database's folder cannot be made: {error}") from None
        return _sqlite_engine(url)
    if parsed.drivername == "postgresql+asyncpg":
        return _postgresql_engine(url)
    raise ConfigurationError(
        f"DATABASE_URL begins with {parsed.drivername}://; use postgresql:// or sqlite:///"
    )


def _postgresql_engine(url: str) -> AsyncEngine:
    engine = create_async_engine(
        url,
        hide_parameters=True,  # prompts do not belong in errors and logs
        pool_size=10,
        max_overflow=10,
        pool_timeout=5,
        connect_args={"timeout": 5, "command_timeout": 30},
    )

    @event.listens_for(engine.sync_engine, "checkout")
    def _checkout(dbapi_connection: Any, _record: object, _proxy: object) -> None:
        # The event loop has heard of a lost connection already; asking would cost three round trips.
        if dbapi_connection.driver_connection.is_closed():
            raise DisconnectionError

    return engine


def _sqlite_engine(url: str) -> AsyncEngine:
    engine = create_async_engine(url, hide_parameters=True, connect_args={"timeout": 10})

    @event.listens_for(engine.sync_engine, "connect")
    def _connect(dbapi_connection: Any, _record: object) -> None:
        # We begin transactions ourselves, below: the driver's own habit would begin too late.
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(conn: Connection) -> None:
        # A write that began as a read could not be upgraded once somebody else wrote.
        read = conn.get_execution_options().get("itemforge_read")
        conn.exec_driver_sql("BEGIN" if read else "BEGIN IMMEDIATE")

    return engine
