"""The gateway dies between its database and its queue: F16 and F17."""

import uuid

import httpx
import oracle
import pytest
from stack import Stack

from itemforge.contract import QUEUE
from polling import wait_until


def _submit(stack: Stack, request_id: str) -> None:
    try:
        stack.put(request_id, seed=8)
    except httpx.TransportError:  # it died before it answered, but after it committed
        stack.accepted.add(request_id)


@pytest.mark.parametrize(
    ("point", "on_queue"),
    [("before publish", 0), ("after confirm", 1)],
    ids=["f16 between commit and publish", "f17 between confirm and published_at"],
)
def test_a_gateway_killed_beside_its_publishing_publishes_again(
    stack: Stack, point: str, on_queue: int
) -> None:
    """F16: the relay of the next process publishes. F17: it publishes twice, and one result is seen."""
    first = stack.gateway(**stack.crashing(point))
    request_id = str(uuid.uuid4())
    _submit(stack, request_id)
    first.wait_killed()
    assert not stack.row(request_id).published
    assert stack.ready_messages(QUEUE) == on_queue
    stack.gateway()
    wait_until(lambda: stack.row(request_id).published, 30, why="the relay publishes it")
    assert stack.ready_messages(QUEUE) == on_queue + 1
    stack.worker()
    row = oracle.check(stack)[request_id]
    assert row.attempt == 1
    assert len(stack.draws(request_id)) == 1
