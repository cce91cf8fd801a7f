import asyncio
from collections import Counter
from uuid import UUID

from databases import age, completed, new_request, reload, states
from itemforge.contract import Heartbeat, JobMessage, Status, WorkerState
from itemforge.jobs import claims, heartbeats, migrate, publishing, requests, turns
from itemforge.jobs.database import Database


class Queue:
    """Takes messages; `refuse` counts down messages that are not confirmed."""

    def __init__(self, refuse: int = 0) -> None:
        self.messages: list[JobMessage] = []
        self.refuse = refuse

    async def publish(self, messages: list[JobMessage]) -> list[UUID]:
        await asyncio.sleep(0.01)
        refused, self.refuse = messages[: self.refuse], 0
        safe = [m for m in messages if m not in refused]
        self.messages += safe
        return [m.request_id for m in safe]

    @property
    def ids(self) -> list[UUID]:
        return [m.request_id for m in self.messages]


async def _beat(db: Database, worker: str, state: WorkerState, free: int, held: int = 0) -> None:
    heartbeat = Heartbeat(worker_id=worker, state=state, free=free, held=held, rows=[])
    await heartbeats.beat(db, heartbeat, 30, lambda: 0.0)


async def test_rows_are_published_one_owner_after_the_other_oldest_first(db: Database) -> None:
    ann = [(await new_request(db, "ann")).id for _ in range(4)]
    bob = [(await new_request(db, "bob")).id for _ in range(2)]
    queue = Queue()
    assert await publishing.publish_next(db, queue.publish, 5) == 5
    assert queue.ids == [ann[0], bob[0], ann[1], bob[1], ann[2]]
    assert await publishing.publish_next(db, queue.publish, 5) == 1
    assert await publishing.publish_next(db, queue.publish, 5) == 0
    assert queue.ids[-1] == ann[3]


async def test_a_full_window_of_one_owner_lets_the_next_one_in_first(db: Database) -> None:
    ann = [(await new_request(db, "ann")).id for _ in range(6)]
    queue = Queue()
    await publishing.publish_next(db, queue.publish, 3)
    bob = [(await new_request(db, "bob")).id for _ in range(4)]
    for _ in range(7):  # as claims make room, one by one
        await publishing.publish_next(db, queue.publish, 1)
    assert queue.ids == [*ann[:3], *bob[:3], ann[3], bob[3], ann[4], ann[5]]


async def test_what_was_not_confirmed_is_published_again(db: Database) -> None:
    ids = [(await new_request(db)).id for _ in range(3)]
    queue = Queue(refuse=1)
    assert await publishing.publish_next(db, queue.publish, 10) == 2
    assert (await reload(db, ids[0])).published_at is None
    assert await publishing.publish_next(db, queue.publish, 10) == 1
    assert queue.ids == [*ids[1:], ids[0]]


async def test_ended_and_leased_rows_are_not_published(db: Database) -> None:
    cancelled, leased = await new_request(db), await new_request(db)
    await requests.cancel(db, cancelled.id)
    await claims.claim(db, "w", [leased.id], 30)
    queue = Queue()
    assert await publishing.publish_next(db, queue.publish, 10) == 0


async def test_two_relays_at_once_publish_each_row_once(postgres_url: str) -> None:
    db, other = Database(postgres_url), Database(postgres_url)
    await migrate.upgrade(db)
    ids = [(await new_request(db, owner)).id for owner in "abcd" for _ in range(10)]
    queue = Queue()

    async def relay(database: Database) -> int:
        total = 0
        while published := await publishing.publish_next(database, queue.publish, 7):
            total += published
        return total

    totals = await asyncio.gather(relay(db), relay(other))
    # A relay that finds all rows locked may stop early; what is left belongs to the next round.
    totals.append(await relay(db))
    assert sum(totals) == 40 and Counter(queue.ids) == Counter(ids)
    await db.close()
    await other.close()


