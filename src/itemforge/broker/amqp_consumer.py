"""Taking messages from RabbitMQ: a stream of deliveries over connections that come and go."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage

from itemforge.broker.amqp_link import Link, Lost, own_cancellation_only
from itemforge.broker.amqp_queues import ensure_queues
from itemforge.broker.face import Delivery, Headers
from itemforge.contract import QUEUE
from itemforge.settings import BrokerSettings

log = structlog.get_logger(__name__)

#: Seconds that an acknowledgement, a cancel or the watchdog's question may take.
CALL_TIMEOUT = 5.0


#: Headers that brokers add: they are no part of what was published, and must not be published again.
_BROKERS_OWN = (
    "x-death",
    "x-first-death-",
    "x-last-death-",
    "x-delivery-count",
    "x-acquired-count",
    "x-opt-",
)


def readable_headers(raw: object) -> Headers:
    """The publisher's headers that are text or integers; foreign messages may have none, or others."""
    pairs = raw.items() if isinstance(raw, dict) else ()
    return {
        str(name): value
        for name, value in pairs
        if isinstance(value, str | int)
        and not isinstance(value, bool)
        and not str(name).startswith(_BROKERS_OWN)
    }


class RabbitDelivery:
    """One message in our hands; when its channel is gone, `ack` and `requeue` only log."""

    def __init__(self, message: AbstractIncomingMessage, settled: Callable[["RabbitDelivery"], None]) -> None:
        self.body = message.body
        self.headers = readable_headers(message.headers)
        self.redelivered = bool(message.redelivered)
        self._message = message
        self._tell = settled
        self._settled = False

    async def ack(self) -> None:
        await self._settle("ack", self._message.ack)

    async def requeue(self) -> None:
        await self._settle("requeue", lambda: self._message.nack(requeue=True))

    async def _settle(self, action: str, call: Callable[[], Awaitable[None]]) -> None:
        if self._settled:
            return
        self._settled = True
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                with own_cancellation_only():
                    await call()
        except Exception as error:  # the broker will deliver it again, and its claim will say so
            log.warning("ack_lost", action=action, error=repr(error))
        finally:
            self._tell(self)


class RabbitConsumer:
    """Deliveries of `QUEUE`. After every loss all is rebuilt; what had not been handed out is forgotten,
    since the broker delivers it again.
    """

    def __init__(self, settings: BrokerSettings, prefetch: int) -> None:
        self._prefetch = prefetch
        self._stall_after = settings.stall_after
        self._link = Link(settings, "itemforge-consume", self._build, self._lost_all)
        self._arrived: asyncio.Queue[RabbitDelivery | None] = asyncio.Queue()
        self._unsettled: set[RabbitDelivery] = set()
        self._cancel: Callable[[], Awaitable[object]] | None = None
        self._watchdog: asyncio.Task[None] | None = None
        self._last_delivery = 0.0
        self._stopping: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._stopped = False
        self._link.start()

    @property
    def ready(self) -> bool:
        return self._link.up and self._stopping is None

    @property
    def finished(self) -> bool:
        """Stopped, and nothing is left to acknowledge."""
        return self._stopped and not self._unsettled

    def __aiter__(self) -> AsyncIterator[Delivery]:
        return self

    async def __anext__(self) -> Delivery:
        while (delivery := await self._arrived.get()) is not None:
            if delivery in self._unsettled:
                return delivery
        self._arrived.put_nowait(None)  # whoever asks again hears the same
        raise StopAsyncIteration

    async def stop(self) -> None:
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def close(self) -> None:
        """Stop, and give what is not acknowledged back to the broker."""
        await self.stop()
        await self._link.close()

    async def _stop(self) -> None:
        if self._cancel is not None:
            try:
                async with asyncio.timeout(CALL_TIMEOUT):
                    with own_cancellation_only():
                        await self._cancel()
            except Exception as error:  # then the connection's end gives the messages back
                log.warning("consumer_cancel_failed", error=repr(error))
                self._link.lose("the consumer could not be cancelled")
        self._end_watchdog()
        self._link.let_go()
        self._stopped = True
        self._arrived.put_nowait(None)
        if self.finished:
            await self._link.close()

    async def _build(self, connection: AbstractConnection, lost: Lost) -> None:
        await ensure_queues(connection, (QUEUE,))
        channel = await connection.channel(publisher_confirms=False)
        channel.close_callbacks.add(lambda _, error: lost(f"channel closed: {error}"))
        underlay = await channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(lambda _: lost("the broker cancelled the consumer"))
        await channel.set_qos(prefetch_count=self._prefetch)
        queue = await channel.get_queue(QUEUE, ensure=False)
        tag = await queue.consume(self._on_message)
        self._cancel = lambda: queue.cancel(tag)
        self._last_delivery = time.monotonic()
        self._watchdog = asyncio.create_task(self._watch(channel, lost))

    async def _on_message(self, message: AbstractIncomingMessage) -> None:
        self._last_delivery = time.monotonic()
        delivery = RabbitDelivery(message, self._on_settled)
        if self._stopped:
            await delivery.requeue()
            return
        self._unsettled.add(delivery)
        self._arrived.put_nowait(delivery)

    def _on_settled(self, delivery: RabbitDelivery) -> None:
        self._unsettled.discard(delivery)
        if self.finished and self._closing is None:
            self._closing = asyncio.create_task(self._link.close())

    def _lost_all(self) -> None:
        self._end_watchdog()
        self._cancel = None
        self._unsettled.clear()

    def _end_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None

    async def _watch(self, channel: AbstractChannel, lost: Lost) -> None:
        """Trust no library's promise: messages that wait while we are free and idle mean a dead consumer."""
        suspicious = False
        while True:
            await asyncio.sleep(self._stall_after / 2)
            idle = time.monotonic() - self._last_delivery >= self._stall_after / 2
            if not idle or len(self._unsettled) >= self._prefetch:
                suspicious = False
                continue
            try:
                async with asyncio.timeout(CALL_TIMEOUT):
                    with own_cancellation_only():
                        queue = await channel.declare_queue(QUEUE, passive=True)
            except Exception as error:
                lost(f"the broker does not answer: {error!r}")
                return
            waiting = bool(queue.declaration_result.message_count)
            if waiting and suspicious:
                lost("messages wait and none is delivered")
                return
            suspicious = waiting
