"""Event streams over a real socket."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from rig import Rig, listening, settings_for
from sqlalchemy import delete

from itemforge.jobs.tables import events as table
from itemforge.settings import GatewaySettings
from polling import eventually
from sse import Event, events_of


@pytest.fixture
async def served(settings: GatewaySettings) -> AsyncIterator[Rig]:
    async with listening(settings) as rig:
        yield rig


async def _follow(rig: Rig, request_id: str, last: str | None = None) -> AsyncIterator[Event]:
    headers = {"Last-Event-ID": last} if last else {}
    async with rig.http.stream("GET", f"/v1/generations/{request_id}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for event in events_of(answer):
            yield event


async def _all(rig: Rig, request_id: str, last: str | None = None) -> list[Event]:
    async with asyncio.timeout(20):
        return [event async for event in _follow(rig, request_id, last)]


async def _beat(rig: Rig, request_id: str, step: int, preview: str | None = None) -> bool:
    row = {"request_id": request_id, "attempt": 1, "step": step, "steps": 50, "preview": preview}
    beat = {"worker_id": "w1", "state": "ready", "free": 1, "rows": [row]}
    answer = await rig.http.post("/v1/worker/heartbeat", json=beat)
    return bool(answer.json()[0]["watch"])


async def test_a_stream_tells_the_whole_life_and_ends_with_it(served: Rig) -> None:
    request_id = (await served.submit())["id"]
    following = asyncio.create_task(_all(served, request_id))
    await served.claim(request_id)
    await _beat(served, request_id, 3)
    await served.report(request_id)
    told = await following
    assert [name for name, _, _ in told] == ["state", "state", "progress", "state"]
    assert [data.get("status") for _, _, data in told] == ["Pending", "Processing", None, "Completed"]
    assert told[2][2] == {"step": 3, "steps": 50, "image": 0}
    assert told[3][2] == {
        "id": request_id,
        "status": "Completed",
        "attempt": 1,
        "image_url": f"https://store.example/generated/{request_id}.png",
        "error": None,
    }
    ids = [int(event_id or 0) for _, event_id, _ in told]
    assert ids == sorted(set(ids))


async def test_a_stream_goes_on_after_any_event(served: Rig) -> None:
    request_id = (await served.submit())["id"]
    await served.claim(request_id)
    await served.report(request_id, status="Failed", error="no such thing")
    told = await _all(served, request_id)
    assert told[-1][2]["error"] == "no such thing"
    for place, (_, event_id, _) in enumerate(told[:-1]):
        assert await _all(served, request_id, event_id) == told[place + 1 :]
    for nonsense in ("x", "-1", "1.5"):
        assert await _all(served, request_id, nonsense) == told
    path = f"/v1/generations/{request_id}/events"
    for last in (told[-1][1], "9" * 40):
        answer = await served.http.get(path, headers={"Last-Event-ID": str(last)})
        assert answer.status_code == 204, "tells the browser not to connect again"


async def test_a_stream_whose_history_is_gone_still_tells_the_end(served: Rig) -> None:
    request_id = (await served.submit())["id"]
    await served.http.post(f"/v1/generations/{request_id}/cancel")
    async with served.gateway.db.write() as write:
        await write.conn.execute(delete(table))
    ((name, event_id, data),) = await _all(served, request_id)
    assert (name, event_id, data["status"]) == ("state", None, "Cancelled")


async def test_previews_come_to_who_watches_and_are_not_replayed(served: Rig) -> None:
    request_id = (await served.submit())["id"]
    await served.claim(request_id)
    assert not await _beat(served, request_id, 1), "nobody watches yet"
    jpeg = base64.b64encode(b"\xff\xd8" + b"x" * 5000).decode()
    seen: list[Event] = []

    async def follow() -> None:
        async for event in _follow(served, request_id):
            seen.append(event)

    following = asyncio.create_task(follow())
    await eventually(lambda: _beat(served, request_id, 2), why="the worker hears that somebody watches")
    await _beat(served, request_id, 3, jpeg)
    preview = await eventually(lambda: [e for e in seen if e[0] == "preview"])
    assert preview == [("preview", None, {"image": 0, "jpeg_base64": jpeg})]
    await served.report(request_id)
    await asyncio.wait_for(following, 10)
    assert "preview" not in [name for name, _, _ in await _all(served, request_id)]


async def test_many_streams_of_many_requests_each_hear_their_own(served: Rig) -> None:
    ids = [(await served.submit())["id"] for _ in range(5)]
    following = [asyncio.create_task(_all(served, i)) for i in ids for _ in range(3)]
    for request_id in ids:
        await served.claim(request_id)
        await served.report(request_id)
    for place, told in enumerate(await asyncio.gather(*following)):
        assert {data["id"] for _, _, data in told} == {ids[place // 3]}
        assert told[-1][2]["status"] == "Completed"


async def test_an_open_stream_does_not_hold_the_server_up(settings: GatewaySettings) -> None:
    async with listening(settings) as rig:
        request_id = (await rig.submit())["id"]
        stream = _follow(rig, request_id)
        assert (await anext(stream))[2]["status"] == "Pending"
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 3
    with contextlib.suppress(Exception):
        await stream.aclose()  # type: ignore[attr-defined]


async def test_a_client_that_leaves_takes_its_watch_along(served: Rig) -> None:
    request_id = (await served.submit())["id"]
    stream = _follow(served, request_id)
    await anext(stream)
    watches = served.gateway.db.signals._watches
    assert len(watches) == 1
    await stream.aclose()  # type: ignore[attr-defined]
    await eventually(lambda: not watches)


async def test_two_gateways_share_one_stream_of_news(postgres_url: str, tmp_path: Any) -> None:
    settings = settings_for(postgres_url, tmp_path)
    async with listening(settings) as here, listening(settings) as there:
        request_id = (await here.submit())["id"]
        following = asyncio.create_task(_all(there, request_id))
        await here.claim(request_id)
        await eventually(lambda: _beat(here, request_id, 2), why="a viewer at the other gateway counts")
        await here.report(request_id)
        told = await following
        assert [d["status"] for name, _, d in told if name == "state"] == [
            "Pending",
            "Processing",
            "Completed",
        ]