async def test_the_window_follows_the_live_capacity(db: Database) -> None:
    async def size() -> int:
        return (await publishing.window(db, 32, 30)).size

    assert await size() == 32
    await _beat(db, "a", WorkerState.READY, 20)
    assert await size() == 40
    await _beat(db, "b", WorkerState.READY, 10)
    assert await size() == 60
    await _beat(db, "b", WorkerState.DRAINING, 10)
    assert await size() == 40
    assert (await publishing.window(db, 32, -1)).size == 32, "silent workers hold nothing"


async def test_the_window_counts_what_is_published_and_not_claimed(db: Database) -> None:
    ids = [(await new_request(db)).id for _ in range(4)]
    queue = Queue()
    await publishing.publish_next(db, queue.publish, 3)
    window = await publishing.window(db, 3, 30)
    assert (window.waiting, window.unpublished, window.room) == (3, 1, 0)
    await claims.claim(db, "w", ids[:2], 30)
    assert (await publishing.window(db, 3, 30)).room == 2


async def test_leases_that_ran_out_go_back_to_pending_and_live_ones_stay(db: Database) -> None:
    silent, alive = await new_request(db), await new_request(db)
    await claims.claim(db, "w", [silent.id], -1)
    await claims.claim(db, "w", [alive.id], 30)
    assert await publishing.expire_leases(db) == 1
    assert await publishing.expire_leases(db) == 0
    row = await reload(db, silent.id)
    assert (row.status, row.attempt, row.charged) == (Status.PENDING, 1, 1)
    assert await states(db, silent.id) == ["Pending", "Processing", "Pending"]
    assert (await reload(db, alive.id)).status is Status.PROCESSING


async def _published(db: Database, count: int, ago: float) -> list[UUID]:
    ids = [(await new_request(db)).id for _ in range(count)]
    await publishing.publish_next(db, Queue().publish, count)
    for request_id in ids:
        await age(db, request_id, "published_at", ago)
    return ids


async def _republish(db: Database, on_queue: int, silence: float = 30) -> int:
    return await publishing.republish_lost(db, on_queue, await publishing.moment(db), 900, silence)


async def test_an_honest_backlog_is_never_multiplied(db: Database) -> None:
    ids = await _published(db, 10, 3600)
    await claims.claim(db, "w", ids[:3], 30)
    assert await _republish(db, 7) == 0


async def test_what_was_published_while_the_queue_was_counted_is_not_lost(db: Database) -> None:
    await _published(db, 10, 3600)
    counted_at = await publishing.moment(db)
    for _ in range(5):
        await new_request(db)
    await publishing.publish_next(db, Queue().publish, 5)
    assert await publishing.republish_lost(db, 10, counted_at, 900, 30) == 0


async def test_what_live_workers_hold_unclaimed_is_not_lost(db: Database) -> None:
    await _published(db, 10, 3600)
    await _beat(db, "a", WorkerState.READY, 4, held=5)
    await _beat(db, "b", WorkerState.DRAINING, 0, held=3)
    assert await _republish(db, 2) == 0
    assert await _republish(db, 2, silence=-1) == 8, "a silent worker's messages are lost"


async def test_only_what_the_queue_lost_is_published_again(db: Database) -> None:
    ids = await _published(db, 10, 3600)
    for place, request_id in enumerate(ids):
        await age(db, request_id, "published_at", 3600 - place)
    assert await _republish(db, 8) == 2
    queue = Queue()
    await publishing.publish_next(db, queue.publish, 10)
    assert queue.ids == ids[:2]


async def test_fresh_and_leased_rows_are_not_published_again(db: Database) -> None:
    await _published(db, 2, 60)
    (leased,) = await _published(db, 1, 3600)
    await claims.claim(db, "w", [leased], 30)
    assert await _republish(db, 0) == 0


async def test_a_row_that_the_original_worker_lost_is_published_again(db: Database) -> None:
    (request_id,) = await _published(db, 1, 3600)
    await claims.set_status(db, request_id, Status.PROCESSING, None)
    assert await _republish(db, 0) == 1
    queue = Queue()
    await publishing.publish_next(db, queue.publish, 10)
    assert queue.ids == [request_id]


