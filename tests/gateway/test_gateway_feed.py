"""One stream of all that happens to a caller's generations."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from rig import Rig, headers_of, listening
from sqlalchemy import delete, insert

from itemforge.jobs.clock import now
from itemforge.jobs.keys import Role
from itemforge.jobs.tables import events as table
from itemforge.settings import GatewaySettings
from polling import eventually
from sse import Event, events_of


@pytest.fixture
async def served(settings: GatewaySettings) -> AsyncIterator[Rig]:
    async with listening(settings) as rig:
        yield rig


class Told:
    """What a client has heard, and how it waits for more."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._more = asyncio.Event()

    def add(self, event: Event) -> None:
        self.events.append(event)
        self._more.set()

    async def until(self, found: Callable[[list[Event]], object]) -> None:
        async with asyncio.timeout(40):
            while not found(self.events):
                self._more.clear()
                await self._more.wait()

    def of(self, request_id: str, kind: str = "state") -> list[dict[str, Any]]:
        return [data for name, _, data in self.events if name == kind and data["id"] == request_id]

    def statuses(self, request_id: str) -> list[str]:
        return [data["status"] for data in self.of(request_id)]

    @property
    def last_id(self) -> str:
        return max((number for _, number, _ in self.events if number), key=int)


@asynccontextmanager
async def _following(rig: Rig, headers: dict[str, str] | None = None, **query: str) -> AsyncIterator[Told]:
    told = Told()

    async def follow() -> None:
        async with rig.http.stream("GET", "/v1/events", headers=headers, params=query) as answer:
            assert answer.status_code == 200
            async for event in events_of(answer):
                told.add(event)

    task = asyncio.create_task(follow())
    try:
        yield told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _beat(rig: Rig, request_id: str, step: int, preview: str | None = None, free: int = 1) -> bool:
    row = {"request_id": request_id, "attempt": 1, "step": step, "steps": 50, "preview": preview}
    beat = {"worker_id": "w1", "state": "ready", "free": free, "rows": [row]}
    answer = await rig.http.post("/v1/worker/heartbeat", json=beat)
    return bool(answer.json()[0]["watch"])


async def test_one_connection_tells_of_all_and_of_new_ones(served: Rig) -> None:
    before = (await served.submit())["id"]
    async with _following(served) as told:
        await told.until(lambda _: told.statuses(before) == ["Pending"])
        later = (await served.submit("a cup"))["id"]
        await told.until(lambda _: told.statuses(later))
        await served.claim(later)
        jpeg = base64.b64encode(b"a picture").decode()
        # Until the stream has asked for previews.
        await eventually(lambda: _beat(served, later, 3, jpeg), within=40)
        await _beat(served, later, 3, jpeg)
        await told.until(lambda _: told.of(later, "preview"))
        assert told.of(later, "preview")[0] == {"id": later, "image": 0, "jpeg_base64": jpeg}
        await served.report(later)
        await served.http.post(f"/v1/generations/{before}/cancel")
        await told.until(
            lambda _: told.statuses(later)[-1] == "Completed" and len(told.statuses(before)) == 2
        )
        assert told.statuses(later) == ["Pending", "Processing", "Completed"]
        assert told.of(later)[-1]["image_url"] == f"https://store.example/generated/{later}.png"
        assert told.of(later, "progress") == [{"id": later, "step": 3, "steps": 50, "image": 0}]
        assert told.statuses(before) == ["Pending", "Cancelled"]


async def test_who_comes_back_has_missed_nothing(served: Rig) -> None:
    one, two = (await served.submit())["id"], (await served.submit("a cup"))["id"]
    async with _following(served) as told:
        await told.until(lambda _: told.of(one) and told.of(two))
        last = told.last_id
    await served.draw(one)
    three = (await served.submit("a bird"))["id"]
    await served.claim(two)
    await served.report(two, status="Failed", error="no such thing")
    for way in ({"after": last}, {}):
        headers = {} if way else {"Last-Event-ID": last}
        async with _following(served, headers, **way) as told:
            await told.until(lambda _: told.of(three))
            assert told.statuses(one)[-1] == "Completed"
            assert told.of(two)[-1]["error"] == "no such thing"


