"""What a worker counts of its jobs, however they end, and its last word to the gateway."""

import asyncio

from worker_system import System

from itemforge.telemetry.metrics import exposition
from itemforge.worker.service import Worker
from polling import eventually


def _value(worker: Worker, name: str, **labels: str) -> float:
    return worker.metrics.registry.get_sample_value(f"itemforge_worker_{name}", labels) or 0.0


def _jobs(worker: Worker) -> dict[str, float]:
    """Jobs by outcome, of any style; those that there are."""
    found: dict[str, float] = {}
    for family in worker.metrics.registry.collect():
        for sample in family.samples:
            if sample.name == "itemforge_worker_jobs_total" and sample.value:
                outcome = sample.labels["outcome"]
                found[outcome] = found.get(outcome, 0) + sample.value
    return found


async def test_every_end_of_a_job_is_counted(claims: System) -> None:
    good, bad, unlucky = (claims.gateway.add() for _ in range(3))
    async with claims.run() as worker:
        await claims.send(good, num_images=2, num_inference_steps=3)
        await claims.send(bad, "bad apple")
        await claims.ended(good, "Completed")
        await claims.ended(bad, "Failed")
        await eventually(lambda: _jobs(worker) == {"completed": 1, "failed": 1}, why="both are over")
        await claims.send(unlucky, "oom apple")
        # Tried again until it is failed for good: each try but the last goes to a retry queue.
        await claims.ended(unlucky, "Failed", within=60)
        await eventually(lambda: _value(worker, "dead_letters_total") == 2)
        retries = _value(worker, "retries_total")
        assert retries == _jobs(worker)["retried"] >= 4
        assert _value(worker, "uploads_total", result="created") == 2
        assert _value(worker, "upload_bytes_total") > 100
        assert _value(worker, "steps_total") == 6
        # Together, or one after the other: it depends on when each reached the engine.
        assert 3 <= _value(worker, "batch_fill_ratio_count") <= 6
        assert _value(worker, "batch_fill_ratio_sum") == 6 / 4
        assert _value(worker, "step_seconds_count") >= 3
        assert _value(worker, "claims_total", outcome="claimed") == 2 + retries
        assert _value(worker, "claims_total", outcome="exhausted") == 1
        assert _value(worker, "state", state="ready") == 1


async def test_a_lost_engine_and_its_breaker_are_counted(claims: System) -> None:
    request_id = claims.gateway.add()
    async with claims.run() as worker:
        await claims.send(request_id, "kill apple")
        await eventually(lambda: _value(worker, "engine_lost_total") == 1, 20)
        assert _value(worker, "infrastructure_failures_total", what="engine") >= 1
        claims.gateway.rows[request_id].cancel = True


async def test_a_report_of_an_old_attempt_is_counted_as_stale(claims: System) -> None:
    request_id = claims.gateway.add()
    row = claims.gateway.rows[request_id]
    async with claims.run() as worker:
        await claims.send(request_id, "slow apple", num_inference_steps=60)
        await eventually(lambda: any(step for step, _ in row.progress), 20)
        row.status = "Cancelled"
        await eventually(lambda: _jobs(worker), 20)
        assert _jobs(worker) in ({"stale": 1}, {"dropped": 1})
        stale = 1 if "stale" in _jobs(worker) else 0
        assert _value(worker, "stale_reports_total") == stale


async def test_storage_that_is_away_is_counted_and_the_picture_once(claims: System) -> None:
    claims.store.broken = True
    request_id = claims.gateway.add()
    async with claims.run() as worker:
        await claims.send(request_id)
        await eventually(lambda: _value(worker, "uploads_total", result="failed") >= 2, 20)
        claims.store.broken = False
        await claims.ended(request_id, "Completed")
        await eventually(lambda: _jobs(worker) == {"completed": 1})
        assert _value(worker, "uploads_total", result="created") == 1
        failed = _value(worker, "uploads_total", result="failed")
        assert _value(worker, "infrastructure_failures_total", what="storage") == failed


async def test_a_worker_that_stops_says_so_as_its_last_word(claims: System) -> None:
    worker = claims.worker(heartbeat_interval=30.0, heartbeat_idle=600.0)
    running = asyncio.create_task(worker.run())
    await eventually(lambda: claims.gateway.state == "ready", 60)
    worker.stop()
    await asyncio.wait_for(running, 20)
    await claims.broker.close()
    assert claims.gateway.state == "draining"
    assert b'itemforge_worker_state{state="draining"} 1.0' in exposition(worker.metrics.registry)[0]
