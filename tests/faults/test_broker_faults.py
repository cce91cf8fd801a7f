"""The broker restarts, dies, forgets, stalls, blocks and refuses: F7 to F15.

Worker and gateway reach it by plain connections of aio-pika under our own supervision; these scenarios are
what that choice was made by (docs/reliability.md).
"""

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import oracle
import pytest
from processes import Process
from stack import QUORUM_IS_SLOW, Stack, pika_channel

from itemforge.contract import QUEUE
from polling import wait_until
from services.proxy import ProxyThread, Way
from services.rabbitmq import RabbitNode, Vhost


@contextmanager
def proxied(vhost: Vhost) -> Iterator[tuple[ProxyThread, str]]:
    """A proxy in front of the broker, and the address through it."""
    parts = urlsplit(vhost.url)
    with ProxyThread(parts.port or 5672).running() as proxy:
        where = parts.netloc.replace(f":{parts.port}", f":{proxy.port}")
        yield proxy, parts._replace(netloc=where).geturl()


def links_lost(process: Process) -> int:
    return len(process.events("broker_lost"))


def ids_on_queue(vhost: Vhost) -> list[str]:
    """In order; the messages stay."""
    found = []
    with pika_channel(vhost.url) as channel:
        while (got := channel.basic_get(QUEUE))[0] is not None:
            found.append(json.loads(got[2])["request_id"])
    return found


def test_f7_a_worker_that_was_idle_consumes_again_after_a_restart_of_the_broker(
    rabbit_node: RabbitNode, stack: Stack
) -> None:
    (worker,) = stack.start()
    rabbit_node.ctl("stop_app")
    wait_until(lambda: not worker.ready, 30, why="the worker sees it")
    while_away = stack.submit(seed=1)
    rabbit_node.ctl("start_app")
    stack.wait_ended([while_away], within=60)
    stack.submit(seed=2)
    oracle.check(stack)


def test_f8_a_queue_that_is_deleted_under_the_worker_is_declared_and_refilled(any_stack: Stack) -> None:
    any_stack.gateway(ITEMFORGE_SWEEP_AFTER="1")
    worker = any_stack.worker()
    ids = any_stack.submit_many(14, "held key")
    any_stack.wait_drawing(ids[:4])
    wait_until(lambda: any_stack.ready_messages(QUEUE) == 6, 30, why="six wait in the queue")
    any_stack.vhost.delete_queue(QUEUE)
    wait_until(lambda: links_lost(worker) > 0 and worker.ready, 60, why="the consumer is back")
    any_stack.release()
    rows = oracle.check(any_stack)
    assert all(row.attempt == 1 for row in rows.values()), "those in hand were not drawn again"


@QUORUM_IS_SLOW
def test_f9_a_restart_of_the_broker_during_inference_leaves_one_result(
    rabbit_node: RabbitNode, any_stack: Stack
) -> None:
    (worker,) = any_stack.start()
    ids = any_stack.submit_many(4, "held key")
    any_stack.wait_drawing(ids)
    rabbit_node.ctl("stop_app")
    wait_until(lambda: links_lost(worker) > 0, 30, why="the worker sees it")
    any_stack.release()
    any_stack.wait_ended(within=30)  # finished and reported while the broker is away
    rabbit_node.ctl("start_app")
    rows = oracle.check(any_stack)
    assert all(row.attempt == 1 for row in rows.values())
    assert len(any_stack.draws()) == 4
    assert worker.events("ack_lost"), "the acknowledgement went to a connection that was gone"


def test_f10_what_the_row_says_is_published_is_on_the_queue_after_the_broker_was_killed(
    rabbit_node: RabbitNode, stack: Stack
) -> None:
    _kill_broker_in_a_burst(rabbit_node, stack)


@pytest.mark.slow
def test_f10_on_quorum_queues(rabbit_node: RabbitNode, quorum_stack: Stack) -> None:
    _kill_broker_in_a_burst(rabbit_node, quorum_stack)


