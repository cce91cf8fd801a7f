"""The one face of a message queue: publish with confirm, consume deliveries, look at the dead.

The queue is a wake-up signal; the truth is the request's row. So an adapter promises at-least-once and
no more: a delivery that was not acknowledged comes again, `publish` returns only when the message is
safe, and an acknowledgement that cannot reach the broker is logged and forgotten (the message comes
again, and its claim says that it is done).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

Headers = Mapping[str, str | int]


class Delivery(Protocol):
    """One message in our hands. `ack` and `requeue` are idempotent and never raise."""

    body: bytes
    headers: Headers
    redelivered: bool

    async def ack(self) -> None:
        """The work is done: the message is gone."""
        ...

    async def requeue(self) -> None:
        """Not started: the message goes back to the queue for anybody."""
        ...


class Consumer(Protocol):
    """A stream of deliveries that outlives connections: it reconnects and goes on by itself."""

    @property
    def ready(self) -> bool:
        """True while the broker has this consumer registered."""
        ...

    def __aiter__(self) -> AsyncIterator[Delivery]:
        """Deliveries until `stop`; those that had arrived before `stop` still come."""
        ...

    async def stop(self) -> None:
        """No new deliveries; those in hand can still be acknowledged. Idempotent."""
        ...


@dataclass(frozen=True)
class DeadLetter:
    """A message of the dead queue."""

    body: bytes
    headers: Headers


class Broker(Protocol):
    """RabbitMQ, or the queue inside the embedded system's process."""

    async def start(self) -> None:
        """Begin to connect, in the background: it returns while the broker may still be away."""
        ...

    async def publish(self, queue: str, body: bytes, headers: Headers | None = None) -> None:
        """Put a persistent message on `queue`; returns when the broker has confirmed it.

        `queue` is `contract.QUEUE`, a retry queue (from which it returns to `QUEUE` after its delay,
        body and headers unchanged) or `contract.DEAD_QUEUE`.

        Raises:
            BrokerUnavailable: not connected, or no confirm in time (the message may or may not be there).
            Unroutable: there is no such queue.
        """
        ...

    def consume(self, prefetch: int) -> Consumer:
        """Start to take messages from `contract.QUEUE`, at most `prefetch` unacknowledged at once."""
        ...

    async def depth(self, queue: str) -> int:
        """Messages that wait in `queue` (without those in hand); 0 if the queue does not exist.

        Raises:
            BrokerUnavailable: not connected.
        """
        ...

    async def dead_letters(self, limit: int) -> list[DeadLetter]:
        """The oldest messages of the dead queue, left where they are.

        Raises:
            BrokerUnavailable: not connected.
        """
        ...

    async def take_dead(
        self,
        limit: int,
        wanted: Callable[[DeadLetter], bool],
        then: Callable[[DeadLetter], Awaitable[None]],
    ) -> int:
        """Of the oldest `limit` messages of the dead queue remove those wanted, each when its `then` is done; how many.

        The others stay, and so does one whose `then` raises; what it raises comes out of here.

        Raises:
            BrokerUnavailable: not connected, or lost on the way; what was done with is gone, or comes a second time.
        """
        ...

    async def purge_dead(self) -> int:
        """Throw the dead queue's messages away; returns how many.

        Raises:
            BrokerUnavailable: not connected.
        """
        ...

    @property
    def connected(self) -> bool:
        """True while messages can be published."""
        ...

    async def close(self) -> None:
        """Stop consumers and connections. Idempotent."""
        ...
