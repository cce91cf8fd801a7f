"""Relay, sweeper, cleaner and probes around a running gateway."""

import asyncio
import json
from pathlib import Path

from rig import MemoryBroker, Rig, listening, running, settings_for
from sqlalchemy import text

from databases import age, new_request, reload
from itemforge.contract import QUEUE, Status, retry_queue
from itemforge.gateway import upkeep
from itemforge.gateway.relay import Relay
from itemforge.jobs import claims, finding
from itemforge.jobs.database import Database
from itemforge.settings import GatewaySettings
from polling import eventually


async def test_a_request_is_on_the_queue_with_the_contracts_body(rig: Rig) -> None:
    body = await rig.submit(seed="9223372036854775807")
    await eventually(lambda: rig.broker.ids == [body["id"]])
    message = json.loads(rig.broker.queues[QUEUE][0])
    assert message["params"]["prompt"] == "a red apple" and message["params"]["style"] == "plain@1"
    assert message["params"]["seed"] == 2**63 - 1, "an integer on the wire"
    assert rig.broker.started


async def test_the_api_takes_work_while_the_broker_is_away_and_it_is_queued_in_order(rig: Rig) -> None:
    rig.broker.connected = False
    ids = [(await rig.submit())["id"] for _ in range(5)]
    assert (await rig.http.get("/readyz")).json() == {
        "ready": True, "database": "ok", "broker": "unavailable"
    }  # fmt: skip
    rig.broker.connected = True
    await eventually(lambda: rig.broker.ids == ids)
    rig.broker.failing = True
    late = (await rig.submit())["id"]
    rig.broker.failing = False
    await eventually(lambda: rig.broker.ids == [*ids, late])


async def test_claims_make_room_in_the_window(settings: GatewaySettings) -> None:
    async with running(settings.model_copy(update={"relay_window": 2, "relay_interval": 30.0})) as rig:
        ids = [(await rig.submit())["id"] for _ in range(4)]
        await eventually(lambda: rig.broker.ids == ids[:2])
        await rig.claim(ids[0])
        await eventually(lambda: rig.broker.ids == ids[:3])
        await rig.http.post(f"/v1/generations/{ids[1]}/cancel")
        await eventually(lambda: rig.broker.ids == ids)


async def test_a_slow_broker_holds_nobody_up(settings: GatewaySettings) -> None:
    async with running(settings, MemoryBroker(delay=3.0)) as rig:
        await rig.submit()
        async with asyncio.timeout(2):
            for _ in range(3):
                await rig.submit()


async def test_the_sweeper_frees_silent_workers_rows_and_refills_the_queue(
    settings: GatewaySettings, db: Database
) -> None:
    broker = MemoryBroker()
    relay = Relay(settings, db, broker)  # type: ignore[arg-type]
    request = await new_request(db)
    await relay.drain()
    await claims.claim(db, "w", [request.id], -1)
    await upkeep.sweep(settings, db, broker)  # type: ignore[arg-type]
    assert (await reload(db, request.id)).status is Status.PENDING
    await age(db, request.id, "published_at", settings.sweep_after + 1)
    await upkeep.sweep(settings, db, broker)  # type: ignore[arg-type]
    assert await relay.drain() == 0, "its message is still there"
    broker.queues[retry_queue("30s")] = broker.queues.pop(QUEUE)
    await upkeep.sweep(settings, db, broker)  # type: ignore[arg-type]
    assert await relay.drain() == 0, "or in a retry queue"
    broker.queues.clear()
    await upkeep.sweep(settings, db, broker)  # type: ignore[arg-type]
    assert await relay.drain() == 1
    assert broker.ids == [str(request.id)]


async def test_the_cleaner_takes_objects_along_and_nothing_else(rig: Rig) -> None:
    ids = [(await rig.submit())["id"] for _ in range(2)]
    for request_id in ids:
        await rig.draw(request_id)
        await rig.http.get(f"/v1/generations/{request_id}/thumbnail")
    db = rig.gateway.db
    rows = await finding.find(db, finding.Filter(), 10)
    old = next(row for row in rows if str(row.id) == ids[0])
    await age(db, old.id, "finished_at", 10 * 86400)
    keeping = rig.gateway.settings.model_copy(update={"retain_requests": 7.0})
    await upkeep.clean(keeping, db, rig.store)
    assert (await rig.http.get(f"/v1/generations/{ids[0]}")).status_code == 404
    assert (await rig.http.get(f"/v1/generations/{ids[1]}/image")).status_code == 200
    assert [key for key in rig.store.objects if ids[0] in key] == []
    assert len([key for key in rig.store.objects if ids[1] in key]) == 2


async def test_killed_in_the_middle_the_embedded_system_takes_its_work_up_again(
    database_url: str, tmp_path: Path
) -> None:
    settings = settings_for(database_url, tmp_path)
    async with running(settings, embedded=True) as rig:
        ids = [(await rig.submit())["id"] for _ in range(2)]
        await eventually(lambda: rig.broker.ids == ids)
        await rig.claim(ids[0])
    async with running(settings, embedded=True) as rig:
        await eventually(lambda: rig.broker.ids == ids)
        assert (await rig.claim(ids[0]))["attempt"] == 2
        await rig.report(ids[0], 2)
        assert (await rig.http.get(f"/v1/generations/{ids[0]}")).json()["status"] == "Completed"


async def test_a_restart_on_a_lasting_queue_publishes_nothing_twice(
    database_url: str, tmp_path: Path
) -> None:
    settings = settings_for(database_url, tmp_path)
    async with running(settings) as rig:
        first = (await rig.submit())["id"]
        await eventually(lambda: rig.broker.ids == [first])
        await eventually(rig.all_published)  # a stop between the two would publish it again
    async with running(settings) as rig:
        second = (await rig.submit())["id"]
        await eventually(lambda: rig.broker.ids == [second])


async def test_a_database_that_is_away_is_503_and_comes_back_by_itself(
    postgres_url: str, tmp_path: Path
) -> None:
    db = Database(postgres_url)
    name = db.engine.url.database
    admin = Database(db.engine.url.set(database="postgres").render_as_string(hide_password=False))

    async def allow(allowed: bool) -> None:
        async with admin.engine.connect() as conn:
            auto = await conn.execution_options(isolation_level="AUTOCOMMIT")
            await auto.execute(text(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {str(allowed).lower()}'))
            await auto.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
                {"name": name},
            )

    await allow(False)
    async with listening(settings_for(postgres_url, tmp_path)) as rig:
        answer = await rig.http.post("/v1/generations", json={"prompt": "p"})
        assert answer.status_code == 503 and answer.headers["retry-after"]
        assert answer.headers["content-type"] == "application/problem+json"
        ready = await rig.http.get("/readyz")
        assert (ready.status_code, ready.json()["database"]) == (503, "unavailable")
        assert (await rig.http.get("/healthz")).status_code == 200
        await allow(True)

        async def accepted() -> bool:
            return (await rig.http.post("/v1/generations", json={"prompt": "p"})).status_code == 202

        await eventually(accepted)
        await allow(False)
        for method, path in (("GET", "/v1/generations"), ("POST", "/v1/generations"), ("GET", "/v1/stats")):
            answer = await rig.http.request(method, path, json={"prompt": "p"} if method == "POST" else None)
            assert answer.status_code == 503, answer.text
        await allow(True)
        await eventually(accepted)
        await eventually(lambda: len(rig.broker.ids) >= 2, why="the relay is back as well")
    await db.close()
    await admin.close()
