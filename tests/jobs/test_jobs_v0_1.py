"""F36, the database's half: migrations run while gateways of version 0.1 are at work.

The old gateway is played by its own tables, read back from a database that the recorded statements made.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import MetaData, Table, func, insert, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from contract.recorded import record
from databases import completed, image, report
from itemforge.contract import Heartbeat, HeartbeatRow, Outcome, ReportStatus, Status, WorkerState
from itemforge.jobs import claims, heartbeats, migrate, requests
from itemforge.jobs.clock import now
from itemforge.jobs.database import Database
from polling import eventually

PARAMS = {"prompt": "a key", "num_inference_steps": 5, "seed": 7, "num_images": 1}


class OldGateway:
    """What version 0.1 writes and reads, by the columns that it knows."""

    def __init__(self, db: Database, tables: dict[str, Table]) -> None:
        self.db = db
        self.requests, self.events, self.workers = (
            tables[name] for name in ("requests", "events", "workers")
        )

    async def submit(self, status: Status = Status.PENDING, **values: Any) -> UUID:
        request_id = uuid4()
        row = {"attempt": 0, "charged": 0, "owner": "local", "prompt": "a key", **values}
        async with self.db.engine.begin() as conn:
            await conn.execute(
                insert(self.requests).values(
                    **self._stored(id=request_id),
                    status=status,
                    params=PARAMS,
                    created_at=now(),
                    updated_at=now(),
                    **row,
                )
            )
            await self._tell(conn, request_id, status)
        return request_id

    async def heartbeat(self, request_id: UUID) -> None:
        """Requests first, then workers, in one transaction."""
        table = self.requests
        mine = self._stored(id=request_id)["id"]
        async with self.db.engine.begin() as conn:
            await conn.execute(select(table).where(table.c.id == mine).with_for_update())
            await conn.execute(update(table).where(table.c.id == mine).values(lease_until=now(30)))
            await asyncio.sleep(0.01)  # long enough for a migration to come between
            seen = {"state": "ready", "free": 4, "in_hand": 1, "last_seen": now()}
            values = {"worker_id": "old-worker", "first_seen": now(), **seen}
            upsert = postgresql.insert(self.workers).values(**values)
            await conn.execute(upsert.on_conflict_do_update(index_elements=["worker_id"], set_=seen))

    async def complete(self, request_id: UUID) -> None:
        table = self.requests
        mine = self._stored(id=request_id)["id"]
        async with self.db.engine.begin() as conn:
            await conn.execute(
                update(table)
                .where(table.c.id == mine)
                .values(
                    status="Completed",
                    image_url=image(request_id).url,
                    images=[image(request_id).model_dump(mode="json")],
                    lease_until=None,
                    finished_at=now(),
                )
            )
            await self._tell(conn, request_id, Status.COMPLETED)

    async def count(self) -> int:
        async with self.db.engine.connect() as conn:
            return int((await conn.execute(select(func.count()).select_from(self.requests))).scalar_one())

    async def _tell(self, conn: AsyncConnection, request_id: UUID, status: Status) -> None:
        data = {"id": str(request_id), "status": status, "attempt": 1, "image_url": None, "error": None}
        values = self._stored(request_id=request_id)
        await conn.execute(insert(self.events).values(**values, type="state", data=data, created_at=now()))

    def _stored(self, **ids: UUID) -> dict[str, Any]:
        # SQLite has no type for a UUID, so its columns read back as text.
        return {name: value if self.db.postgresql else value.hex for name, value in ids.items()}


@pytest.fixture
async def old(database_url: str) -> AsyncIterator[OldGateway]:
    db = Database(database_url)
    recorded = record("database")
    async with db.engine.begin() as conn:
        for statement in recorded["postgresql" if db.postgresql else "sqlite"]:
            await conn.execute(text(statement))
        metadata = MetaData()
        await conn.run_sync(metadata.reflect)
    assert await migrate.current(db) == recorded["revision"]
    yield OldGateway(db, dict(metadata.tables))
    await db.close()


async def test_rows_in_every_state_survive_the_migration_and_go_on(old: OldGateway) -> None:
    """F36: what version 0.1 left behind is worked on by today's program."""
    pending = await old.submit()
    published = await old.submit(published_at=now(-60))
    leased = await old.submit(
        Status.PROCESSING, attempt=1, charged=1, worker_id="old-worker", lease_until=now(30)
    )
    silent = await old.submit(Status.PROCESSING, attempt=2, charged=2, lease_until=now(-30))
    ended = {
        status: await old.submit(status, finished_at=now())
        for status in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)
    }
    db = old.db
    assert await migrate.upgrade(db) == migrate.newest()
    for status, request_id in ended.items():
        row = await requests.get(db, request_id)
        assert row is not None and row.status is status
    answers = await claims.claim(db, "new", [pending, published, leased, silent, *ended.values()], 30)
    assert [answer.outcome for answer in answers] == [
        Outcome.CLAIMED, Outcome.CLAIMED, Outcome.LEASED, Outcome.CLAIMED, *[Outcome.DONE] * 3,
    ]  # fmt: skip
    assert [answer.attempt for answer in answers[:4]] == [1, 1, 1, 3]
    # The old worker's heartbeat and report count: its attempt is the row's still.
    beat = HeartbeatRow(request_id=leased, attempt=1, step=1, steps=5)
    heartbeat = Heartbeat(worker_id="old-worker", state=WorkerState.READY, free=1, rows=[beat])
    (heard,) = await heartbeats.beat(db, heartbeat, 30, lambda: 0.0)
    assert not heard.lost
    reports = [completed(leased), completed(pending), report(silent, ReportStatus.RETRY, attempt=3)]
    assert [answer.code for answer in await claims.report(db, reports)] == [200, 200, 200]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_the_migration_runs_while_old_gateways_work_and_none_of_them_fails(old: OldGateway) -> None:
    """F36: heartbeats, submissions and results of version 0.1 before, during and after the migration."""
    busy = [await old.submit(Status.PROCESSING, attempt=1, charged=1) for _ in range(8)]
    migrated = asyncio.Event()
    beats = 0

    async def beat(request_id: UUID) -> None:
        nonlocal beats
        after = 0
        while after < 5:
            await old.heartbeat(request_id)
            beats += 1
            after += migrated.is_set()
        await old.complete(request_id)

    async def submit() -> int:
        made = 0
        while not migrated.is_set() or made < 20:
            await old.submit()
            made += 1
        return made

    async def migrating() -> None:
        await eventually(lambda: beats >= 3 * len(busy), why="they are in full swing")
        await migrate.upgrade(old.db)
        migrated.set()

    new = Database(old.db.engine.url.render_as_string(hide_password=False))
    made, *_ = await asyncio.gather(submit(), migrating(), *(beat(request_id) for request_id in busy))
    assert await migrate.current(new) == migrate.newest()
    assert await old.count() == len(busy) + made
    for request_id in busy:
        row = await requests.get(new, request_id)
        assert row is not None and row.status is Status.COMPLETED and row.images[0].n == 0
    (worker,) = await heartbeats.fleet(new, 30)
    assert (worker.worker_id, worker.held, worker.live) == ("old-worker", 0, True)
    await new.close()


async def test_a_gateway_of_version_0_1_may_start_after_the_migration(old: OldGateway) -> None:
    """F36: its columns are all there; a new one has a default, or it may be empty."""
    await migrate.upgrade(old.db)
    request_id = await old.submit()
    if old.db.postgresql:
        await old.heartbeat(request_id)
    await old.complete(request_id)
    row = await requests.get(old.db, request_id)
    assert row is not None and row.image_url == image(request_id).url
