import asyncio
from uuid import uuid4

import pytest
from sqlalchemy import text

from databases import completed, new_request
from itemforge.jobs import claims, events, migrate, requests
from itemforge.jobs.database import Database
from itemforge.jobs.listener import dispatch, listen
from itemforge.jobs.notices import NOTIFY_LIMIT
from itemforge.jobs.signals import Preview
from polling import eventually


async def test_events_come_in_order_and_replay_from_any_of_them(db: Database) -> None:
    request, other = await new_request(db), await new_request(db)
    await claims.claim(db, "w", [request.id, other.id], 30)
    await claims.report(db, [completed(request.id)])
    told = await events.after(db, request.id, 0)
    assert [e.data["status"] for e in told] == ["Pending", "Processing", "Completed"]
    assert [e.id for e in told] == sorted(e.id for e in told)
    assert await events.after(db, request.id, told[0].id) == told[1:]
    assert await events.after(db, request.id, 0, limit=2) == told[:2]
    assert await events.after(db, uuid4(), 0) == []
    last = told[-1].data
    assert last == {
        "id": str(request.id),
        "status": "Completed",
        "attempt": 1,
        "image_url": f"https://store.example/generated/{request.id}.png",
        "error": None,
    }


async def test_a_reader_that_goes_on_by_ids_misses_nothing_while_others_write(db: Database) -> None:
    """Ids are drawn while the row is locked: none can appear behind one that was read."""
    request = await new_request(db)
    seen: list[int] = []
    writing = True

    async def read() -> None:
        while True:
            last_round = not writing
            seen.extend(e.id for e in await events.after(db, request.id, seen[-1] if seen else 0))
            if last_round:
                return

    async def write(worker: int) -> None:
        for _ in range(5):
            async with db.write() as transaction:
                await requests.lock(transaction, request.id)
                events.add_progress(transaction, request.id, 0, worker, 5)

    reader = asyncio.create_task(read())
    await asyncio.gather(*(write(n) for n in range(8)))
    writing = False
    await reader
    assert seen == [e.id for e in await events.after(db, request.id, 0)]
    assert len(seen) == 41


async def test_a_commit_wakes_the_streams_and_the_relay_of_its_process(db: Database) -> None:
    db.signals.relay.clear()
    request = await new_request(db)
    assert db.signals.relay.is_set()
    with db.signals.watch(request.id) as watch, db.signals.watch(uuid4()) as stranger:
        await claims.claim(db, "w", [request.id], 30)
        assert await watch.wait(5)
        assert not await stranger.wait(0.01)


async def test_only_the_newest_preview_of_an_image_is_kept(db: Database) -> None:
    request_id = uuid4()
    with db.signals.watch(request_id) as watch:
        for text in ("old", "new"):
            await db.preview(request_id, Preview(0, text))
        assert watch.take_previews() == [Preview(0, "new")]
        assert watch.take_previews() == []


async def test_another_gateway_hears_commits_and_previews(postgres_url: str) -> None:
    here, there = Database(postgres_url), Database(postgres_url)
    await migrate.upgrade(here)
    request = await new_request(here)
    with there.signals.watch(request.id) as watch:
        listener = asyncio.create_task(listen(there))
        assert await watch.wait(10), "the listener is there: it makes everybody look once"

        async def relay_woken() -> bool:
            there.signals.relay.clear()
            await new_request(here)
            async with asyncio.timeout(5):
                await there.signals.relay.wait()
            return True

        assert await relay_woken()
        await claims.claim(here, "w", [request.id], 30)
        assert await watch.wait(5)
        jpeg = "A" * 6800
        await here.preview(request.id, Preview(1, jpeg))
        await eventually(lambda: watch.take_previews() == [Preview(1, jpeg)])
        await here.preview(request.id, Preview(1, "A" * NOTIFY_LIMIT))  # too long to travel: no error
    listener.cancel()
    await asyncio.gather(listener, return_exceptions=True)
    await here.close()
    await there.close()


async def test_a_listener_whose_connection_is_cut_listens_again(postgres_url: str) -> None:
    here, there = Database(postgres_url), Database(postgres_url)
    await migrate.upgrade(here)
    request = await new_request(here)
    with there.signals.watch(request.id) as watch:
        listener = asyncio.create_task(listen(there))
        assert await watch.wait(10)
        async with here.write() as write:
            await write.conn.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE query LIKE 'LISTEN%' AND datname = current_database()"
                )
            )
        assert await watch.wait(10), "the new connection makes everybody look once"
        await claims.claim(here, "w", [request.id], 30)
        assert await watch.wait(5)
    listener.cancel()
    await asyncio.gather(listener, return_exceptions=True)
    await here.close()
    await there.close()


@pytest.mark.parametrize(
    "payload", ["", "x", "o changed not-a-uuid", "o preview x 1 y", "o other", "o preview"]
)
async def test_foreign_notifications_are_ignored(db: Database, payload: str) -> None:
    db.signals.relay.clear()
    dispatch(db, payload)
    dispatch(db, f"{db.origin} relay")
    assert not db.signals.relay.is_set()
