"""The queue inside the embedded system's one process: RabbitMQ's semantics without RabbitMQ.

Nothing is kept on disk. That loses no request, since the truth is its row and the gateway's relay
publishes every open row anew at start. For one event loop; not thread-safe.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from itemforge.broker.face import Consumer, DeadLetter, Delivery, Headers
from itemforge.contract import DEAD_QUEUE, QUEUE, RETRY_DELAYS, retry_queue
from itemforge.errors import BrokerUnavailable, Unroutable

_RETRY_AFTER = {retry_queue(name): delay for name, delay in RETRY_DELAYS.items()}


@dataclass(frozen=True)
class _Message:
    body: bytes
    headers: Headers
    redelivered: bool = False


class EmbeddedDelivery:
    """One message in a consumer's hands."""

    def __init__(self, message: _Message, consumer: "EmbeddedConsumer") -> None:
        self.body = message.body
        self.headers = message.headers
        self.redelivered = message.redelivered
        self._consumer = consumer

    async def ack(self) -> None:
        self._consumer.settle(self)

    async def requeue(self) -> None:
        self._consumer.give_back(self)


class EmbeddedConsumer:
    """A stream of deliveries, at most `prefetch` of them unacknowledged."""

    def __init__(self, broker: "EmbeddedBroker", prefetch: int) -> None:
        self._broker = broker
        self._prefetch = prefetch
        self._arrived: asyncio.Queue[EmbeddedDelivery | None] = asyncio.Queue()
        self._unsettled: dict[EmbeddedDelivery, None] = {}  # in the order of arrival
        self._stopped = False

    @property
    def ready(self) -> bool:
        return self._broker.connected and not self._stopped

    @property
    def free(self) -> bool:
        return not self._stopped and len(self._unsettled) < self._prefetch

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
        if not self._stopped:
            self._stopped = True
            self._arrived.put_nowait(None)

    def hand(self, message: _Message) -> None:
        delivery = EmbeddedDelivery(message, self)
        self._unsettled[delivery] = None
        self._arrived.put_nowait(delivery)

    def settle(self, delivery: EmbeddedDelivery) -> None:
        if delivery in self._unsettled:
            del self._unsettled[delivery]
            self._broker.hand_out()

    def give_back(self, delivery: EmbeddedDelivery) -> None:
        if delivery in self._unsettled:
            del self._unsettled[delivery]
            self._broker.put_back(_Message(delivery.body, delivery.headers, redelivered=True))

    def give_all_back(self) -> None:
        for delivery in reversed(list(self._unsettled)):
            self.give_back(delivery)


class EmbeddedBroker:
    """`broker.face.Broker` in memory. `retry_scale` shortens the retry delays in tests."""

    def __init__(self, retry_scale: float = 1.0) -> None:
        self._retry_scale = retry_scale
        self._ready: deque[_Message] = deque()
        self._dead: deque[_Message] = deque()
        self._waiting: dict[str, set[asyncio.TimerHandle]] = {name: set() for name in _RETRY_AFTER}
        self._consumers: deque[EmbeddedConsumer] = deque()
        self._started = False

    async def start(self) -> None:
        self._started = True
        self.hand_out()

    @property
    def connected(self) -> bool:
        return self._started

    async def publish(self, queue: str, body: bytes, headers: Headers | None = None) -> None:
        self._require_started()
        message = _Message(body, dict(headers or {}))
        if queue == QUEUE:
            self._ready.append(message)
            self.hand_out()
        elif queue == DEAD_QUEUE:
            self._dead.append(message)
        elif queue in _RETRY_AFTER:
            self._retry_later(queue, message)
        else:
            raise Unroutable(f"there is no queue {queue!r}; check its name")

    def consume(self, prefetch: int) -> Consumer:
        consumer = EmbeddedConsumer(self, prefetch)
        self._consumers = deque([*(each for each in self._consumers if not each.finished), consumer])
        self.hand_out()
        return consumer

    async def depth(self, queue: str) -> int:
        self._require_started()
        waiting = {QUEUE: self._ready, DEAD_QUEUE: self._dead, **self._waiting}
        return len(waiting.get(queue, ()))

    async def dead_letters(self, limit: int) -> list[DeadLetter]:
        self._require_started()
        return [DeadLetter(m.body, m.headers) for m in list(self._dead)[:limit]]

    async def take_dead(
        self,
        limit: int,
        wanted: Callable[[DeadLetter], bool],
        then: Callable[[DeadLetter], Awaitable[None]],
    ) -> int:
        self._require_started()
        taken = 0
        for message in list(self._dead)[:limit]:
            letter = DeadLetter(message.body, message.headers)
            if wanted(letter):
                await then(letter)
                # By identity: an equal one beside it is another message.
                self._dead = deque(each for each in self._dead if each is not message)
                taken += 1
        return taken

    async def purge_dead(self) -> int:
        self._require_started()
        count = len(self._dead)
        self._dead.clear()
        return count

    async def close(self) -> None:
        self._started = False
        for timers in self._waiting.values():
            for timer in timers:
                timer.cancel()
            timers.clear()
        for consumer in self._consumers:
            await consumer.stop()
            consumer.give_all_back()

    def put_back(self, message: _Message) -> None:
        """To the front: it has waited longest."""
        self._ready.appendleft(message)
        self.hand_out()

    def hand_out(self) -> None:
        """Give waiting messages to free consumers, in turn."""
        while self._started and self._ready:
            consumer = next((c for c in self._consumers if c.free), None)
            if consumer is None:
                return
            self._consumers.remove(consumer)
            self._consumers.append(consumer)
            consumer.hand(self._ready.popleft())

    def _retry_later(self, queue: str, message: _Message) -> None:
        def come_back() -> None:
            self._waiting[queue].discard(timer)
            self._ready.append(message)
            self.hand_out()

        delay = _RETRY_AFTER[queue] * self._retry_scale
        timer = asyncio.get_running_loop().call_later(delay, come_back)
        self._waiting[queue].add(timer)

    def _require_started(self) -> None:
        if not self._started:
            raise BrokerUnavailable("the embedded queue is not running; start it first")
