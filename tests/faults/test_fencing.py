"""Many hands on one request, and only one is heard: F18, F23 to F25, F37."""

import time
from email.utils import parsedate_to_datetime
from typing import Any

import backlog
import httpx
import oracle
import pytest
from processes import Process
from stack import QUEUE, QUORUM_IS_SLOW, Stack

from polling import wait_until
from services.process import free_port


def _published(*gateways: Process) -> int:
    """Rows that relays put on the queue, each as often as it was put there."""
    return sum(event["rows"] for gateway in gateways for event in gateway.events("published"))


@QUORUM_IS_SLOW
def test_f18_two_relays_and_two_sweepers_publish_each_row_once_and_lease_it_once(any_stack: Stack) -> None:
    quick = {
        "ITEMFORGE_SWEEP_INTERVAL": "0.1",
        "ITEMFORGE_SWEEP_AFTER": "1",
        "ITEMFORGE_RELAY_WINDOW": "200",
        "ITEMFORGE_RELAY_INTERVAL": "0.02",
    }
    stack = any_stack
    gateways = [stack.gateway(**quick), stack.gateway(port=free_port(), **quick)]
    ids = [each for owner in "abc" for each in backlog.insert(stack, owner, 20)]
    wait_until(lambda: stack.stats()["unpublished"] == 0, 30)
    started = time.monotonic()
    wait_until(lambda: time.monotonic() - started > 2.5, 10)  # the backlog is old enough to count as lost
    assert _published(*gateways) == len(ids) == stack.ready_messages(QUEUE)
    for _ in range(2):
        stack.worker()
    rows = oracle.check(stack)
    assert {row.attempt for row in rows.values()} == {1}
    assert len(stack.draws()) == len(ids)


def test_f23_a_worker_frozen_past_its_lease_is_not_heard_after_it_thaws(stack: Stack) -> None:
    stack.gateway(ITEMFORGE_SWEEP_AFTER="2")
    frozen = stack.worker()
    request_id = stack.submit("held key", seed=5)
    stack.wait_drawing([request_id])
    frozen.freeze()
    other = stack.worker()
    stack.wait_status(request_id, "Pending")
    wait_until(lambda: stack.row(request_id).worker_id == other.name, 60, why="the sweeper frees the row")
    stale = _report(stack, request_id, attempt=1)
    assert stale == 409
    assert stack.row(request_id).status == "Processing"
    stack.release()
    done = stack.wait_status(request_id, "Completed")
    frozen.thaw()
    wait_until(lambda: frozen.events("result_stale") or frozen.events("job_dropped"), 60)
    rows = oracle.check(stack)
    assert rows[request_id] == done and done.attempt == 2
    assert _report(stack, request_id, attempt=1) == 409
    assert stack.row(request_id) == done


def _report(stack: Stack, request_id: str, attempt: int) -> int:
    """What a worker hears that says it has completed this attempt, with a URL of its own."""
    key = f"generated/{request_id}.png"
    image = {
        "n": 0,
        "seed": "5",
        "bucket": stack.bucket,
        "key": key,
        "url": "https://elsewhere",
        "width": 8,
        "height": 8,
    }
    report = {"request_id": request_id, "attempt": attempt, "status": "Completed", "images": [image]}
    answer = stack.http.post("/v1/worker/reports", json=[report])
    assert answer.is_success, answer.text
    return int(answer.json()[0]["code"])


def test_f24_one_message_delivered_to_two_workers_is_drawn_once(any_stack: Stack) -> None:
    stack = any_stack
    stack.gateway()
    workers = [stack.worker(), stack.worker()]
    ids = stack.submit_many(2, "held key")
    stack.wait_drawing(ids)
    for request_id in ids:
        stack.publish_copy(request_id, times=4)
    # While one holds the lease, the other hears so and looks again later.
    wait_until(lambda: all(_answers(worker, "leased") for worker in workers), 30)
    stack.release()
    rows = oracle.check(stack)
    assert len(stack.draws()) == 2
    assert all(row.attempt == 1 for row in rows.values())


def _answers(worker: Process, outcome: str) -> list[dict[str, Any]]:
    return [e for e in worker.events("claim_answered") if e["outcome"] == outcome]


@QUORUM_IS_SLOW
def test_f25_one_message_fifty_times_gives_one_result_and_is_drawn_once(any_stack: Stack) -> None:
    stack = any_stack
    stack.gateway()
    workers = [stack.worker(), stack.worker()]
    request_id = stack.submit("held key", seed=9)
    stack.wait_drawing([request_id])
    stack.publish_copy(request_id, times=50)
    wait_until(lambda: any(_answers(worker, "leased") for worker in workers), 30)
    stack.release()
    oracle.check(stack)
    assert len(stack.draws(request_id)) == 1


@pytest.mark.timeout(400)  # on a busy machine; half a minute on an idle one
def test_f25_an_honest_backlog_of_500_is_not_multiplied_by_the_sweeper(stack: Stack) -> None:
    # Old enough to be taken for lost, sweep after sweep: first without a worker, then while it is drawn.
    gateway = stack.gateway(
        ITEMFORGE_SWEEP_INTERVAL="0.2", ITEMFORGE_SWEEP_AFTER="1", ITEMFORGE_RELAY_WINDOW="600"
    )
    ids = backlog.insert(stack, "local", 500)
    wait_until(lambda: stack.ready_messages(QUEUE) == 500, 30)
    started = time.monotonic()
    wait_until(lambda: time.monotonic() - started > 3, 10)
    assert _published(gateway) == 500 == stack.ready_messages(QUEUE)
    for _ in range(2):
        stack.worker(ITEMFORGE_BATCH_SIZE="8", ITEMFORGE_LOG_LEVEL="info")
    oracle.check(stack, within=300)
    # A message on its way into a worker's hands may be taken for lost once, each worker's prefetch at most.
    assert 500 <= _published(gateway) <= 500 + 2 * 12
    assert len(stack.draws()) == len(ids)


def test_f37_clocks_that_jump_change_no_lease(stack: Stack) -> None:
    clock = stack.folder / "clock"
    clock.write_text("0")
    gateway = stack.gateway(ITEMFORGE_TEST_CLOCK=str(clock))
    for _ in range(2):
        stack.worker(ITEMFORGE_TEST_CLOCK=str(clock))
    ids = stack.submit_many(8, "held key")
    stack.wait_drawing(ids)
    for off in (3600.0, -3600.0):
        clock.write_text(str(off))
        wait_until(
            lambda off=off: abs(_believed(gateway) - time.time() - off) < 60, 30, why="the clocks jump"
        )
        started = time.monotonic()
        wait_until(lambda since=started: time.monotonic() - since > 4, 10)  # longer than a lease
        assert all(row.leased and row.attempt == 1 for row in stack.rows(ids).values())
    more = stack.submit_many(4)
    stack.release()
    rows = oracle.check(stack)
    assert all(row.attempt == 1 for row in rows.values())
    assert len(stack.draws()) == len(ids) + len(more)


def _believed(gateway: Process) -> float:
    """The gateway's own clock, as it tells it in every answer (seconds since the epoch)."""
    answer = httpx.get(f"{gateway.address()}/healthz", trust_env=False)
    return parsedate_to_datetime(answer.headers["date"]).timestamp()
