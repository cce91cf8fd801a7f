import base64
from itertools import count
from uuid import uuid4

from sqlalchemy import event

from databases import completed, new_request, reload, report, states
from itemforge.contract import Heartbeat, HeartbeatRow, ReportStatus, Status, WorkerState
from itemforge.jobs import claims, events, heartbeats, publishing, requests
from itemforge.jobs.database import Database
from itemforge.jobs.records import Progress


def _row(request_id, step: int = 1, attempt: int = 1, **more: object) -> HeartbeatRow:  # type: ignore[no-untyped-def]
    return HeartbeatRow(request_id=request_id, attempt=attempt, step=step, steps=20, **more)  # type: ignore[arg-type]


async def _beat(db: Database, *rows: HeartbeatRow, at: float = 0.0, free: int = 2):  # type: ignore[no-untyped-def]
    heartbeat = Heartbeat(worker_id="w", state=WorkerState.READY, free=free, rows=list(rows))
    return await heartbeats.beat(db, heartbeat, 30, lambda: at)


async def _progress(db: Database, request_id) -> list[tuple[int, int]]:  # type: ignore[no-untyped-def]
    told = [e for e in await events.after(db, request_id, 0) if e.type == "progress"]
    return [(e.data["image"], e.data["step"]) for e in told]


async def test_a_heartbeat_renews_the_lease_and_keeps_progress(db: Database) -> None:
    request = await new_request(db, num_images=2)
    await claims.claim(db, "w", [request.id], -1)
    (answer,) = await _beat(db, _row(request.id, 5), _row(request.id, 3, image=1))
    assert (answer.request_id, answer.cancel, answer.lost, answer.watch) == (request.id, False, False, False)
    row = await reload(db, request.id)
    assert row.leased and row.done == Progress(8, 40)


async def test_many_rows_take_as_many_statements_as_two(db: Database) -> None:
    """A fleet sends one heartbeat a second for each worker, so they are what a gateway does most."""
    ids = [(await new_request(db)).id for _ in range(20)]
    await claims.claim(db, "w", ids, 30)
    seen: list[str] = []
    event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *a: seen.append(a[2]))
    await _beat(db, *map(_row, ids[:2]))
    two = len(seen)
    await _beat(db, *map(_row, ids[2:]))
    assert two == len(seen) - two > 0, seen
    assert all([(await reload(db, i)).leased and await _progress(db, i) == [(0, 1)] for i in ids])


async def test_progress_is_told_at_most_once_a_second_for_each_image(db: Database) -> None:
    request = await new_request(db, num_images=2)
    await claims.claim(db, "w", [request.id], 30)
    for eighth in range(30):
        rows = [_row(request.id, eighth + 1), _row(request.id, eighth // 3, image=1)]
        await _beat(db, *rows, at=1000 + eighth / 8)
    assert await _progress(db, request.id) == [
        (0, 1), (1, 0), (0, 9), (1, 3), (0, 17), (1, 6), (0, 25), (1, 9)
    ]  # fmt: skip
    assert (await reload(db, request.id)).done == Progress(39, 40)


async def test_an_old_step_does_not_turn_progress_back(db: Database) -> None:
    request = await new_request(db)
    await claims.claim(db, "w", [request.id], 30)
    clock = count(0, 10)
    for step in (4, 2, 4):
        await _beat(db, _row(request.id, step), at=next(clock))
    assert await _progress(db, request.id) == [(0, 4)]


async def test_a_cancel_and_a_lost_lease_are_told(db: Database) -> None:
    cancelled, lost, ended, given_back = [await new_request(db) for _ in range(4)]
    ids = [cancelled.id, lost.id, ended.id, given_back.id]
    await claims.claim(db, "w", ids, -1)
    await requests.cancel(db, cancelled.id)
    await claims.claim(db, "other", [lost.id], 30)
    await claims.report(db, [completed(ended.id), report(given_back.id, ReportStatus.RELEASED)])
    unknown = uuid4()
    answers = await _beat(db, *(_row(i) for i in [*ids, unknown]))
    assert [a.request_id for a in answers] == [*ids, unknown]
    assert [a.cancel for a in answers] == [True, False, False, False, False]
    assert [a.lost for a in answers] == [False, True, True, True, True]
    row = await reload(db, lost.id)
    assert row.worker_id == "other" and row.done is None


async def test_a_swept_row_goes_on_when_its_worker_thaws(db: Database) -> None:
    request = await new_request(db)
    await claims.claim(db, "w", [request.id], -1)
    await publishing.expire_leases(db)
    (answer,) = await _beat(db, _row(request.id))
    assert not answer.lost
    row = await reload(db, request.id)
    assert (row.status, row.attempt, row.charged, row.leased) == (Status.PROCESSING, 1, 1, True)
    assert await states(db, request.id) == ["Pending", "Processing", "Pending", "Processing"]


async def test_previews_are_asked_for_and_passed_on_only_while_somebody_watches(db: Database) -> None:
    request = await new_request(db)
    await claims.claim(db, "w", [request.id], 30)
    jpeg = base64.b64encode(b"x" * 5000).decode()
    with db.signals.watch(request.id) as watch:
        await _beat(db, _row(request.id, 1, preview=jpeg))
        assert watch.take_previews() == []
        await requests.watch(db, request.id, 20)
        (answer,) = await _beat(db, _row(request.id, 2, preview=jpeg))
        assert answer.watch
        (preview,) = watch.take_previews()
        assert (preview.image, preview.jpeg_base64) == (0, jpeg)
    await requests.watch(db, request.id, -1)
    (answer,) = await _beat(db, _row(request.id, 3))
    assert not answer.watch


async def test_the_fleet_is_known_by_its_last_heartbeat(db: Database) -> None:
    request = await new_request(db)
    await claims.claim(db, "w", [request.id], 30)
    await _beat(db, free=4)
    await _beat(db, _row(request.id), free=3)
    (worker,) = await heartbeats.fleet(db, 30)
    assert (worker.worker_id, worker.free, worker.in_hand, worker.live) == ("w", 3, 1, True)
    assert not (await heartbeats.fleet(db, -1))[0].live
    await heartbeats.forget(db, 60)
    assert len(await heartbeats.fleet(db, 30)) == 1
    await heartbeats.forget(db, -1)
    assert await heartbeats.fleet(db, 30) == []