async def test_an_event_that_is_committed_late_is_not_skipped(served: Rig) -> None:
    """On PostgreSQL a transaction may have taken a lower id than one that was told already."""
    one, two = (await served.submit())["id"], (await served.submit("a cup"))["id"]
    db = served.gateway.db
    async with db.write() as write:
        taken = (
            await write.conn.execute(
                insert(table)
                .values(request_id=UUID(one), type="progress", data={}, created_at=now())
                .returning(table.c.id)
            )
        ).scalar_one()
        await write.conn.execute(delete(table).where(table.c.id == taken))
    await served.claim(two)
    async with _following(served) as told:
        await told.until(lambda _: told.statuses(two) == ["Pending", "Processing"])
        assert int(told.last_id) > taken
        late = {"step": 7, "steps": 50, "image": 0}
        async with db.write() as write:
            await write.conn.execute(
                insert(table).values(
                    id=taken, request_id=UUID(one), type="progress", data=late, created_at=now()
                )
            )
            write.changed.add(UUID(one))
        await told.until(lambda _: told.of(one, "progress"))
        last = told.last_id
    async with _following(served, after=last) as told:
        await told.until(lambda _: told.of(one, "progress"))
        assert told.of(one, "progress") == [{"id": one, **late}]


async def test_nobody_hears_of_anothers(settings: GatewaySettings) -> None:
    async with listening(settings) as rig:
        one, other = await headers_of(rig, Role.USER), await headers_of(rig, Role.USER)
        made = await rig.http.post("/v1/generations", json={"prompt": "a secret"}, headers=one)
        mine = await rig.http.post("/v1/generations", json={"prompt": "a cup"}, headers=other)
        async with _following(rig, other) as told:
            await told.until(lambda _: told.of(mine.json()["id"]))
            await told.until(lambda events: [name for name, _, _ in events if name == "queue"])
            assert made.json()["id"] not in json.dumps(told.events)
        assert (await rig.http.get("/v1/events")).status_code == 401
        worker = await headers_of(rig, Role.WORKER)
        assert (await rig.http.get("/v1/events", headers=worker)).status_code == 403


async def test_places_in_line_and_times_are_told_once_they_are_known(settings: GatewaySettings) -> None:
    settings = settings.model_copy(update={"relay_window": 2, "relay_interval": 0.02})
    async with listening(settings) as rig:
        busy, quick = await headers_of(rig, Role.USER), await headers_of(rig, Role.USER)

        async def ask(headers: dict[str, str]) -> str:
            answer = await rig.http.post("/v1/generations", json={"prompt": "a cup"}, headers=headers)
            return str(answer.json()["id"])

        many = [await ask(busy) for _ in range(8)]
        await eventually(lambda: len(rig.broker.ids) == 2, within=40)
        single = await ask(quick)

        async def line(told: Told, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
            def last(events: list[Event]) -> dict[str, Any]:
                return next((data for name, _, data in reversed(events) if name == "queue"), {})

            await told.until(lambda events: last(events) and wanted(last(events)))
            return last(told.events)

        async with _following(rig, quick) as told:
            found = await line(told, lambda data: bool(data["open"]))
            # Two are on the queue, and of the rest the single one is the next: one owner after the other.
            assert found == {"workers": 0, "open": [{"id": single, "position": 3, "eta_s": None}]}
        async with _following(rig, busy) as told:
            found = await line(told, lambda data: len(data["open"]) == 8)
            assert sorted(each["position"] for each in found["open"]) == [1, 2, 4, 5, 6, 7, 8, 9]

        rig.http.headers.update(await headers_of(rig, Role.WORKER))
        await rig.draw(rig.broker.ids[0])
        await _beat(rig, many[1], 0, free=4)  # a worker with places
        async with _following(rig, quick) as told:
            found = await line(told, lambda data: data["open"] and data["open"][0]["eta_s"] is not None)
            assert found["workers"] == 1
            assert 1 <= found["open"][0]["eta_s"] < 3600
