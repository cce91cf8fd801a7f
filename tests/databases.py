"""Fixtures of the jobs and gateway tests: every one runs on SQLite and on PostgreSQL."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from itemforge.contract import Image, JobParams, Report, ReportStatus
from itemforge.jobs import events, migrate, requests
from itemforge.jobs.clock import now
from itemforge.jobs.database import Database
from itemforge.jobs.records import NewRequest, Request
from itemforge.jobs.tables import requests as table


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'itemforge.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    await migrate.upgrade(database)
    yield database
    await database.close()


async def new_request(db: Database, owner: str = "ann", **params: object) -> Request:
    """A Pending request."""
    values = {"prompt": "a red apple", "style": "plain@1", "seed": 7, **params}
    created = await requests.create(
        db,
        NewRequest(id=uuid4(), owner=owner, prompt="a red apple", params=JobParams(**values), body_hash="0"),
    )
    assert created.new
    return created.request


async def reload(db: Database, request_id: UUID) -> Request:
    async with db.write() as write:
        request = await requests.lock(write, request_id)
    assert request is not None
    return request


async def states(db: Database, request_id: UUID) -> list[str]:
    """The statuses that the request's history tells, in order."""
    return [e.data["status"] for e in await events.after(db, request_id, 0) if e.type == "state"]


async def age(db: Database, request_id: UUID, column: str, seconds: float) -> None:
    """Move a time of the row into the past."""
    async with db.write() as write:
        await write.conn.execute(
            update(table).where(table.c.id == request_id).values({column: now(-seconds)})
        )


def image(request_id: UUID, n: int = 0, bucket: str = "bucket") -> Image:
    key = f"generated/{request_id}.png" if n == 0 else f"generated/{request_id}/{n}.png"
    url = f"https://store.example/{key}"
    return Image(n=n, seed=7 + n, bucket=bucket, key=key, url=url, width=64, height=64)


def completed(request_id: UUID, attempt: int = 1, bucket: str = "bucket") -> Report:
    return Report(
        request_id=request_id,
        attempt=attempt,
        status=ReportStatus.COMPLETED,
        images=[image(request_id, bucket=bucket)],
    )


def report(request_id: UUID, status: ReportStatus, attempt: int = 1, error: str | None = None) -> Report:
    return Report(request_id=request_id, attempt=attempt, status=status, error=error)
