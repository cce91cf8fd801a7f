"""RabbitMQ alone: foreign programs on the same queue, and everything that breaks a connection."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pika
import pytest
from yarl import URL

from itemforge.broker import amqp_consumer, amqp_link
from itemforge.broker.amqp_consumer import RabbitConsumer
from itemforge.broker.face import Consumer, Delivery
from itemforge.broker.opening import open_broker
from itemforge.broker.rabbitmq import RabbitBroker
from itemforge.contract import DEAD_QUEUE, QUEUE, retry_queue
from itemforge.errors import BrokerUnavailable, ConfigurationError
from itemforge.settings import BrokerSettings, load
from polling import eventually
from services.process import free_port
from services.proxy import Proxy
from services.rabbitmq import RabbitNode, Vhost, fresh_vhost

SEED_BODY = b'{"request_id": "6f1c2b1e-4c6e-4f0a-9d57-2f3a0f3f7f11", "params": {"prompt": "an apple"}}'


def settings_for(url: str, **overrides: object) -> BrokerSettings:
    return load(BrokerSettings, amqp_url_setting=url, **{"reconnect_max": 0.2, **overrides})


@asynccontextmanager
async def running(url: str, **overrides: object) -> AsyncIterator[RabbitBroker]:
    broker = RabbitBroker(settings_for(url, **overrides))
    await broker.start()
    try:
        await eventually(lambda: broker.connected)
        yield broker
    finally:
        await broker.close()


def as_the_seed_does(
    url: str, act: Callable[[pika.adapters.blocking_connection.BlockingChannel], object]
) -> object:
    """What a foreign program does: plain pika and a bare durable declare."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        channel = connection.channel()
        channel.queue_declare(queue=QUEUE, durable=True)
        return act(channel)
    finally:
        connection.close()


def publish_as_the_seed_does(url: str) -> None:
    def publish(channel: pika.adapters.blocking_connection.BlockingChannel) -> None:
        channel.confirm_delivery()
        properties = pika.BasicProperties(delivery_mode=2)
        channel.basic_publish("", QUEUE, SEED_BODY, properties, mandatory=True)

    as_the_seed_does(url, publish)


async def take(consumer: Consumer, within: float = 15.0) -> Delivery:
    async with asyncio.timeout(within):
        return await anext(aiter(consumer))


async def test_a_foreign_publisher_is_heard_before_and_after_our_start(any_amqp_vhost: Vhost) -> None:
    await asyncio.to_thread(publish_as_the_seed_does, any_amqp_vhost.url)
    async with running(any_amqp_vhost.url) as broker:
        consumer = broker.consume(4)
        for _ in range(2):
            delivery = await take(consumer)
            assert delivery.body == SEED_BODY
            assert dict(delivery.headers) == {}
            await delivery.ack()
            await asyncio.to_thread(publish_as_the_seed_does, any_amqp_vhost.url)


async def test_a_foreign_consumer_reads_what_we_publish(any_amqp_vhost: Vhost) -> None:
    async with running(any_amqp_vhost.url) as broker:
        await broker.publish(QUEUE, SEED_BODY)
        method, properties, body = await asyncio.to_thread(
            as_the_seed_does, any_amqp_vhost.url, lambda channel: channel.basic_get(QUEUE, auto_ack=True)
        )
    assert body == SEED_BODY and method.redelivered is False
    assert (properties.delivery_mode, properties.content_type) == (2, "application/json")
    assert properties.expiration is None


async def test_headers_of_other_kinds_are_left_out(amqp_vhost: Vhost) -> None:
    def publish(channel: pika.adapters.blocking_connection.BlockingChannel) -> None:
        headers = {
            "traceparent": "00-ab",
            "x-attempt": 2,
            "flag": True,
            "list": [1],
            "table": {"a": 1},
            "none": None,
        }
        channel.basic_publish("", QUEUE, b"x", pika.BasicProperties(headers=headers))

    async with running(amqp_vhost.url) as broker:
        await asyncio.to_thread(as_the_seed_does, amqp_vhost.url, publish)
        delivery = await take(broker.consume(1))
    assert dict(delivery.headers) == {"traceparent": "00-ab", "x-attempt": 2}


