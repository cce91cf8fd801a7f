"""What the gateway counts and reads, on both databases."""

import asyncio
import re

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from rig import LOCAL, Rig, away, running

from itemforge.contract import DEAD_QUEUE
from itemforge.gateway import metrics as gateway_metrics
from itemforge.jobs import figures, slow_counts
from itemforge.settings import GatewaySettings

Figures = dict[str, dict[str, float]]


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every scrape looks, also after a look that was slow."""
    monkeypatch.setattr(gateway_metrics, "_FRESH", 0.0)
    monkeypatch.setattr(slow_counts, "_QUICK", 60.0)


async def _figures(rig: Rig) -> Figures:
    """Samples by name; within by the values of their labels, with commas."""
    answer = await rig.http.get("/metrics")
    assert answer.status_code == 200, answer.text
    found: Figures = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = ",".join(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


async def _beat(rig: Rig, worker: str = "w1", **more: object) -> None:
    body = {"worker_id": worker, "state": "ready", "free": 4, "rows": [], **more}
    assert (await rig.http.post("/v1/worker/heartbeat", json=body)).status_code == 200


async def test_the_backlog_is_work_and_not_messages(rig: Rig) -> None:
    before = await _figures(rig)
    assert before["itemforge_backlog_seconds"] == {"": 0}
    assert before["itemforge_queue_age_seconds"] == {"": 0}
    await rig.submit(num_inference_steps=10, num_images=3)
    await rig.submit(num_inference_steps=50)
    told = await _figures(rig)
    assert told["itemforge_open_requests"] == {"pending": 2, "processing": 0}
    assert told["itemforge_backlog_steps"] == {"": 80}
    assert told["itemforge_capacity_images"] == {"": 0}
    assert told["itemforge_step_seconds"] == {"": figures.ASSUMED_STEP_SECONDS}
    assert told["itemforge_backlog_seconds"][""] == pytest.approx(80 * figures.ASSUMED_STEP_SECONDS)
    await _beat(rig)
    told = await _figures(rig)
    assert told["itemforge_capacity_images"] == {"": 4}
    assert told["itemforge_backlog_seconds"][""] == pytest.approx(20 * figures.ASSUMED_STEP_SECONDS)
    assert told["itemforge_queue_age_seconds"][""] > 0


async def test_the_time_of_a_step_is_measured_from_claim_to_report(rig: Rig) -> None:
    request = await rig.submit(num_inference_steps=2)
    await rig.draw(request["id"])
    row = (await rig.http.get(f"/v1/generations/{request['id']}")).json()
    told = await _figures(rig)
    measured = told["itemforge_step_seconds"][""]
    assert 0 < measured < 30 and measured != figures.ASSUMED_STEP_SECONDS, row
    # An attempt that was given up before is not in it.
    assert told["itemforge_job_seconds_sum"]["completed"] >= 2 * measured


async def test_ends_waits_and_repeated_claims_are_counted(rig: Rig) -> None:
    drawn, failed, cancelled = [(await rig.submit(num_images=1))["id"] for _ in range(3)]
    await rig.draw(drawn)
    await rig.claim(failed)
    assert await rig.report(failed, 1, "Retry", error="no luck") == 200
    await rig.claim(failed)
    assert await rig.report(failed, 1, "Completed") == 409
    assert await rig.report(failed, 2, "Failed", error="no luck again") == 200
    await rig.http.post(f"/v1/generations/{cancelled}/cancel")
    assert (await rig.claim(cancelled))["outcome"] == "done"
    told = await _figures(rig)
    ends = {labels: n for labels, n in told["itemforge_jobs_total"].items() if n}
    assert ends == {"completed,plain": 1, "failed,plain": 1, "cancelled,plain": 1}
    assert told["itemforge_requests_total"] == {"plain": 3}
    assert told["itemforge_wait_seconds_count"] == {"": 2}
    assert told["itemforge_attempts_repeated_total"] == {"": 1}
    claims = {labels: n for labels, n in told["itemforge_claims_total"].items() if n}
    assert claims == {"claimed": 3, "done": 1}
    reports = {labels: n for labels, n in told["itemforge_reports_total"].items() if n}
    assert reports == {
        "accepted,completed": 1,
        "accepted,retry": 1,
        "stale,completed": 1,
        "accepted,failed": 1,
    }


async def test_a_repeated_submission_is_counted_once(rig: Rig) -> None:
    for _ in range(3):
        answer = await rig.http.post(
            "/v1/generations", json={"prompt": "p"}, headers={"Idempotency-Key": "one"}
        )
        assert answer.is_success
    assert (await _figures(rig))["itemforge_requests_total"] == {"plain": 1}


async def test_workers_are_counted_by_state_and_only_the_unexpectedly_quiet_are_silent(
    settings: GatewaySettings,
) -> None:
    async with running(settings.model_copy(update={"worker_timeout": 0.0})) as rig:
        await _beat(rig, "vanishes")
        await _beat(rig, "ends", state="draining")
        told = await _figures(rig)
        assert {state for state, n in told["itemforge_workers"].items() if n} == {"silent"}
        assert told["itemforge_workers"]["silent"] == 1
    async with running(settings) as rig:
        await _beat(rig, "vanishes")
        await _beat(rig, "ends", state="draining")
        told = await _figures(rig)
        assert {state: n for state, n in told["itemforge_workers"].items() if n} == {
            "ready": 1,
            "draining": 1,
        }


async def test_without_the_database_its_figures_are_left_out_and_the_counters_stay(rig: Rig) -> None:
    await rig.submit()
    with away(rig):
        told = await _figures(rig)
    assert told["itemforge_database_up"] == {"": 0}
    assert "itemforge_backlog_seconds" not in told and "itemforge_workers" not in told
    assert told["itemforge_requests_total"] == {"plain": 1}
    assert (await _figures(rig))["itemforge_database_up"] == {"": 1}


async def test_the_queues_are_told_and_left_out_without_a_broker(rig: Rig) -> None:
    rig.broker.queues[DEAD_QUEUE] = [b"a", b"b"]
    told = await _figures(rig)
    assert told["itemforge_queue_messages"]["dead"] == 2
    rig.broker.connected = False
    told = await _figures(rig)
    assert told["itemforge_broker_up"] == {"": 0}
    assert "itemforge_queue_messages" not in told


async def test_calls_are_counted_by_pattern_method_and_status(rig: Rig) -> None:
    request = await rig.submit()
    for path in (f"/v1/generations/{request['id']}", "/none", "/none/either?x=1"):
        await rig.http.get(path)
    await rig.http.request("BREW", "/v1/generations")
    told = await _figures(rig)
    calls = told["itemforge_http_requests_total"]
    one = next(labels for labels in calls if re.fullmatch(r"GET,/v1/generations/\{\w+\},200", labels))
    assert calls[one] == 1
    assert calls["POST,/v1/generations,202"] == 1
    assert calls["GET,other,404"] == 2
    assert any(labels.startswith("other,") for labels in calls)
    assert request["id"] not in str(calls)
    assert told["itemforge_http_requests_in_progress"] == {"": 1}


async def test_open_metrics_need_no_key_and_open_nothing_else(settings: GatewaySettings) -> None:
    keyed = {"admin_key": SecretStr("a-key-of-the-admin")}
    async with running(settings.model_copy(update=keyed)) as rig:
        assert (await rig.http.get("/metrics")).status_code == 401
    async with running(settings.model_copy(update={**keyed, "metrics": "open"})) as rig:
        assert (await rig.http.get("/metrics", headers={"Host": "gateway:8000"})).status_code == 200
        assert (await rig.http.get("/v1/stats")).status_code == 401
        assert (await rig.http.get("/metrics/x")).status_code == 401


async def test_without_a_key_on_loopback_web_pages_of_others_read_nothing(rig: Rig) -> None:
    assert (await rig.http.get("/metrics")).status_code == 200
    assert (await rig.http.get("/metrics", headers={"Host": "evil.example"})).status_code == 403


async def test_two_gateways_in_one_process_count_apart(settings: GatewaySettings) -> None:
    async with running(settings) as first:
        await first.submit()
        other = httpx.AsyncClient(transport=httpx.ASGITransport(first.app), base_url=LOCAL)
        async with other:
            assert "itemforge_requests_total" in (await other.get("/metrics")).text
    async with running(settings) as second:
        assert (await _figures(second)).get("itemforge_requests_total", {}) == {}


async def test_a_count_that_takes_longer_than_a_scrape_is_shown_by_a_later_one(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_metrics, "_PATIENCE", 0.2)
    go = asyncio.Event()

    async def slowly(db: object) -> figures.Backlog:
        await go.wait()
        return figures.Backlog(pending=7, processing=0, unpublished=0, steps=70, step_seconds=2.0)

    monkeypatch.setattr(figures, "backlog", slowly)
    monkeypatch.setattr(figures, "load", _load)
    told = await _figures(rig)
    assert told["itemforge_database_up"] == {"": 1}
    assert "itemforge_backlog_seconds" not in told
    go.set()
    told = await _figures(rig)
    assert told["itemforge_backlog_seconds"] == {"": 70.0}
    go.clear()
    assert (await _figures(rig))["itemforge_backlog_seconds"] == {"": 70.0}


async def _load(db: object, silence: float) -> figures.Load:
    return figures.Load(oldest_seconds=1.0, places=2, workers={})