def _kill_broker_in_a_burst(rabbit_node: RabbitNode, stack: Stack) -> None:
    gateway = stack.gateway(ITEMFORGE_RELAY_WINDOW="1000")
    stack.wait_queues_kept()
    rabbit_node.stop()
    stack.submit_many(104)
    rabbit_node.start()
    published = "SELECT 1 FROM requests WHERE published_at IS NOT NULL LIMIT 1"
    wait_until(lambda: stack.query(published), 60, every=0.002, why="the burst has begun")
    rabbit_node.stop()
    gateway.kill()  # so that nothing is published again before we have looked
    confirmed = {i for i, row in stack.rows().items() if row.published}
    print(f"published before the kill: {len(confirmed)} of 104")
    rabbit_node.start()
    wait_until(lambda: stack.ready_messages(QUEUE) >= len(confirmed), 60, why="the queue is up")
    assert confirmed <= set(ids_on_queue(stack.vhost))
    stack.gateway(ITEMFORGE_RELAY_WINDOW="1000")
    stack.worker()
    oracle.check(stack, within=120)


def test_f11_a_connection_that_went_silent_is_given_up_and_a_late_ack_is_ignored(stack: Stack) -> None:
    with proxied(stack.vhost) as (proxy, through):
        stack.gateway()
        stack.amqp_url = through
        worker = stack.worker(ITEMFORGE_AMQP_HEARTBEAT="1")
        ids = stack.submit_many(4, "held key")
        stack.wait_drawing(ids)
        proxy.freeze()
        stack.release()
        stack.wait_ended(within=30)  # acknowledged into the void
        wait_until(lambda: links_lost(worker) >= 2, 30, why="both links miss their heartbeats")
        proxy.thaw()
        rows = oracle.check(stack)
    assert all(row.attempt == 1 for row in rows.values())
    assert len(stack.draws()) == 4


def resets(seed: int, count: int) -> list[tuple[Way, int]]:
    """From the first byte of the handshake to the middle of deliveries; random ones between."""
    generator = random.Random(seed)
    fixed: list[tuple[Way, int]] = [("to client", 1), ("to service", 8), ("to client", 7), ("to client", 512)]
    drawn: list[tuple[Way, int]] = [
        (generator.choice(("to service", "to client")), int(10 ** generator.uniform(1, 3.5)))
        for _ in range(count - len(fixed))
    ]
    return [*fixed, *drawn]


def test_f12_connections_reset_in_the_middle_of_frames_lose_nothing(stack: Stack) -> None:
    """Worker and gateway through the proxy; the resets fall on handshakes, publishes, deliveries and acks."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    with proxied(stack.vhost) as (proxy, through):
        stack.amqp_url = through
        proxy.reset_next(resets(seed, 12))
        stack.gateway(ready=False)
        stack.worker(ready=False)
        wait_until(lambda: httpx_up(stack), 60, every=0.1, why="the gateway answers")
        # New work as long as there are resets to meet, so that frames are on the wire when they come.
        while left := proxy.resets_left:
            stack.submit_many(5)
            wait_until(
                lambda left=left: proxy.resets_left < left or stack.stats()["unpublished"] == 0,
                60,
                why="links connect again",
            )
        oracle.check(stack)


def httpx_up(stack: Stack) -> bool:
    try:
        return stack.http.get("/readyz").is_success
    except httpx.TransportError:
        return False


@contextmanager
def consumer_timeout(node: RabbitNode, seconds: float, look_every: float) -> Iterator[None]:
    """The broker's patience with unacknowledged messages, and how often it looks."""

    def put(patience: float, look: float) -> None:
        for name, value in (("consumer_timeout", patience), ("channel_tick_interval", look)):
            node.ctl("eval", f"application:set_env(rabbit, {name}, {int(value * 1000)}).")

    put(seconds, look_every)
    try:
        yield
    finally:
        put(1800, 60)


def _outlive_consumer_timeout(stack: Stack, closed_within: float) -> None:
    (worker,) = stack.start()
    ids = stack.submit_many(4, "held key")
    stack.wait_drawing(ids)
    wait_until(lambda: links_lost(worker) > 0, closed_within, why="the broker closes the channel")
    reason = worker.events("broker_lost")[0]["reason"]
    assert "PRECONDITION_FAILED" in reason, reason
    pid = worker.pid
    stack.release()
    rows = oracle.check(stack, within=closed_within)
    assert worker.pid == pid
    assert all(row.attempt == 1 for row in rows.values())
    assert len(stack.draws()) == 4


