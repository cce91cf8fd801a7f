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
    any_stack: Stack, point: str, on_queue: int
) -> None:
    """F16: the relay of the next process publishes. F17: it publishes twice, and one result is seen."""
    first = any_stack.gateway(**any_stack.crashing(point))
    request_id = str(uuid.uuid4())
    _submit(any_stack, request_id)
    first.wait_killed()
    assert not any_stack.row(request_id).published
    assert any_stack.ready_messages(QUEUE) == on_queue
    any_stack.gateway()
    wait_until(lambda: any_stack.row(request_id).published, 30, why="the relay publishes it")
    assert any_stack.ready_messages(QUEUE) == on_queue + 1
    any_stack.worker()
    row = oracle.check(any_stack)[request_id]
    assert row.attempt == 1
    assert len(any_stack.draws(request_id)) == 1