async def test_a_message_that_came_back_from_a_retry_queue_keeps_our_headers(any_amqp_vhost: Vhost) -> None:
    async with running(any_amqp_vhost.url, retry_scale=0.02) as broker:
        consumer = broker.consume(1)
        for attempt in (1, 2):  # two rounds: what the broker adds must not disturb the next one
            await broker.publish(retry_queue("5s"), SEED_BODY, {"x-attempt": attempt})
            delivery = await take(consumer)
            assert delivery.body == SEED_BODY
            assert dict(delivery.headers) == {"x-attempt": attempt}
            await broker.publish(retry_queue("5s"), delivery.body, delivery.headers)
            await delivery.ack()
            again = await take(consumer)
            assert dict(again.headers) == {"x-attempt": attempt}
            await again.ack()


async def test_the_queues_have_the_contract_s_arguments(any_amqp_vhost: Vhost) -> None:
    if any_amqp_vhost.management is None:
        pytest.skip("asks RabbitMQ's management")
    async with running(any_amqp_vhost.url):
        ours = any_amqp_vhost.queue(QUEUE)
        retry = any_amqp_vhost.queue(retry_queue("2m"))
        dead = any_amqp_vhost.queue(DEAD_QUEUE)
    own = {k: v for k, v in ours["arguments"].items() if k != "x-queue-type"}  # the vhost's default
    assert own == {} and ours["durable"]
    assert retry["arguments"]["x-message-ttl"] == 120_000
    assert retry["arguments"]["x-dead-letter-routing-key"] == QUEUE
    assert retry["durable"] and dead["durable"]


async def test_the_consumer_and_publisher_come_back_after_the_broker_closed_them(
    any_amqp_vhost: Vhost,
) -> None:
    if any_amqp_vhost.management is None:
        pytest.skip("closes connections through RabbitMQ's management")
    async with running(any_amqp_vhost.url) as broker:
        consumer = broker.consume(2)
        await eventually(lambda: consumer.ready)
        await broker.publish(QUEUE, b"in hand")
        in_hand = await take(consumer)
        await eventually(lambda: len(any_amqp_vhost.connections()) == 2)
        any_amqp_vhost.close_connections()
        await eventually(lambda: not broker.connected and not consumer.ready)
        await in_hand.ack()  # its channel is dead: no error, and it comes again
        again = await take(consumer)
        assert (again.body, again.redelivered) == (b"in hand", True)
        await again.ack()
        await eventually(lambda: broker.connected)
        await broker.publish(QUEUE, b"afterwards")
        assert (await take(consumer)).body == b"afterwards"


async def test_deliveries_of_a_lost_connection_are_handed_out_once(amqp_vhost: Vhost) -> None:
    async with Proxy(URL(amqp_vhost.url).port or 5672).running() as proxy:
        through = str(URL(amqp_vhost.url).with_port(proxy.port))
        async with running(amqp_vhost.url) as publisher, running(through) as broker:
            consumer = broker.consume(10)
            for n in range(3):
                await publisher.publish(QUEUE, b"%d" % n)
            await eventually(lambda: _arrived(consumer) == 3)
            proxy.cut()
            await eventually(lambda: not consumer.ready)
            await eventually(lambda: consumer.ready)
            seen = [await take(consumer) for _ in range(3)]
            assert [d.body for d in seen] == [b"0", b"1", b"2"]
            assert all(d.redelivered for d in seen)
            await asyncio.gather(*(d.ack() for d in seen))
            await publisher.publish(QUEUE, b"next")
            assert (await take(consumer)).body == b"next"


async def test_the_consumer_comes_back_after_the_queue_was_deleted(any_amqp_vhost: Vhost) -> None:
    async with running(any_amqp_vhost.url) as broker:
        consumer = broker.consume(1)
        await eventually(lambda: consumer.ready)
        await asyncio.to_thread(as_the_seed_does, any_amqp_vhost.url, lambda c: c.queue_delete(QUEUE))
        await eventually(lambda: not consumer.ready, why="the broker's basic.cancel is heard")
        await eventually(lambda: consumer.ready)
        await broker.publish(QUEUE, b"new queue")
        assert (await take(consumer)).body == b"new queue"


async def test_publishing_makes_a_deleted_queue_again(any_amqp_vhost: Vhost) -> None:
    gone = retry_queue("10m")
    async with running(any_amqp_vhost.url) as broker:
        await asyncio.to_thread(as_the_seed_does, any_amqp_vhost.url, lambda c: c.queue_delete(gone))
        await broker.publish(gone, b"x")
        await eventually(lambda: _depth_is(broker, gone, 1))


