from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import update

from databases import age, completed, new_request, reload, states
from itemforge.contract import JobParams, Status
from itemforge.jobs import claims, finding, requests, trash
from itemforge.jobs.database import Database
from itemforge.jobs.finding import Filter
from itemforge.jobs.records import NewRequest
from itemforge.jobs.tables import requests as table


def _new(**values: object) -> NewRequest:
    fields = {"id": uuid4(), "owner": "ann", "prompt": "p", "body_hash": "1", **values}
    return NewRequest(params=JobParams(prompt="p, composed"), **fields)  # type: ignore[arg-type]


async def test_a_new_request_is_pending_unpublished_and_keeps_both_prompts(db: Database) -> None:
    created = await requests.create(db, _new())
    found = await requests.get(db, created.request.id)
    assert found is not None
    assert (found.status, found.attempt, found.charged, found.published_at) == (Status.PENDING, 0, 0, None)
    assert (found.prompt, found.params.prompt) == ("p", "p, composed")
    assert await states(db, found.id) == ["Pending"]
    assert db.signals.relay.is_set()


async def test_the_largest_seed_survives_the_database(db: Database) -> None:
    request = await new_request(db, seed=2**63 - 1)
    assert (await reload(db, request.id)).params.seed == 2**63 - 1


async def test_the_same_id_or_key_finds_the_first_request(db: Database) -> None:
    first = await requests.create(db, _new(idempotency_key="k"))
    by_key = await requests.create(db, _new(idempotency_key="k"))
    by_id = await requests.create(db, _new(id=first.request.id))
    assert not by_key.new and not by_id.new
    assert by_key.request.id == by_id.request.id == first.request.id
    assert await states(db, first.request.id) == ["Pending"]


async def test_requests_without_a_key_are_told_apart_by_their_ids(db: Database) -> None:
    first = await requests.create(db, _new())
    assert await requests.earlier(db, first.request.owner, uuid4(), None) is None
    second = await requests.create(db, _new())
    again = await requests.create(db, _new(id=second.request.id))
    assert not again.new and again.request.id == second.request.id


async def test_keys_of_different_owners_do_not_meet(db: Database) -> None:
    first = await requests.create(db, _new(idempotency_key="k"))
    second = await requests.create(db, _new(idempotency_key="k", owner="bob"))
    assert second.new and second.request.id != first.request.id


async def test_pages_walk_all_requests_once_while_new_ones_arrive(db: Database) -> None:
    made = [await new_request(db) for _ in range(7)]
    seen, before = [], None
    while page := await finding.find(db, Filter(), 3, before):
        seen += [request.id for request in page]
        before = (page[-1].created_at, page[-1].id)
        await new_request(db)
    assert seen == [request.id for request in reversed(made)]


async def test_requests_of_one_moment_are_paged_by_id(db: Database) -> None:
    made = [await new_request(db) for _ in range(5)]
    async with db.write() as write:
        await write.conn.execute(update(table).values(created_at=made[0].created_at))
    seen, before = [], None
    while page := await finding.find(db, Filter(), 2, before):
        seen += [request.id for request in page]
        before = (page[-1].created_at, page[-1].id)
    assert seen == sorted((request.id for request in made), reverse=True)


async def test_filters_by_status_style_and_time(db: Database) -> None:
    plain = await new_request(db, style="plain@1")
    newer = await new_request(db, style="plain@2")
    lookalike = await new_request(db, style="plain_x@1")
    none = await new_request(db, style=None)
    await requests.cancel(db, newer.id)
    await age(db, none.id, "created_at", 3600)

    async def ids(**wanted: object) -> set[object]:
        return {r.id for r in await finding.find(db, Filter(**wanted), 50)}  # type: ignore[arg-type]

    assert await ids(status=Status.CANCELLED) == {newer.id}
    assert await ids(style="plain") == {plain.id, newer.id}
    assert await ids(style="plain@2") == {newer.id}
    since = plain.created_at
    assert await ids(since=since) == {plain.id, newer.id, lookalike.id}
    assert await ids(until=since) == {none.id}
    assert await ids(since=since + timedelta(hours=1)) == set()


async def test_positions_count_who_came_before(db: Database) -> None:
    first, second = await new_request(db), await new_request(db)
    assert await requests.position(db, first) == 1
    assert await requests.position(db, second) == 2
    await requests.cancel(db, first.id)
    assert await requests.position(db, second) == 1


async def test_cancel_ends_an_open_request_and_leaves_an_ended_one(db: Database) -> None:
    request = await new_request(db)
    await claims.claim(db, "w", [request.id], 30)
    cancelled = await requests.cancel(db, request.id)
    assert cancelled is not None and cancelled.status is Status.CANCELLED
    assert cancelled.finished_at is not None and not cancelled.leased
    done = await new_request(db)
    await claims.claim(db, "w", [done.id], 30)
    await claims.report(db, [completed(done.id)])
    kept = await requests.cancel(db, done.id)
    assert kept is not None and kept.status is Status.COMPLETED
    assert await requests.cancel(db, uuid4()) is None


@pytest.mark.parametrize("claimed", [False, True])
async def test_a_deleted_request_is_hidden_but_still_answers_its_worker(db: Database, claimed: bool) -> None:
    request = await new_request(db)
    if claimed:
        await claims.claim(db, "w", [request.id], 30)
    assert await trash.delete(db, [request.id]) != []
    assert await requests.get(db, request.id) is None
    assert await finding.find(db, Filter(), 10) == []
    assert await trash.delete(db, [request.id]) == []
    assert await requests.cancel(db, request.id) is None
    (answer,) = await claims.claim(db, "w", [request.id], 30)
    assert answer.outcome == "done"
    assert sum((await requests.count(db)).values()) == 0
