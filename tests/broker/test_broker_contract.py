"""What every broker promises, on the embedded queue and on RabbitMQ with classic and with quorum queues."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from itemforge.broker.face import Broker, Consumer, DeadLetter, Delivery
from itemforge.broker.opening import open_broker
from itemforge.contract import DEAD_QUEUE, QUEUE, RETRY_DELAYS, retry_queue
from itemforge.errors import BrokerUnavailable, Unroutable
from itemforge.settings import BrokerSettings, load
from polling import eventually

#: 5 s become 0.25 s, 30 s become 1.5 s.
SCALE = 0.05


@pytest.fixture(params=["embedded", "classic", "quorum"])
def settings(request: pytest.FixtureRequest) -> BrokerSettings:
    url = None
    if request.param != "embedded":
        prefix = "quorum_" if request.param == "quorum" else ""
        url = request.getfixturevalue(f"{prefix}amqp_vhost").url
    return load(BrokerSettings, amqp_url_setting=url, retry_scale=SCALE, reconnect_max=0.2)


@pytest.fixture
async def broker(settings: BrokerSettings) -> AsyncIterator[Broker]:
    broker = open_broker(settings)
    await broker.start()
    await eventually(lambda: broker.connected)
    yield broker
    await broker.close()


async def take(consumer: Consumer, count: int = 1, within: float = 10.0) -> list[Delivery]:
    async with asyncio.timeout(within):
        return [await anext(aiter(consumer)) for _ in range(count)]


async def nothing_comes(consumer: Consumer, within: float = 0.3) -> bool:
    try:
        await take(consumer, within=within)
    except TimeoutError:
        return True
    return False


async def test_a_message_arrives_byte_for_byte_with_its_headers(broker: Broker) -> None:
    body = b'{"not": "touched"}\x00\xff \n'
    await broker.publish(QUEUE, body, {"x-attempt": 3, "note": "für dich"})
    (delivery,) = await take(broker.consume(1))
    assert delivery.body == body
    assert dict(delivery.headers) == {"x-attempt": 3, "note": "für dich"}
    assert delivery.redelivered is False
    await delivery.ack()


async def test_messages_come_in_order_and_no_more_than_prefetch_at_once(broker: Broker) -> None:
    for n in range(5):
        await broker.publish(QUEUE, b"%d" % n)
    consumer = broker.consume(2)
    held = await take(consumer, 2)
    assert await nothing_comes(consumer)
    assert await broker.depth(QUEUE) == 3
    await held[0].ack()
    held += await take(consumer)
    assert [d.body for d in held] == [b"0", b"1", b"2"]
    assert await nothing_comes(consumer)


async def test_an_acknowledged_message_is_gone(broker: Broker, settings: BrokerSettings) -> None:
    await broker.publish(QUEUE, b"once")
    first = broker.consume(5)
    (delivery,) = await take(first)
    await delivery.ack()
    await delivery.ack()
    await delivery.requeue()
    await first.stop()
    assert await nothing_comes(broker.consume(5))
    assert await broker.depth(QUEUE) == 0


async def test_a_requeued_message_comes_again_and_says_so(
    broker: Broker, request: pytest.FixtureRequest
) -> None:
    for n in range(3):
        await broker.publish(QUEUE, b"%d" % n)
    consumer = broker.consume(1)
    (delivery,) = await take(consumer)
    await delivery.requeue()
    seen: list[tuple[bytes, bool]] = []
    for _ in range(3):
        (delivery,) = await take(consumer)
        seen.append((delivery.body, delivery.redelivered))
        await delivery.ack()
    assert sorted(seen) == [(b"0", True), (b"1", False), (b"2", False)]
    if request.node.callspec.params["settings"] != "quorum":  # a quorum queue does not promise the order
        assert seen == sorted(seen)


async def test_a_stopped_consumer_takes_nothing_new_and_can_still_acknowledge(broker: Broker) -> None:
    consumer = broker.consume(2)
    await broker.publish(QUEUE, b"in hand")
    (in_hand,) = await take(consumer)
    await broker.publish(QUEUE, b"arrived")
    await eventually(lambda: _depth_is(broker, 0))
    await consumer.stop()
    await consumer.stop()
    assert not consumer.ready
    await broker.publish(QUEUE, b"late")

    async with asyncio.timeout(10):
        rest = [delivery async for delivery in consumer]
        assert [delivery async for delivery in consumer] == []
    await in_hand.ack()
    for delivery in rest:
        await delivery.ack()
    bodies = [d.body for d in rest]
    assert bodies in ([b"arrived"], []), "what had arrived comes, or went back"
    expected = [b for b in (b"arrived", b"late") if b not in bodies]
    deliveries = await take(broker.consume(5), len(expected))
    assert [d.body for d in deliveries] == expected


async def test_a_consumer_that_waits_ends_when_it_is_stopped(broker: Broker) -> None:
    consumer = broker.consume(1)
    await eventually(lambda: consumer.ready)
    waiting = asyncio.ensure_future(anext(aiter(consumer), None))
    await asyncio.sleep(0)
    await consumer.stop()
    async with asyncio.timeout(10):
        assert await waiting is None


async def test_another_consumer_goes_on_after_the_first_was_stopped(broker: Broker) -> None:
    first = broker.consume(1)
    await eventually(lambda: first.ready)
    await first.stop()
    await broker.publish(QUEUE, b"for the second")
    (delivery,) = await take(broker.consume(1))
    assert delivery.body == b"for the second"


async def test_two_consumers_share_the_queue(broker: Broker) -> None:
    one, two = broker.consume(1), broker.consume(1)
    await eventually(lambda: one.ready and two.ready)
    await broker.publish(QUEUE, b"a")
    await broker.publish(QUEUE, b"b")
    bodies = {(await take(c))[0].body for c in (one, two)}
    assert bodies == {b"a", b"b"}


async def test_what_is_not_acknowledged_at_close_is_delivered_again(
    broker: Broker, settings: BrokerSettings
) -> None:
    for n in range(3):
        await broker.publish(QUEUE, b"%d" % n)
    await take(broker.consume(2))
    await broker.close()
    await broker.close()
    # Nobody else sees what is in this process, so there the same queue starts again.
    again = broker if settings.amqp_url is None else open_broker(settings)
    await again.start()
    deliveries = await take(again.consume(3), 3)
    assert [d.body for d in deliveries] == [b"0", b"1", b"2"]
    assert [d.redelivered for d in deliveries][2] is False
    assert deliveries[0].redelivered
    await again.close()


@pytest.mark.parametrize("delay", ["5s", "30s"])
async def test_a_retry_queue_gives_the_message_back_after_its_delay(broker: Broker, delay: str) -> None:
    loop = asyncio.get_running_loop()
    consumer = broker.consume(1)
    await eventually(lambda: consumer.ready)
    began = loop.time()
    await broker.publish(retry_queue(delay), b"\x01 again", {"x-attempt": 2})
    assert await broker.depth(retry_queue(delay)) == 1
    (delivery,) = await take(consumer)
    assert loop.time() - began >= RETRY_DELAYS[delay] * SCALE * 0.9
    assert delivery.body == b"\x01 again"
    assert dict(delivery.headers) == {"x-attempt": 2}
    await delivery.ack()
    assert await broker.depth(retry_queue(delay)) == 0


async def test_a_short_delay_does_not_wait_behind_a_long_one(broker: Broker) -> None:
    await broker.publish(retry_queue("10m"), b"slow")
    await broker.publish(retry_queue("5s"), b"quick")
    (delivery,) = await take(broker.consume(1))
    assert delivery.body == b"quick"


async def test_dead_letters_are_taken_one_by_one_and_the_others_stay(broker: Broker) -> None:
    for n in (0, 1, 2, 1, 3):
        await broker.publish(DEAD_QUEUE, b"%d" % n, {"x-reason": "broken"})
    done: list[bytes] = []

    async def keep(letter: DeadLetter) -> None:
        done.append(letter.body)

    async def fail(letter: DeadLetter) -> None:
        raise BrokerUnavailable("it could not be moved")

    assert await broker.take_dead(2, lambda letter: letter.body == b"3", keep) == 0  # too far back
    with pytest.raises(BrokerUnavailable, match="could not be moved"):
        await broker.take_dead(9, lambda letter: letter.body == b"2", fail)
    assert await broker.take_dead(9, lambda letter: letter.body == b"1", keep) == 2
    assert done == [b"1", b"1"]
    await eventually(lambda: _depth_is(broker, 3, DEAD_QUEUE), 30)
    left = await broker.dead_letters(9)
    assert sorted(letter.body for letter in left) == [b"0", b"2", b"3"]
    assert {letter.headers["x-reason"] for letter in left} == {"broken"}


async def test_dead_letters_can_be_looked_at_again_and_again_and_purged(broker: Broker) -> None:
    assert await broker.dead_letters(10) == []
    for n in range(3):
        await broker.publish(DEAD_QUEUE, b"%d" % n, {"x-reason": "broken"})
    for _ in range(3):
        seen = await broker.dead_letters(2)
        assert [d.body for d in seen] == [b"0", b"1"]
        assert seen[0].headers["x-reason"] == "broken"
    await eventually(lambda: _depth_is(broker, 3, DEAD_QUEUE))
    assert await broker.purge_dead() == 3
    assert await broker.dead_letters(10) == []
    assert await broker.purge_dead() == 0


async def test_an_unknown_queue_is_refused_and_harms_nothing(broker: Broker) -> None:
    with pytest.raises(Unroutable, match="no queue 'nowhere'"):
        await broker.publish("nowhere", b"x")
    assert await broker.depth("nowhere") == 0
    await broker.publish(QUEUE, b"fine")
    assert await broker.depth(QUEUE) == 1


async def test_many_publishers_at_once_lose_nothing(broker: Broker) -> None:
    bodies = {b"%d" % n for n in range(100)}
    await asyncio.gather(*(broker.publish(QUEUE, body) for body in bodies))
    deliveries = await take(broker.consume(100), 100)
    assert {d.body for d in deliveries} == bodies
    await asyncio.gather(*(d.ack() for d in deliveries))
    assert await broker.depth(QUEUE) == 0


async def test_before_its_start_a_broker_refuses_clearly(settings: BrokerSettings) -> None:
    broker = open_broker(settings)
    assert not broker.connected
    for call in (
        broker.publish(QUEUE, b"x"),
        broker.depth(QUEUE),
        broker.dead_letters(1),
        broker.purge_dead(),
    ):
        with pytest.raises(BrokerUnavailable):
            await call
    await broker.close()


async def _depth_is(broker: Broker, count: int, queue: str = QUEUE) -> bool:
    return await broker.depth(queue) == count