async def test_the_consumer_comes_back_after_a_channel_error(amqp_vhost: Vhost) -> None:
    async with running(amqp_vhost.url) as broker:
        consumer = broker.consume(1)
        await broker.publish(QUEUE, b"x")
        delivery = await take(consumer)
        # A second acknowledgement of the same tag is a protocol error: the broker closes the channel.
        underlay = delivery._message.channel
        tag = delivery._message.delivery_tag
        await delivery.ack()
        await underlay.basic_ack(tag)
        await eventually(lambda: not consumer.ready)
        await broker.publish(QUEUE, b"y")
        assert (await take(consumer)).body == b"y"


async def test_a_consumer_that_the_broker_forgot_is_noticed_and_rebuilt(amqp_vhost: Vhost) -> None:
    async with running(amqp_vhost.url, stall_after=0.4) as broker:
        consumer = broker.consume(1)
        assert isinstance(consumer, RabbitConsumer)
        await eventually(lambda: consumer.ready)
        assert consumer._cancel is not None
        await consumer._cancel()  # behind its back
        await broker.publish(QUEUE, b"waits")
        assert (await take(consumer)).body == b"waits"


async def test_a_consumer_behind_a_dead_network_is_noticed_and_rebuilt(
    amqp_vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amqp_consumer, "CALL_TIMEOUT", 0.2)
    monkeypatch.setattr(amqp_link, "CLOSE_TIMEOUT", 0.2)
    async with Proxy(URL(amqp_vhost.url).port or 5672).running() as proxy:
        through = str(URL(amqp_vhost.url).with_port(proxy.port))
        async with running(amqp_vhost.url) as publisher, running(through, stall_after=0.4) as broker:
            consumer = broker.consume(1)
            await eventually(lambda: consumer.ready)
            proxy.freeze()
            await publisher.publish(QUEUE, b"waits")
            await eventually(lambda: not consumer.ready, why="the watchdog hears no answer")
            proxy.thaw()
            assert (await take(consumer)).body == b"waits"


async def test_a_quiet_consumer_is_left_alone(amqp_vhost: Vhost) -> None:
    async with running(amqp_vhost.url, stall_after=0.1) as broker:
        consumer = broker.consume(1)
        await eventually(lambda: consumer.ready)
        await broker.publish(QUEUE, b"held")
        held = await take(consumer)
        await broker.publish(QUEUE, b"waits behind it")
        until = time.monotonic() + 0.6
        await eventually(lambda: time.monotonic() > until or not consumer.ready)
        assert consumer.ready, "no free prefetch, so waiting messages are no stall"
        await held.ack()
        assert (await take(consumer)).redelivered is False


async def test_a_frozen_network_gives_an_error_in_time_and_heals(amqp_vhost: Vhost) -> None:
    async with Proxy(URL(amqp_vhost.url).port or 5672).running() as proxy:
        url = str(URL(amqp_vhost.url).with_port(proxy.port))
        async with running(url, publish_timeout=0.3) as broker:
            proxy.freeze()
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable, match="did not confirm"):
                await broker.publish(QUEUE, b"lost?")
            assert time.monotonic() - began < 3
            await eventually(lambda: not broker.connected)
            with pytest.raises(BrokerUnavailable, match="not connected"):
                await broker.publish(QUEUE, b"x")
            proxy.thaw()
            proxy.cut()
            await eventually(lambda: broker.connected, within=30)
            await broker.publish(QUEUE, b"x")


async def test_an_unreachable_broker_raises_at_once_and_closes_quickly() -> None:
    broker = RabbitBroker(settings_for(f"amqp://guest:guest@127.0.0.1:{free_port()}/"))
    await broker.start()
    consumer = broker.consume(1)
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match="check its address"):
        await broker.publish(QUEUE, b"x")
    with pytest.raises(BrokerUnavailable):
        await broker.depth(QUEUE)
    assert not broker.connected and not consumer.ready
    await broker.close()
    assert [d async for d in consumer] == []
    assert time.monotonic() - began < 3