async def test_at_an_embedded_start_every_open_row_begins_anew(db: Database) -> None:
    waiting, running, done = await _published(db, 3, 1)
    await claims.claim(db, "w", [running, done], 3600)
    await claims.report(db, [completed(done)])
    assert await publishing.reopen_all(db) == 2
    row = await reload(db, running)
    assert (row.status, row.leased, row.charged) == (Status.PENDING, False, 1)
    queue = Queue()
    assert await publishing.publish_next(db, queue.publish, 10) == 2
    assert queue.ids == [waiting, running]
    (answer,) = await claims.claim(db, "w", [running], 30)
    assert (answer.outcome, answer.attempt, answer.alone) == ("claimed", 2, True)
    assert (await reload(db, done)).status is Status.COMPLETED


async def test_many_owners_each_get_their_turn_before_anybody_gets_a_second(db: Database) -> None:
    big = [(await new_request(db, "big")).id for _ in range(30)]
    small = [(await new_request(db, f"owner-{n}")).id for n in range(12)]
    queue = Queue()
    assert await publishing.publish_next(db, queue.publish, 13) == 13
    assert queue.ids == [big[0], *small], "equal turns go by age"
    assert await publishing.publish_next(db, queue.publish, 100) == 29
    assert queue.ids[13:] == big[1:]


async def test_the_order_does_not_depend_on_how_many_rows_go_at_once(db: Database) -> None:
    for n in range(12):
        await new_request(db, "abc"[n % 3 if n < 6 else 0])
    async with db.read() as conn:
        query = turns.NEXT[conn.dialect.name]
        expected = [row.id for row in await conn.execute(query, {"limit": 50, "each": 50})]
    assert len(expected) == 12
    queue = Queue()
    for room in (1, 2, 1, 5, 1, 1, 1):
        await publishing.publish_next(db, queue.publish, room)
    assert queue.ids == expected


async def test_rows_that_another_relay_holds_are_passed_over(postgres_url: str) -> None:
    db, other = Database(postgres_url), Database(postgres_url)
    await migrate.upgrade(db)
    ids = [(await new_request(db)).id for _ in range(6)]
    queue = Queue()

    async def meanwhile(messages: list[JobMessage]) -> list[UUID]:
        assert await publishing.publish_next(other, queue.publish, 2) == 2
        return await queue.publish(messages)

    assert await publishing.publish_next(db, meanwhile, 2) == 2
    assert queue.ids == [*ids[2:4], *ids[:2]]
    await db.close()
    await other.close()


async def test_the_pick_reads_the_backlog_through_its_own_index_only(db: Database) -> None:
    """A plan that scans or sorts the backlog grows with it."""
    await new_request(db, "owner-0")
    await publishing.publish_next(db, Queue().publish, 10)
    if db.postgresql:  # its plans follow the table's size; SQLite's do not
        names = "owner, status, prompt, params, attempt, charged, created_at, updated_at"
        async with db.write() as write:
            await write.conn.exec_driver_sql(
                f"INSERT INTO requests (id, {names}) SELECT gen_random_uuid(), 'owner-' || i % 10, 'Pending', "
                f"prompt, params, 0, 0, created_at, updated_at FROM requests, generate_series(1, 20000) AS i"
            )
        async with db.read() as conn:
            await conn.exec_driver_sql("ANALYZE requests")
    bound = turns.NEXT[db.engine.dialect.name].bindparams(limit=2, each=2)
    pick = bound.compile(dialect=db.engine.dialect, compile_kwargs={"literal_binds": True})
    async with db.read() as conn:
        explain = "EXPLAIN" if db.postgresql else "EXPLAIN QUERY PLAN"
        plan = [str(row[-1]) for row in await conn.exec_driver_sql(f"{explain} {pick}")]
    indexes = {word for line in plan for word in line.split() if word.startswith("ix_")}
    assert indexes == {"ix_requests_unpublished", "ix_requests_waiting"}, plan
    assert not any("Seq Scan" in line for line in plan), plan
