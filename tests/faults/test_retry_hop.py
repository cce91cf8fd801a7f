"""F32: a job that is to be tried again is never in fewer than one place."""

import oracle
from stack import QUORUM_IS_SLOW, Stack

from itemforge.contract import retry_queue
from polling import wait_until
from services.rabbitmq import RabbitNode


def test_f32_a_worker_killed_between_retry_copy_and_ack_makes_a_duplicate_and_no_loss(
    any_stack: Stack,
) -> None:
    any_stack.gateway()
    first = any_stack.worker(**any_stack.crashing("after retry copy"))
    request_id = any_stack.submit("flaky key", seed=3)
    first.wait_killed()
    second = any_stack.worker()
    row = oracle.check(any_stack)[request_id]
    assert row.attempt == 2
    assert len(any_stack.draws(request_id, "done")) == 1
    assert len(second.events("claim_answered")) >= 2, "the copy and the original both came"


@QUORUM_IS_SLOW
def test_f32_messages_in_a_retry_queue_survive_the_broker_being_killed(
    rabbit_node: RabbitNode, any_stack: Stack
) -> None:
    """Of the queue's own keeping on classic queues. A quorum queue of RabbitMQ 3.10 loses what expires while
    it is away, as its dead-lettering is at most once; then the sweeper brings it back.
    """
    quorum = any_stack.vhost.is_quorum
    any_stack.gateway(ITEMFORGE_SWEEP_AFTER="1" if quorum else "600")
    any_stack.wait_queues_kept()
    any_stack.worker(ITEMFORGE_RETRY_SCALE="1")
    request_id = any_stack.submit("flaky key", seed=4)
    wait_until(lambda: any_stack.ready_messages(retry_queue("5s")) == 1, 30, why="it waits to be retried")
    wait_until(lambda: any_stack.unacked_messages() == 0, 30, why="the copy is the only message")
    rabbit_node.stop()
    rabbit_node.start()
    row = oracle.check(any_stack)[request_id]
    assert row.attempt == 2
    assert len(any_stack.draws(request_id)) == 2
