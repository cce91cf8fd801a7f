from sqlalchemy import update

from databases import age, completed, new_request, reload
from itemforge.contract import Heartbeat, HeartbeatRow, WorkerState
from itemforge.jobs import claims, events, heartbeats, requests, retention, trash
from itemforge.jobs.clock import now
from itemforge.jobs.database import Database
from itemforge.jobs.records import Request
from itemforge.jobs.tables import events as table

DAY = 86400.0


async def _done(db: Database) -> Request:
    request = await new_request(db)
    await claims.claim(db, "w", [request.id], 30)
    row = HeartbeatRow(request_id=request.id, attempt=1, step=1, steps=2)
    beat = Heartbeat(worker_id="w", state=WorkerState.READY, free=0, rows=[row])
    await heartbeats.beat(db, beat, 30, lambda: 0.0)
    await claims.report(db, [completed(request.id)])
    return request


async def _types(db: Database, request: Request) -> list[str]:
    return [e.type for e in await events.after(db, request.id, 0)]


async def test_ended_requests_expire_after_their_days_and_open_ones_never(db: Database) -> None:
    old, young, still_open = await _done(db), await _done(db), await new_request(db)
    await age(db, old.id, "finished_at", 8 * DAY)
    await age(db, still_open.id, "created_at", 99 * DAY)
    assert [r.id for r in await retention.expired_requests(db, 7)] == [old.id]
    assert await retention.expired_requests(db, 0) == [], "0 keeps them for ever"
    await retention.purge(db, old)
    assert await requests.get(db, old.id) is None
    assert await _types(db, old) == []
    assert await requests.get(db, young.id) is not None


async def test_a_deleted_requests_row_goes_after_a_day(db: Database) -> None:
    request = await _done(db)
    await trash.delete(db, [request.id])
    assert await retention.expired_requests(db, 0) == []
    await age(db, request.id, "deleted_at", 2 * DAY)
    assert [r.id for r in await retention.expired_requests(db, 0)] == [request.id]


async def test_progress_of_ended_requests_goes_first_and_states_after_their_days(db: Database) -> None:
    done, running = await _done(db), await new_request(db)
    assert await _types(db, done) == ["state", "state", "progress", "state"]
    assert await retention.purge_events(db, 7) == 0
    await age(db, done.id, "finished_at", 7200)
    assert await retention.purge_events(db, 7) == 1
    assert await _types(db, done) == ["state", "state", "state"]
    async with db.write() as write:
        await write.conn.execute(update(table).values(created_at=now(-8 * DAY)))
    assert await retention.purge_events(db, 0) == 0, "0 keeps them for ever"
    assert await retention.purge_events(db, 7) == 3
    assert await _types(db, done) == []
    assert await _types(db, running) == ["state"], "an open request keeps its history"
    assert (await reload(db, done.id)).status == "Completed"
