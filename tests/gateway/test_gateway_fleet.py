"""The fleet in figures: what workers tell of themselves, who sees whose jobs, and what was done when."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from rig import Rig, headers_of, running

from databases import age
from itemforge.contract import Status
from itemforge.jobs.figures import ASSUMED_STEP_SECONDS
from itemforge.jobs.keys import Role
from itemforge.jobs.tables import requests
from itemforge.settings import GatewaySettings

ADMIN = {"X-API-Key": "the bootstrap key of these tests"}
FACTS = {
    "version": "0.2.0",
    "model": "sd15",
    "base": "a" * 64,
    "device": "NVIDIA H100",
    "styles": ["tale@3", "plain@1"],
    "steps_per_second": 41.5,
    "done": 12,
    "failed": 1,
}


def beat(worker: str = "w1", **more: Any) -> dict[str, Any]:
    return {"worker_id": worker, "state": "ready", "free": 8, "rows": [], **more}


async def _beat(rig: Rig, **fields: Any) -> None:
    answer = await rig.http.post("/v1/worker/heartbeat", json=beat(**fields), headers=rig.http.headers)
    assert answer.status_code == 200, answer.text


async def _workers(rig: Rig, headers: dict[str, str] | None = None) -> dict[str, dict[str, Any]]:
    answer = await rig.http.get("/v1/workers", headers=headers)
    assert answer.status_code == 200, answer.text
    return {worker["worker_id"]: worker for worker in answer.json()}


async def test_workers_tell_of_themselves_and_old_ones_do_not(rig: Rig) -> None:
    await _beat(rig, worker="new", facts=FACTS | {"later": "is ignored"})
    await _beat(rig, worker="old")
    found = await _workers(rig)
    assert found["new"]["facts"] == FACTS
    assert found["old"]["facts"] is None
    # The newest heartbeat counts, also one that tells nothing.
    await _beat(rig, worker="new", facts=FACTS | {"done": 13, "steps_per_second": None})
    assert (await _workers(rig))["new"]["facts"] == FACTS | {"done": 13, "steps_per_second": None}
    await _beat(rig, worker="new")
    assert (await _workers(rig))["new"]["facts"] is None


async def test_facts_that_are_not_understood_cost_no_lease(rig: Rig) -> None:
    body = await rig.submit()
    await rig.claim(body["id"])
    row = {"request_id": body["id"], "attempt": 1, "step": 3, "steps": 20}
    wrong: list[Any] = ["text", {"done": -1}, {"device": "a\0b"}, {"styles": ["A B"]}]
    for facts in [*wrong, {"steps_per_second": "fast"}, {"styles": ["a@1"] * 9}]:
        answer = await rig.http.post("/v1/worker/heartbeat", json=beat(rows=[row], facts=facts))
        assert answer.status_code == 200 and not answer.json()[0]["lost"], facts
        assert (await _workers(rig))["w1"]["facts"] is None


async def test_users_see_the_fleet_and_only_their_own_jobs_in_it(settings: GatewaySettings) -> None:
    secret = SecretStr(ADMIN["X-API-Key"])
    keyed = settings.model_copy(update={"admin_key": secret, "key_cache": 0.0})
    async with running(keyed, headers=ADMIN) as rig:
        ann, bob = await headers_of(rig, Role.USER), await headers_of(rig, Role.USER)
        theirs = {}
        for name, headers in (("ann", ann), ("bob", bob)):
            answer = await rig.http.post("/v1/generations", json={"prompt": "a cup"}, headers=headers)
            theirs[name] = answer.json()["id"]
            assert (await rig.claim(theirs[name]))["outcome"] == "claimed"
        rows = [{"request_id": i, "attempt": 1, "step": 1, "steps": 20} for i in theirs.values()]
        await _beat(rig, rows=rows, facts=FACTS)

        seen = (await _workers(rig, ann))["w1"]
        assert seen["jobs"] == [theirs["ann"]] and (seen["in_hand"], seen["facts"]) == (2, FACTS)
        assert (await _workers(rig, bob))["w1"]["jobs"] == [theirs["bob"]]
        assert (await _workers(rig))["w1"]["jobs"] == [theirs["ann"], theirs["bob"]]
        text = (await rig.http.get("/fleet", headers=ann)).text
        assert theirs["ann"][:8] in text and theirs["bob"][:8] not in text and "NVIDIA H100" in text
        # What a worker has given back is nobody's job any more.
        assert await rig.report(theirs["ann"], status="Released") == 200
        assert (await _workers(rig, ann))["w1"]["jobs"] == []


async def _ended(rig: Rig, minutes_ago: float, status: Status, images: int = 1, hidden: bool = False) -> None:
    body = await rig.submit(num_images=images)
    request_id = UUID(body["id"])
    at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    async with rig.gateway.db.write() as write:
        await write.conn.execute(
            requests.update()
            .where(requests.c.id == request_id)
            .values(status=status, finished_at=at, deleted_at=at if hidden else None)
        )


async def _done(rig: Rig, span: str) -> dict[str, Any]:
    answer = await rig.http.get(f"/v1/stats/throughput?span={span}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_throughput_counts_what_ended_by_the_minute_and_by_the_quarter(rig: Rig) -> None:
    await _ended(rig, 0.001, Status.COMPLETED, images=4)
    await _ended(rig, 10, Status.COMPLETED, hidden=True)
    await _ended(rig, 10, Status.FAILED)
    await _ended(rig, 5, Status.CANCELLED)
    await _ended(rig, 150, Status.COMPLETED, images=2)
    await _ended(rig, 26 * 60, Status.COMPLETED)
    await rig.submit()

    hour, day = await _done(rig, "hour"), await _done(rig, "day")
    for done, count, step in ((hour, 60, 60), (day, 96, 900)):
        times = [datetime.fromisoformat(slot["at"]) for slot in done["slots"]]
        assert len(times) == count and done["step_seconds"] == step
        assert {(b - a).total_seconds() for a, b in itertools.pairwise(times)} == {step}
        assert all(time.timestamp() % step == 0 for time in times)
        assert 0 <= (datetime.now(UTC) - times[-1]).total_seconds() < step + 60
    total = lambda done, key: sum(slot[key] for slot in done["slots"])  # noqa: E731
    assert [total(hour, key) for key in ("completed", "failed", "images")] == [2, 1, 5]
    assert [total(day, key) for key in ("completed", "failed", "images")] == [3, 1, 7]
    ten_ago = [slot for slot in hour["slots"] if slot["failed"]]
    assert [(slot["completed"], slot["failed"], slot["images"]) for slot in ten_ago] == [(1, 1, 1)]
    assert (await rig.http.get("/v1/stats")).json()["images_per_hour"] == 5
    assert (await rig.http.get("/v1/stats/throughput?span=year")).status_code == 422


async def test_stats_say_how_long_things_wait(rig: Rig) -> None:
    body = await rig.submit(num_inference_steps=100, num_images=2)
    await age(rig.gateway.db, UUID(body["id"]), "created_at", 120)
    stats = (await rig.http.get("/v1/stats")).json()
    assert 120 <= stats["oldest_seconds"] < 180
    assert stats["backlog_seconds"] == pytest.approx(200 * ASSUMED_STEP_SECONDS, abs=0.1)
    await _beat(rig, free=4)
    stats = (await rig.http.get("/v1/stats")).json()
    assert stats["backlog_seconds"] == pytest.approx(50 * ASSUMED_STEP_SECONDS, abs=0.1)


async def test_the_page_shows_what_workers_say_as_text(rig: Rig) -> None:
    await _beat(rig, worker="<script>alert(1)</script>", facts=FACTS | {"device": "<img src=x onerror=1>"})
    await _ended(rig, 3, Status.COMPLETED)
    page = (await rig.http.get("/fleet")).text
    assert "<script>alert" not in page and "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "&lt;img src=x onerror=1&gt;" in page
    assert "41.5" in page and "tale@3" in page and "1 completed, 0 failed" in page
    day = await rig.http.get("/studio/fleet/done?span=day")
    assert "quarters of an hour" in day.text and 'aria-pressed="true"' in day.text
    assert "&lt;script&gt;" in (await rig.http.get("/studio/fleet/now")).text
