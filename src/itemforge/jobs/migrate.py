"""Bring the database to the newest schema; safe to call from several processes at once."""

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.engine import Connection

from itemforge.errors import ConfigurationError
from itemforge.jobs.database import Database

#: Any number that nobody else locks: "itemforge" on a telephone's keys.
_ADVISORY_LOCK = 483636743


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", "itemforge.jobs:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def newest() -> str | None:
    """The revision that this version of the program needs."""
    return ScriptDirectory.from_config(_config()).get_current_head()


async def current(db: Database) -> str | None:
    """The revision that the database has; None when it is empty.

    Raises:
        DatabaseUnavailable: it cannot be reached.
    """
    async with db.read() as conn:
        return await conn.run_sync(_revision)


async def upgrade(db: Database) -> str | None:
    """Migrate to the newest revision in one transaction; returns it.

    One process at a time: an advisory lock on PostgreSQL; on SQLite the transaction is the lock.

    Raises:
        DatabaseUnavailable: it cannot be reached; nothing has changed.
        ConfigurationError: a newer version of the program has migrated it already.
    """
    if (found := await current(db)) == newest():
        return found
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found is not None and found not in known:
        raise ConfigurationError(
            f"the database is at revision {found}, which this version does not know; "
            "start the newer version of ItemForge"
        )
    async with db.write() as write:
        if db.postgresql:
            await write.conn.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
            if found is not None:
                # First of all the table that a running gateway locks first, and at once as strongly as any
                # revision may need it: a lock that grows later would deadlock with that gateway.
                await write.conn.execute(text("LOCK TABLE requests IN ACCESS EXCLUSIVE MODE"))
        await write.conn.run_sync(lambda connection: command.upgrade(_config(connection), "head"))
    return newest()


async def state(url: str) -> str:
    """One line about a database, for a person: its revision, and what to do if it is not the newest.

    Raises:
        DatabaseUnavailable: it cannot be reached.
    """
    db = Database(url)
    try:
        found = await current(db)
    finally:
        await db.close()
    if found == newest():
        return f"at revision {found}, the newest"
    return f"at revision {found or 'none'}, the newest is {newest()}: run itemforge db upgrade"
