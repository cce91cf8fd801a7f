"""The queue on RabbitMQ, 3.10 or newer, with classic or quorum queues as the vhost's default says.

`QUEUE` belongs to the wire contract and is declared durable and nothing more: an argument of ours would
lock foreign programs out. The retry queues are ours: each gives its messages back to `QUEUE` after one
fixed time, so that a message never waits behind one with a longer delay. Dead-lettering, limits and queue
types come by broker policy. Publishing has a connection of its own, since a broker short of memory or disk
blocks connections that publish; consuming then goes on.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import (
    CONNECTION_EXCEPTIONS,
    ChannelNotFoundEntity,
    DeliveryError,
    PublishError,
)

from itemforge.broker.amqp_consumer import RabbitConsumer, readable_headers
from itemforge.broker.amqp_link import Link, Lost, own_cancellation_only
from itemforge.broker.amqp_queues import ALL_QUEUES, RETRY_AFTER, declare_queues, ensure_queues
from itemforge.broker.face import Consumer, DeadLetter, Headers
from itemforge.contract import DEAD_QUEUE
from itemforge.errors import BrokerUnavailable, ItemForgeError, Unroutable
from itemforge.settings import BrokerSettings

log = structlog.get_logger(__name__)

T = TypeVar("T")


class RabbitBroker:
    """`broker.face.Broker` on RabbitMQ."""

    def __init__(self, settings: BrokerSettings) -> None:
        """Raises:
        ConfigurationError: no address is set.
        """
        settings.require_amqp_url()
        self._settings = settings
        self._link = Link(settings, "itemforge-publish", self._build, self._lost_all)
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._consumers: list[RabbitConsumer] = []

    async def start(self) -> None:
        self._link.start()

    @property
    def connected(self) -> bool:
        return self._link.up

    @property
    def trouble(self) -> str | None:
        """Why it could not connect when it last tried."""
        return self._link.trouble

    async def publish(self, queue: str, body: bytes, headers: Headers | None = None) -> None:
        message = Message(
            body,
            headers=dict(headers or {}),
            content_type="application/json",
            delivery_mode=DeliveryMode.PERSISTENT,
            expiration=self._expiration(queue),
        )
        if await self._send(queue, message):
            return
        if queue in ALL_QUEUES:
            log.warning("queue_missing", queue=queue)
            await self._on_new_channel(declare_queues)
            if await self._send(queue, message):
                return
        raise Unroutable(f"there is no queue {queue!r}; check its name")

    def _expiration(self, queue: str) -> float | None:
        # The queue's own time is its upper bound; this only shortens it, and only when a test scales it.
        delay = RETRY_AFTER.get(queue)
        return None if delay is None else delay * self._settings.retry_scale

    async def _send(self, queue: str, message: Message) -> bool:
        """True when confirmed, False when there is no such queue."""
        channel = self._channel
        if channel is None:
            raise self._not_connected()
        try:
            async with asyncio.timeout(self._settings.publish_timeout):
                with own_cancellation_only():
                    await channel.default_exchange.publish(message, routing_key=queue, mandatory=True)
        except PublishError:
            return False
        except DeliveryError as error:
            raise BrokerUnavailable(
                f"RabbitMQ refused a message for {queue!r} ({error}); is the queue at its length limit?"
            ) from error
        except TimeoutError as error:
            # It may be blocked (memory or disk alarm) or half dead; what is stuck in it must not pile up.
            self._link.lose("a publish was not confirmed in time")
            raise BrokerUnavailable(
                f"RabbitMQ did not confirm within {self._settings.publish_timeout:g} s; "
                "look for memory or disk alarms"
            ) from error
        except CONNECTION_EXCEPTIONS as error:
            raise BrokerUnavailable(f"the connection to RabbitMQ was lost: {error!r}") from error
        return True

    def consume(self, prefetch: int) -> Consumer:
        consumer = RabbitConsumer(self._settings, prefetch)
        self._consumers = [each for each in self._consumers if not each.finished] + [consumer]
        return consumer

    async def depth(self, queue: str) -> int:
        async def count(channel: AbstractChannel) -> int:
            try:
                found = await channel.declare_queue(queue, passive=True)
            except ChannelNotFoundEntity:
                return 0
            return found.declaration_result.message_count or 0

        return await self._on_new_channel(count)

    async def dead_letters(self, limit: int) -> list[DeadLetter]:
        """As the face says. On RabbitMQ each look counts as a delivery of what it sees, so a delivery limit
        must not be in force on the dead queue (RabbitMQ 4 sets one on quorum queues: lift it by policy).
        """

        async def look(channel: AbstractChannel) -> list[DeadLetter]:
            queue = await channel.get_queue(DEAD_QUEUE, ensure=False)
            seen: list[DeadLetter] = []
            while len(seen) < limit and (message := await queue.get(fail=False)) is not None:
                seen.append(DeadLetter(message.body, readable_headers(message.headers)))
            return seen  # the channel's end puts them back in their places

        return await self._on_new_channel(look)

    async def take_dead(
        self,
        limit: int,
        wanted: Callable[[DeadLetter], bool],
        then: Callable[[DeadLetter], Awaitable[None]],
    ) -> int:
        """As the face says; with RabbitMQ's deliveries as in `dead_letters`."""

        async def take(channel: AbstractChannel) -> int:
            queue = await channel.get_queue(DEAD_QUEUE, ensure=False)
            taken = 0
            for _ in range(limit):
                if (message := await queue.get(fail=False)) is None:
                    break
                letter = DeadLetter(message.body, readable_headers(message.headers))
                if not wanted(letter):
                    continue
                try:
                    await then(letter)
                except ItemForgeError:
                    await channel.close()  # else what it has seen would stay in its hands
                    raise
                await message.ack()
                taken += 1
            return taken

        return await self._on_new_channel(take)

    async def purge_dead(self) -> int:
        async def purge(channel: AbstractChannel) -> int:
            queue = await channel.get_queue(DEAD_QUEUE, ensure=False)
            return (await queue.purge()).message_count or 0

        return await self._on_new_channel(purge)

    async def close(self) -> None:
        await asyncio.gather(*(consumer.close() for consumer in self._consumers))
        await self._link.close()

    async def _on_new_channel(self, call: Callable[[AbstractChannel], Awaitable[T]]) -> T:
        """Run a question on a channel of its own, because an error closes the channel that asked.

        Raises:
            BrokerUnavailable: not connected, or no answer in time.
        """
        connection = self._connection
        if connection is None:
            raise self._not_connected()
        try:
            async with asyncio.timeout(self._settings.publish_timeout):
                with own_cancellation_only():
                    channel = await connection.channel(publisher_confirms=False)
                    answer = await call(channel)
                    await channel.close()
                    return answer
        except TimeoutError as error:
            self._link.lose("a question was not answered in time")
            raise BrokerUnavailable("RabbitMQ does not answer; look for memory or disk alarms") from error
        except CONNECTION_EXCEPTIONS as error:
            raise BrokerUnavailable(f"RabbitMQ refused or was lost: {error!r}") from error

    async def _build(self, connection: AbstractConnection, lost: Lost) -> None:
        await ensure_queues(connection)
        channel = await connection.channel(on_return_raises=True)
        channel.close_callbacks.add(lambda _, error: lost(f"channel closed: {error}"))
        self._connection, self._channel = connection, channel

    def _lost_all(self) -> None:
        self._connection = self._channel = None

    def _not_connected(self) -> BrokerUnavailable:
        why = self._link.trouble or "check its address and that it runs"
        return BrokerUnavailable(f"not connected to RabbitMQ: {why}")
