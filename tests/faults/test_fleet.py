"""Several workers, several gateways, several users on one system."""

import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import backlog
import httpx
import oracle
import pytest
from processes import Process
from stack import Stack

from polling import wait_until
from services.process import free_port

pytestmark = pytest.mark.timeout(400)  # on a busy machine; well under a minute on an idle one


def test_three_workers_of_which_one_dies_and_one_that_joins_late_share_100_requests(stack: Stack) -> None:
    stack.gateway()
    workers = [stack.worker(ITEMFORGE_LOG_LEVEL="info") for _ in range(3)]
    ids = [stack.submit("slow key", seed=seed) for seed in range(50)]
    # Not all of the second half is over before the late one is there: it waits for the test's word.
    ids += backlog.insert(stack, "local", 50, "held key")
    _wait_completed(stack, 20)
    workers[0].kill()
    workers.append(stack.worker(ITEMFORGE_LOG_LEVEL="info"))
    stack.release()
    rows = oracle.check(stack, within=200)
    assert set(rows) == set(ids) and len(ids) == 100
    shares = Counter(row.worker_id for row in rows.values())
    assert all(shares[worker.name] > 0 for worker in workers), shares
    assert all(row.attempt <= 2 for row in rows.values())


def _wait_completed(stack: Stack, count: int) -> None:
    def completed() -> bool:
        return sum(row.status == "Completed" for row in stack.rows().values()) >= count

    wait_until(completed, 200, every=0.05, why=f"{count} are completed")


Told = tuple[int, str, dict[str, Any]]


def _stream(gateway: Process, request_id: str, last: int = 0) -> Iterator[Told]:
    """Id, name and data of events, as one connection tells them."""
    headers = {"Last-Event-ID": str(last)} if last else {}
    url = f"{gateway.address()}/v1/generations/{request_id}/events"
    with (
        httpx.Client(trust_env=False, timeout=60) as http,
        http.stream("GET", url, headers=headers) as answer,
    ):
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "id" in fields:
                yield int(fields["id"]), fields["event"], json.loads(fields["data"])
                fields = {}


def test_an_event_stream_at_either_of_two_gateways_tells_all_also_after_a_change(stack: Stack) -> None:
    first = stack.gateway()
    second = stack.gateway(port=free_port())
    # The worker speaks to the first gateway only: the second hears of it through the database.
    stack.worker()
    request_id = stack.submit("held key", num_inference_steps=4)
    heard: dict[str, list[Told]] = {"first": [], "second": []}
    listeners = [
        threading.Thread(target=lambda told=told, at=at: told.extend(_stream(at, request_id)))
        for told, at in ((heard["first"], first), (heard["second"], second))
    ]
    for listener in listeners:
        listener.start()
    stack.wait_drawing([request_id])
    wait_until(
        lambda: all(len(told) >= 3 for told in heard.values()), 30, why="both hear of it as it goes on"
    )
    # A client of the first loses its connection in the middle, and goes on at the second.
    moved = list(itertools.islice(_stream(first, request_id), 2))
    first_half = moved[-1][0]
    stack.release()
    moved += _stream(second, request_id, last=first_half)
    for listener in listeners:
        listener.join(30)
        assert not listener.is_alive()
    assert heard["first"] == heard["second"] == moved
    states = [data["status"] for _, name, data in moved if name == "state"]
    assert states == ["Pending", "Processing", "Completed"]
    assert any(name == "progress" for _, name, _ in moved)
    ids = [event_id for event_id, _, _ in moved]
    assert ids == sorted(set(ids))
    oracle.check(stack)


def test_500_requests_of_one_owner_do_not_hold_up_anothers_single_one(stack: Stack) -> None:
    window, batch = 32, 4
    stack.gateway(ITEMFORGE_RELAY_WINDOW=str(window))
    many = backlog.insert(stack, "big", 500)
    wait_until(lambda: stack.stats()["waiting"] == window, 30, why="the window is full")
    stack.worker(ITEMFORGE_BATCH_SIZE=str(batch), ITEMFORGE_LOG_LEVEL="info")
    _wait_completed(stack, 20)
    ahead_of_it = _claimed(stack, many)
    (single,) = backlog.insert(stack, "small", 1)
    stack.wait_status(single, "Completed", within=200)
    order = [row["id"] for row in _claims_in_order(stack)]
    ahead = order.index(single) - ahead_of_it
    # What was published before it, what was in the worker's hands, and its turn of one.
    assert ahead <= window + 2 * batch + 2 * (batch + 4), f"{ahead} of the other owner were drawn before it"


def _claims_in_order(stack: Stack) -> list[dict[str, str]]:
    return [
        {"id": str(row["request_id"])}
        for row in stack.query(
            "SELECT request_id FROM events WHERE type = 'state' AND data->>'status' = 'Processing' ORDER BY id"
        )
    ]


def _claimed(stack: Stack, ids: list[str]) -> int:
    wanted = set(ids)
    return sum(row["id"] in wanted for row in _claims_in_order(stack))
