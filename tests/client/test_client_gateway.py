"""Both clients against a real gateway that goes away in the middle."""

import asyncio
import json
import uuid
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from painter import painting
from rig import MemoryBroker, MemoryStore, Rig, app_for, headers_of, settings_for

from itemforge.client import AsyncClient, Client, Generation, NotFound, StateEvent, Status, WaitTimeout
from itemforge.gateway.listening import bind
from itemforge.gateway.server import serving
from itemforge.jobs.keys import Role
from polling import eventually


@asynccontextmanager
async def gateway(home: Path, port: int, store: MemoryStore) -> AsyncIterator[tuple[Rig, str]]:
    """A gateway on this port, which may have been another's before; gives its address as well."""
    settings = settings_for(f"sqlite+aiosqlite:///{home / 'jobs.db'}", home)
    app = app_for(settings, broker := MemoryBroker(), store, embedded=True)
    async with (
        serving(app, bind("127.0.0.1", port)) as address,
        httpx.AsyncClient(base_url=address, timeout=30) as http,
    ):
        yield Rig(app, broker, store, http), address


async def test_waiting_and_events_outlive_a_gateway_that_starts_again(tmp_path: Path) -> None:
    store = MemoryStore(f"file://{tmp_path}")
    progress: list[Generation] = []
    async with gateway(tmp_path, 0, store) as (rig, address):
        secret = (await headers_of(rig, Role.USER))["X-API-Key"]
        blocking, awaited = Client(address, secret), AsyncClient(address, secret)
        name = uuid.uuid4()
        asked = await awaited.submit("a ball", request_id=name)
        again = await asyncio.to_thread(blocking.submit, "a ball", request_id=name)
        assert asked.id == again.id == str(name)
        waiting = asyncio.create_task(
            asyncio.to_thread(blocking.wait, asked, timeout=100, on_progress=progress.append)
        )

        async def follow() -> list[Status]:
            return [event.status async for event in awaited.events(asked) if isinstance(event, StateEvent)]

        following = asyncio.create_task(follow())
        await eventually(lambda: progress and rig.gateway.db.signals._watches, 30, why="they listen")
    port = int(address.rpartition(":")[2])
    assert not waiting.done() and not following.done()
    async with gateway(tmp_path, port, store) as (rig, _):
        async with painting(rig, await headers_of(rig, Role.WORKER)):
            done = await waiting
            # Nothing twice, nothing left out.
            assert await following == [Status.PENDING, Status.PROCESSING, Status.COMPLETED]
        assert (done.status, done.num_images) == (Status.COMPLETED, 1)
        assert any(now.progress and 0 < now.progress.step < now.progress.steps for now in progress)
        assert progress[-1].status is Status.COMPLETED
        assert [each.id async for each in awaited.list(mine=True, q="ball")] == [str(name)]
        await awaited.delete(done)
        with pytest.raises(NotFound):
            await awaited.get(done)
        assert (await awaited.restore(done)).status is Status.COMPLETED
        (style, *_) = await asyncio.to_thread(blocking.styles)
        assert (style.name, style.size.width) == ("plain@1", 64)
        retried = await awaited.retry(done)
        assert retried.retry_of == done.id
        assert (await awaited.cancel(retried)).status is Status.CANCELLED
        blocking.close()
        await awaited.close()


async def test_a_batch_is_drawn_judged_drawn_again_and_taken_home(tmp_path: Path) -> None:
    store, seen = MemoryStore(f"file://{tmp_path}"), []
    async with gateway(tmp_path, 0, store) as (rig, address):
        secret = (await headers_of(rig, Role.USER))["X-API-Key"]
        worker = await headers_of(rig, Role.WORKER)
        with Client(address, secret) as blocking:
            async with AsyncClient(address, secret) as client, painting(rig, worker):
                batch = await client.submit_batch(
                    ["a cup", {"prompt": "a hat", "name": "hat", "variations": 1}], variations=2, seed=5
                )
                assert (batch.things, batch.size, batch.done) == (2, 3, False)
                done = await client.wait_batch(batch, timeout=60, on_progress=seen.append)
                assert done.done and done.counts.status[Status.COMPLETED] == 3 and seen[-1] == done
                (cup, hat) = (await client.batch(batch)).items
                assert [len(each.cells) for each in (cup, hat)] == [2, 1] and hat.name == "hat"
                await client.judge_batch(batch, "rejected", [cup.cells[0].id])
                judged = await asyncio.to_thread(blocking.judge_batch, batch, "approved")
                assert dict(judged.counts.verdict) == {"none": 0, "approved": 2, "rejected": 1}
                assert not (await client.reroll_batch(batch)).done
                await asyncio.to_thread(blocking.wait_batch, batch, timeout=60)
                (cup, *_) = (await client.batch(batch, limit=1)).items
                assert cup.cells[0].tries == 2
                path = await client.export_batch(batch, tmp_path / "batch.zip")
                with zipfile.ZipFile(path) as archive:
                    assert len(json.loads(archive.read("manifest.json"))["pictures"]) == 2
            endless = await asyncio.to_thread(blocking.submit_batch, ["a box"])
            with pytest.raises(WaitTimeout, match="it goes on"):
                await asyncio.to_thread(blocking.wait_batch, endless, timeout=0.1)
            ended = await asyncio.to_thread(blocking.cancel_batch, endless)
            assert ended.done and ended.counts.status[Status.CANCELLED] == 4
