import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import select, text

from databases import new_request
from itemforge.errors import ConfigurationError, DatabaseUnavailable
from itemforge.jobs import migrate, requests
from itemforge.jobs.clock import now
from itemforge.jobs.database import Database
from itemforge.jobs.lock import only_process
from itemforge.jobs.tables import metadata
from polling import eventually


async def test_upgrading_twice_and_at_once_gives_the_newest_revision(database_url: str) -> None:
    first, second = Database(database_url), Database(database_url)
    assert await migrate.current(first) is None
    revisions = await asyncio.gather(*(migrate.upgrade(db) for db in (first, second, first, second)))
    assert set(revisions) == {migrate.newest()}
    assert await migrate.current(second) == migrate.newest()
    await first.close()
    await second.close()


async def test_migrations_make_exactly_the_tables_that_the_program_uses(db: Database) -> None:
    async with db.read() as conn:
        drift = await conn.run_sync(lambda sync: compare_metadata(MigrationContext.configure(sync), metadata))
    assert drift == []


async def test_a_database_of_a_newer_version_is_refused_with_what_to_do(db: Database) -> None:
    async with db.write() as write:
        await write.conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match=r"9999.*start the newer version"):
        await migrate.upgrade(db)


async def test_state_says_in_words_what_to_do(database_url: str) -> None:
    assert "run itemforge db upgrade" in await migrate.state(database_url)
    db = Database(database_url)
    await migrate.upgrade(db)
    await db.close()
    assert "the newest" in await migrate.state(database_url)


async def test_the_database_clock_moves_by_seconds_and_is_aware(db: Database) -> None:
    async with db.read() as conn:
        present, later, earlier = (await conn.execute(select(now(), now(30.5), now(-900)))).one()
    assert later - present == timedelta(seconds=30.5)
    assert present - earlier == timedelta(minutes=15)
    assert abs(present - datetime.now(UTC)) < timedelta(seconds=5)


async def test_a_transaction_that_fails_changes_nothing_and_wakes_nobody(db: Database) -> None:
    request = await new_request(db)
    with db.signals.watch(request.id) as watch:
        with pytest.raises(RuntimeError, match="on purpose"):
            async with db.write() as write:
                await write.conn.execute(text("UPDATE requests SET owner = 'nobody'"))
                write.changed.add(request.id)
                raise RuntimeError("on purpose")
        assert not await watch.wait(0.01)
    found = await requests.get(db, request.id)
    assert found is not None and found.owner == "ann"


async def test_many_writers_at_once_all_get_their_turn(db: Database) -> None:
    created = await asyncio.gather(*(new_request(db) for _ in range(30)))
    assert len({request.id for request in created}) == 30


async def test_an_unreachable_postgresql_is_unavailable_and_its_password_stays_secret() -> None:
    db = Database("postgresql+asyncpg://someone:hush@127.0.0.1:1/none")
    with pytest.raises(DatabaseUnavailable) as caught:
        await requests.count(db)
    assert "hush" not in str(caught.value)
    with pytest.raises(DatabaseUnavailable):
        await db.ping()
    await db.close()


async def test_a_postgresql_connection_that_was_cut_is_replaced(postgres_url: str) -> None:
    db = Database(postgres_url)
    await migrate.upgrade(db)
    other = Database(postgres_url)
    async with other.write() as write:
        await write.conn.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                "AND datname = current_database()"
            )
        )

    async def answers() -> bool:
        try:
            return sum((await requests.count(db)).values()) == 0
        except DatabaseUnavailable:  # the event loop has not heard of the cut yet
            return False

    await eventually(answers, why="the cut connection is replaced by a new one")
    await db.close()
    await other.close()


async def test_a_transaction_cut_in_the_middle_is_unavailable(postgres_url: str) -> None:
    db, other = Database(postgres_url), Database(postgres_url)
    with pytest.raises(DatabaseUnavailable):
        async with db.write() as write:
            pid = (await write.conn.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            async with other.write() as second:
                await second.conn.execute(text(f"SELECT pg_terminate_backend({pid})"))
            await write.conn.execute(text("SELECT 1"))
    await db.close()
    await other.close()


@pytest.mark.parametrize(
    "url", ["nonsense", "mysql://h/d", "sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:"]
)
def test_an_address_that_cannot_be_used_is_a_clear_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match="sqlite:///"):
        Database(url)


async def test_a_sqlite_database_serves_one_process(tmp_path: Path) -> None:
    db = Database(f"sqlite+aiosqlite:///{tmp_path / 'new' / 'folder' / 'itemforge.db'}")
    with only_process(db), pytest.raises(ConfigurationError, match="another ItemForge"), only_process(db):
        pass
    with only_process(db):
        pass
    await db.close()
