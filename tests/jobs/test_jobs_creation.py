import asyncio
from uuid import UUID, uuid4

import pytest
from sqlalchemy.exc import DBAPIError

from databases import states
from itemforge.bundler import Bundler
from itemforge.contract import JobParams
from itemforge.jobs import creation, events, requests
from itemforge.jobs.creation import insert_new
from itemforge.jobs.database import Database
from itemforge.jobs.records import Created, NewRequest
from itemforge.jobs.slow_counts import SlowCounts

PARAMS = JobParams(prompt='an "apple"\nwith a \\ and ü', style="plain@1", seed=2**63 - 1)


def _new(owner: str = "ann", key: str | None = None, request_id: UUID | None = None) -> NewRequest:
    return NewRequest(request_id or uuid4(), owner, "an apple", PARAMS, body_hash="0", idempotency_key=key)


async def test_a_created_request_is_what_the_database_then_holds(db: Database) -> None:
    (created,) = await insert_new(db, [_new(key="k")])
    assert created is not None and created.new
    assert await requests.get(db, created.request.id) == created.request
    (told,) = await events.after(db, created.request.id, 0)
    assert told.data == {
        "id": str(created.request.id),
        "status": "Pending",
        "attempt": 0,
        "image_url": None,
        "error": None,
    }


async def test_a_bundle_creates_what_is_new_and_leaves_the_rest_as_it_was(db: Database) -> None:
    (old,) = await insert_new(db, [_new(key="used")])
    assert old is not None
    twice = uuid4()
    news = [_new(), _new(key="used"), _new("bob", key="used"), _new(request_id=twice), _new(request_id=twice)]
    made = await insert_new(db, news)
    assert [created is not None for created in made] == [True, False, True, True, False]
    assert await states(db, old.request.id) == ["Pending"]
    assert await states(db, twice) == ["Pending"]


async def test_requests_of_a_bundle_stand_in_line_in_their_order(db: Database) -> None:
    await insert_new(db, [_new()])
    made = [created for created in await insert_new(db, [_new() for _ in range(5)]) if created]
    assert [created.position for created in made] == [2, 3, 4, 5, 6]
    if db.postgresql:  # SQLite's clock has milliseconds: equal ones are no order
        times = [created.request.created_at for created in made]
        assert times == sorted(times)


async def test_positions_are_counted_up_to_a_limit(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creation, "LAST_POSITION", 3)
    made = [created for created in await insert_new(db, [_new() for _ in range(5)]) if created]
    assert [created.position for created in made] == [1, 2, 3, 3, 3]


async def test_one_row_that_the_database_refuses_fails_alone(db: Database) -> None:
    async def insert(news: list[NewRequest]) -> list[Created | None]:
        return await insert_new(db, news)

    bundler = Bundler(insert, most=8, alone=(DBAPIError,))
    too_long = _new("x" * 201) if db.postgresql else _new(None)  # type: ignore[arg-type]  # SQLite knows no lengths
    made = await asyncio.gather(
        *(bundler.call(new) for new in (_new(), _new(), too_long, _new())), return_exceptions=True
    )
    assert isinstance(made[2], DBAPIError)
    assert all(isinstance(made[place], Created) for place in (0, 1, 3))


async def test_a_count_that_took_long_is_shown_again_and_a_quick_one_is_not(db: Database) -> None:
    at = 0.0
    calls = 0

    async def count(_: Database) -> int:
        nonlocal at, calls
        calls += 1
        at += took
        return calls

    counts = SlowCounts(db, lambda: at)
    took = 0.001
    assert [await counts.get(count), await counts.get(count)] == [1, 2]
    took = 1.0
    assert [await counts.get(count), await counts.get(count)] == [3, 3]
    at += 20.0
    assert await counts.get(count) == 4