@QUORUM_IS_SLOW
def test_f13_a_channel_closed_by_consumer_timeout_is_rebuilt_and_jobs_go_on(
    rabbit_node: RabbitNode, any_stack: Stack
) -> None:
    """Scaled: the broker looks every half second instead of every minute."""
    with consumer_timeout(rabbit_node, 1.0, 0.5):
        _outlive_consumer_timeout(any_stack, closed_within=60)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_f13_unscaled_a_channel_closed_by_consumer_timeout_is_rebuilt(
    rabbit_node: RabbitNode, stack: Stack
) -> None:
    """The broker looks once a minute, as it does by itself."""
    with consumer_timeout(rabbit_node, 60.0, 60.0):
        _outlive_consumer_timeout(stack, closed_within=180)


def test_f13_a_queue_that_a_stranger_declared_otherwise_is_waited_for_without_a_crash_loop(
    stack: Stack,
) -> None:
    """406 at each declare: nobody crashes, work is accepted, and all of it is done once the queue is right."""
    with pika_channel(stack.vhost.url) as channel:
        channel.queue_declare(QUEUE, durable=True, arguments={"x-max-length": 5})
    gateway = stack.gateway()
    worker = stack.worker(ready=False)
    stack.submit_many(3)
    for process in (gateway, worker):
        wait_until(lambda p=process: len(p.events("broker_unreachable")) >= 3, 30, why="it tries and tries")
        assert "PRECONDITION_FAILED" in process.events("broker_unreachable")[0]["reason"]
    assert gateway.alive
    assert worker.alive
    stack.vhost.delete_queue(QUEUE)
    oracle.check(stack)


def test_f14_while_an_alarm_blocks_publishers_work_is_accepted_and_consumed(
    rabbit_node: RabbitNode, stack: Stack
) -> None:
    stack.start()
    gateway, worker = stack.processes
    ids = stack.submit_many(14, "held key")  # more than the worker may hold unacknowledged
    stack.wait_drawing(ids[:4])
    rabbit_node.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        late = [stack.submit(seed=n) for n in range(100, 103)]
        stack.release()
        stack.wait_ended(ids, within=30)
        wait_until(lambda: stack.ready_messages(QUEUE) == 0, 30, why="what was there is consumed")
        wait_until(lambda: gateway.events("publish_failed"), 30, why="the relay meets the alarm")
        assert worker.alive
        assert not any(row.published for row in stack.rows(late).values())
    finally:
        rabbit_node.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
    oracle.check(stack)


def _broker_away(node: RabbitNode, stack: Stack, seconds: float, count: int) -> None:
    gateway = stack.gateway(ITEMFORGE_RELAY_WINDOW="1000")
    wait_until(lambda: gateway.events("broker_connected"), 30)  # it is ready without a broker, too
    node.stop()
    wait_until(lambda: links_lost(gateway) > 0, 30, why="the gateway sees it")
    end = time.monotonic() + seconds
    for n in range(count):
        stack.submit(seed=n)
        wait_until(lambda n=n: time.monotonic() >= end - seconds * (1 - n / count), seconds + 1, every=0.05)
    assert stack.stats()["unpublished"] == count
    node.start()
    wait_until(lambda: stack.stats()["unpublished"] == 0, 60, every=0.1, why="the relay drains")
    created = stack.query("SELECT id FROM requests ORDER BY created_at, id")
    assert ids_on_queue(stack.vhost) == [str(row["id"]) for row in created]
    stack.worker()
    rows = oracle.check(stack)
    assert all(row.attempt == 1 for row in rows.values())


def test_f15_requests_taken_while_the_broker_is_down_are_published_in_order(
    rabbit_node: RabbitNode, stack: Stack
) -> None:
    _broker_away(rabbit_node, stack, seconds=3, count=60)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_f15_unscaled_ten_minutes_without_a_broker(rabbit_node: RabbitNode, stack: Stack) -> None:
    _broker_away(rabbit_node, stack, seconds=600, count=200)
