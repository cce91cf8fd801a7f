"""The worker's smaller parts: breaker, gate, spool, probes."""

import asyncio
import json
import os
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest

from itemforge.contract import JobParams
from itemforge.errors import ConfigurationError
from itemforge.worker.breaker import Breaker
from itemforge.worker.gate import Gate
from itemforge.worker.probes import Probes
from itemforge.worker.spool import Spool
from polling import eventually

PARAMS = JobParams(prompt="a key", seed=1)
PNG = bytes(88) + b"IEND\xaeB`\x82"


def test_the_breaker_opens_after_failures_in_a_row_only() -> None:
    breaker = Breaker(after=3)
    for _ in range(5):
        breaker.failure("storage", "away")
        breaker.failure("storage", "away")
        breaker.success()
    assert not breaker.open
    for _ in range(3):
        breaker.failure("storage", "away")
    assert breaker.open
    breaker.close()
    assert not breaker.open


async def test_a_suspect_is_alone_in_the_engine_and_nobody_starves() -> None:
    gate = Gate()
    inside: list[str] = []
    seen: dict[str, list[str]] = {}

    async def visit(name: str, alone: bool) -> None:
        async with gate.enter(alone):
            inside.append(name)
            await asyncio.sleep(0)
            seen[name] = list(inside)
            await asyncio.sleep(0)
            inside.remove(name)

    names = [("a", False), ("b", False), ("suspect 1", True), ("c", False), ("suspect 2", True), ("d", False)]
    await asyncio.wait_for(asyncio.gather(*(visit(*name) for name in names)), 5)
    assert set(seen) == {name for name, _ in names}
    assert seen["suspect 1"] == ["suspect 1"]
    assert seen["suspect 2"] == ["suspect 2"]
    assert sorted(seen["a"]) == ["a", "b"]


async def test_a_visitor_that_is_cancelled_at_the_gate_leaves_it_open() -> None:
    gate = Gate()

    async def stay(alone: bool) -> None:
        async with gate.enter(alone):
            await asyncio.Event().wait()

    first, second = asyncio.create_task(stay(False)), asyncio.create_task(stay(True))
    await asyncio.sleep(0)
    for task in (second, first):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(5), gate.enter(False), gate.enter(False):
        pass


def test_the_spool_gives_back_only_what_was_asked_for_with_the_same_parameters(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    request_id = uuid.uuid4()
    spool.put(request_id, 0, PARAMS, PNG)
    assert spool.get(request_id, 0, PARAMS) == PNG
    assert spool.get(request_id, 1, PARAMS) is None
    assert spool.get(uuid.uuid4(), 0, PARAMS) is None
    assert spool.get(request_id, 0, PARAMS.model_copy(update={"seed": 2})) is None
    spool.drop(request_id, 0, PARAMS)
    assert spool.get(request_id, 0, PARAMS) is None


def test_the_spool_forgets_the_oldest_beyond_its_size(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=2 * len(PNG) + 50)
    ids = [uuid.uuid4() for _ in range(3)]
    for age, request_id in enumerate(ids):
        spool.put(request_id, 0, PARAMS, PNG)
        for file in tmp_path.glob(f"{request_id}*"):
            os.utime(file, (age + 1, age + 1))
    spool.put(uuid.uuid4(), 0, PARAMS, bytes(50))
    assert [spool.get(i, 0, PARAMS) is not None for i in ids] == [False, True, True]


def test_a_spooled_picture_that_lost_its_end_is_drawn_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    request_id = uuid.uuid4()
    spool.put(request_id, 0, PARAMS, PNG[:-1])
    assert spool.get(request_id, 0, PARAMS) is None


def test_a_spool_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    spool = Spool(blocked / "spool")
    spool.put(uuid.uuid4(), 0, PARAMS, b"png")
    assert spool.get(uuid.uuid4(), 0, PARAMS) is None


def _get(url: str) -> tuple[int, dict[str, str]]:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


async def test_probes_tell_alive_and_ready_apart() -> None:
    ready = False
    probes = Probes("127.0.0.1", 0, lambda: (ready, {"state": "starting"}))
    serving = asyncio.create_task(probes.run())
    base = f"http://127.0.0.1:{probes.port}"
    assert (await asyncio.to_thread(_get, f"{base}/healthz"))[0] == 200
    assert await asyncio.to_thread(_get, f"{base}/readyz") == (503, {"state": "starting"})
    ready = True
    assert (await asyncio.to_thread(_get, f"{base}/readyz"))[0] == 200
    assert (await asyncio.to_thread(_get, f"{base}/other"))[0] == 404
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    await eventually(lambda: serving.done())


async def test_a_taken_probe_port_is_a_clear_error() -> None:
    first = Probes("127.0.0.1", 0, lambda: (True, {}))
    with pytest.raises(ConfigurationError, match="ITEMFORGE_WORKER_PORT"):
        Probes("127.0.0.1", first.port, lambda: (True, {}))
    first._server.server_close()
