"""A worker on RabbitMQ takes mutated messages: it stays up, and serves or buries each one of them."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hostile_messages
import pika
import pytest
from raw_amqp import RawPublisher, long, properties, short, table
from size import count, dice
from worker_system import System

from gateways import ClaimingGateway
from itemforge.broker.rabbitmq import RabbitBroker
from itemforge.contract import DEAD_QUEUE, QUEUE, RETRY_DELAYS, retry_queue
from itemforge.settings import BrokerSettings
from polling import eventually
from services.rabbitmq import Vhost

ALL_QUEUES = (QUEUE, *(retry_queue(delay) for delay in RETRY_DELAYS))


def _system(vhost: Vhost, folder: Path) -> Iterator[System]:
    gateway = ClaimingGateway()
    made = System(folder / "home", gateway)
    made.broker = RabbitBroker(  # type: ignore[assignment]  # the other adapter of the same face
        BrokerSettings(amqp_url_setting=vhost.url, retry_scale=0.01, publish_timeout=30)
    )
    yield made
    gateway.close()


@pytest.fixture
def system(any_amqp_vhost: Vhost, tmp_path: Path) -> Iterator[System]:
    yield from _system(any_amqp_vhost, tmp_path)


@pytest.fixture
def publisher(any_amqp_vhost: Vhost) -> Iterator[RawPublisher]:
    made = RawPublisher(any_amqp_vhost.url)
    yield made
    made.close()


def _completed(system: System) -> int:
    return sum(row.status == "Completed" for row in system.gateway.rows.values())


async def _all_settled(system: System, sent: int, within: float) -> None:
    """Every message is served or dead, and no queue holds any more of them."""

    async def settled() -> bool:
        dead = await system.broker.depth(DEAD_QUEUE)
        waiting = [await system.broker.depth(queue) for queue in ALL_QUEUES]
        return not any(waiting) and _completed(system) + dead == sent

    await eventually(settled, within, every=0.2, why=f"{sent} messages are served or dead")


def _depths(url: str) -> list[int]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        channel = connection.channel()
        return [channel.queue_declare(queue, passive=True).method.message_count for queue in ALL_QUEUES]
    finally:
        connection.close()


async def test_every_mutated_message_is_served_or_buried(
    system: System, publisher: RawPublisher, any_amqp_vhost: Vhost
) -> None:
    random = dice("messages")
    bodies: Counter[bytes] = Counter()
    async with system.run() as worker:
        await eventually(lambda: worker.ready, 60)
        for _ in range(count(200, 5000)):  # for each kind of queue
            body = hostile_messages.body(random, system.gateway.add())
            header = hostile_messages.header(random)
            if await asyncio.to_thread(publisher.publish, QUEUE.encode(), body, header):
                bodies[body] += 1
        assert bodies.total() > count(150, 3750), "the broker itself refused too many"
        await _all_settled(system, bodies.total(), within=60 + bodies.total() / 20)

        good = system.gateway.add()
        await system.send(good)
        await system.ended(good, "Completed")
        assert worker.ready
        dead = await system.broker.dead_letters(bodies.total())
        assert system.running is not None
        assert not system.running.done()
    # What a worker does not acknowledge comes back when it leaves.
    assert await asyncio.to_thread(_depths, any_amqp_vhost.url) == [0] * len(ALL_QUEUES)

    buried = Counter(letter.body for letter in dead)
    assert buried <= bodies, "what is dead is what was sent, byte for byte"
    served = _completed(system) - 1
    assert served > 0
    assert buried.total() > 0
    assert served + buried.total() == bodies.total()
    assert all(letter.headers["x-reason"] for letter in dead)
    refused = count(200, 5000) - bodies.total()
    print(f"{served} served, {buried.total()} buried, {refused} refused by the broker")
    failed = [row for row in system.gateway.rows.values() if row.status == "Failed"]
    assert len(failed) <= buried.total()


UNREADABLE = {
    "a time after the year 9999": {"timestamp": b"\xff" * 8},
    "a short string that is no UTF-8": {"message_id": short(b"\xff\xfe")},
    "a header's name that is no UTF-8": {"headers": table([(b"\xff", b"V")])},
    "a header with a time that does not exist": {"headers": table([(b"t", b"T" + b"\x7f" * 8)])},
    "a header nested too deep": {"headers": table([(b"n", hostile_messages._nested(1500))])},
    "a decimal with 255 places": {"headers": table([(b"d", b"D\xff" + b"\xff" * 4)])},
    "a header of bytes": {"headers": table([(b"x-attempt", b"x" + long(b"\xff"))])},
}


@pytest.fixture
def classic(amqp_vhost: Vhost, tmp_path: Path) -> Iterator[System]:
    yield from _system(amqp_vhost, tmp_path)


@pytest.mark.parametrize("what", UNREADABLE)
async def test_properties_that_no_library_can_read_do_not_block_the_queue(
    what: str, classic: System, amqp_vhost: Vhost
) -> None:
    await _served_once(classic, amqp_vhost, properties(UNREADABLE[what]), QUEUE.encode())


async def test_a_routing_key_that_is_no_text_does_not_block_the_queue(
    classic: System, amqp_vhost: Vhost
) -> None:
    copies = b"A" + long(b"S" + long(QUEUE.encode()))  # RabbitMQ's own way to name further queues
    await _served_once(classic, amqp_vhost, properties({"headers": table([(b"CC", copies)])}), b"\xff\xfe")


async def _served_once(system: System, vhost: Vhost, header: bytes, routing_key: bytes) -> None:
    publisher = RawPublisher(vhost.url)
    async with system.run() as worker:
        await eventually(lambda: worker.ready, 60)
        request_id = system.gateway.add()
        body = json.dumps(hostile_messages.valid(request_id)).encode()
        try:
            assert await asyncio.to_thread(publisher.publish, routing_key, body, header)
        finally:
            publisher.close()
        await system.ended(request_id, "Completed")
        await _all_settled(system, 1, within=20)
        assert system.gateway.rows[request_id].attempt == 1