async def test_a_wrong_password_is_retried_and_never_logged(
    amqp_vhost: Vhost, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    url = str(URL(amqp_vhost.url).with_password("s3cret-and-wrong"))
    broker = RabbitBroker(settings_for(url))
    await broker.start()
    said = ""

    def refused() -> bool:
        nonlocal said
        said += "".join(capfd.readouterr())
        return "ACCESS_REFUSED" in said or "ACCESS_REFUSED" in caplog.text

    await eventually(refused)
    await broker.close()
    assert not broker.connected
    assert "s3cret" not in said + caplog.text


async def test_a_stopped_consumer_closes_its_connection_when_all_is_settled(amqp_vhost: Vhost) -> None:
    if amqp_vhost.management is None:
        pytest.skip("counts connections through RabbitMQ's management")
    async with running(amqp_vhost.url) as broker:
        consumer = broker.consume(1)
        await broker.publish(QUEUE, b"x")
        delivery = await take(consumer)
        await eventually(lambda: len(amqp_vhost.connections()) == 2)
        await consumer.stop()
        assert len(amqp_vhost.connections()) == 2
        await delivery.ack()
        await eventually(lambda: len(amqp_vhost.connections()) == 1)
        assert await broker.depth(QUEUE) == 0


async def test_a_broker_short_of_memory_refuses_publishers_in_time_and_serves_consumers(
    rabbit_node: RabbitNode, amqp_vhost: Vhost
) -> None:
    async with running(amqp_vhost.url, publish_timeout=0.5) as broker:
        consumer = broker.consume(1)
        for n in range(2):
            await broker.publish(QUEUE, b"%d" % n)
        first = await take(consumer)
        await asyncio.to_thread(rabbit_node.ctl, "set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            with pytest.raises(BrokerUnavailable, match="alarms"):
                await broker.publish(QUEUE, b"blocked")
            await first.ack()
            second = await take(consumer)
            assert second.body == b"1"
            await second.ack()
        finally:
            await asyncio.to_thread(rabbit_node.ctl, "set_vm_memory_high_watermark", "absolute", "1GB")
        await eventually(lambda: _publishes(broker, b"again"), within=30)


async def test_what_was_confirmed_survives_the_broker_being_killed(rabbit_node: RabbitNode) -> None:
    with fresh_vhost(rabbit_node) as vhost:
        async with running(vhost.url) as broker:
            consumer = broker.consume(1)
            await eventually(lambda: consumer.ready)
            await broker.publish(QUEUE, b"confirmed")
            held = await take(consumer)
            await asyncio.to_thread(rabbit_node.stop)
            await eventually(lambda: not broker.connected and not consumer.ready)
            await held.ack()
            with pytest.raises(BrokerUnavailable):
                await broker.publish(QUEUE, b"x")
            await asyncio.to_thread(rabbit_node.start)
            again = await take(consumer, within=30)
            assert again.body == b"confirmed"
            await again.ack()


def test_without_an_address_the_embedded_queue_is_chosen_and_rabbitmq_refused() -> None:
    settings = load(BrokerSettings)
    assert type(open_broker(settings)).__name__ == "EmbeddedBroker"
    with pytest.raises(ConfigurationError, match="RABBITMQ_HOST"):
        RabbitBroker(settings)


async def test_the_parts_of_the_address_may_hold_any_character(rabbit_node: RabbitNode) -> None:
    name, password = f"user-{uuid.uuid4().hex[:6]}", "p@ss/w:rd%?#"
    rabbit_node.management.call("PUT", f"users/{name}", {"password": password, "tags": ""})
    with fresh_vhost(rabbit_node) as vhost:
        grant = {"configure": ".*", "write": ".*", "read": ".*"}
        rabbit_node.management.call("PUT", f"permissions/{vhost.name}/{name}", grant)
        settings = load(
            BrokerSettings,
            rabbitmq_host="127.0.0.1",
            rabbitmq_port=rabbit_node.port,
            rabbitmq_user=name,
            rabbitmq_pass=password,
            rabbitmq_vhost=vhost.name,
        )
        async with running(settings.require_amqp_url()) as broker:
            await broker.publish(QUEUE, b"x")
    rabbit_node.management.call("DELETE", f"users/{name}")


def _arrived(consumer: Consumer) -> int:
    assert isinstance(consumer, RabbitConsumer)
    return consumer._arrived.qsize()


async def _depth_is(broker: RabbitBroker, queue: str, count: int) -> bool:
    return await broker.depth(queue) == count


async def _publishes(broker: RabbitBroker, body: bytes) -> bool:
    try:
        await broker.publish(QUEUE, body)
    except BrokerUnavailable:
        return False
    return True
